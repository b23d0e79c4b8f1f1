"""Prompts from a text file, one per line."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rfbench.errors import InputError
from rfbench.prompts.base import PromptSet
from rfbench.suite import Settings


class TextFileConfig(Settings):
    """Settings of a prompt file."""

    path: Path = Field(description="UTF-8 text, one prompt per line; empty lines are skipped")


class TextFile(PromptSet):
    """One prompt per line of a UTF-8 text file."""

    Config = TextFileConfig

    def __init__(self, config: TextFileConfig) -> None:
        try:
            text = config.path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"the prompt file {config.path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"the prompt file {config.path} is not UTF-8 (byte {error.start})") from None
        self._prompts = [line.strip() for line in text.splitlines() if line.strip()]
        if not self._prompts:
            raise InputError(f"the prompt file {config.path} holds no prompt")

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, index: int) -> str:
        return self._prompts[index]
