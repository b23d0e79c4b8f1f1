"""A tokenizer that is whole: as many tokens as its encoder has embeddings, every one of them reachable.

A folder without its vocabulary, its merges or its settings still makes a tokenizer, which turns every prompt into the
same tokens, or into more than the encoder takes. So each is tried before it is used, by `rfbench doctor` too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rfbench.errors import InputError

WHOLE = "tokenizer.json"
UNLIKE = ("a red cat", "a big dog")  # as many letters each, which a tokenizer without a vocabulary cannot tell apart


def load(
    kind: Any, folder: Path, *, embeddings: int, positions: int | None = None, added: int = 0, padded_to: int = 1
) -> Any:
    """The tokenizer of the transformers class ``kind`` in ``folder``, tried; an ``InputError`` says what it lacks.

    Args:
        embeddings: tokens that the encoder has embeddings of, ``added`` ones included, which the folder lacks.
        positions: tokens that the encoder takes, where the tokenizer's own ``model_max_length`` decides what is cut.
        padded_to: the embeddings are as many as the next multiple of this.
    """
    _check_files(kind, folder)
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a broken file raises in transformers or tokenizers
        raise InputError(f"the tokenizer in {folder} cannot be read: {type(error).__name__}: {error}") from None
    size, length = len(tokenizer) + added, tokenizer.model_max_length
    if size + -size % padded_to != embeddings:
        raise InputError(
            f"the tokenizer in {folder} has {size} tokens, but its encoder has embeddings of {embeddings}: they are "
            "not of one model, or tokens were added to one of them alone"
        )
    if positions is not None and length != positions:
        raise InputError(
            f"model_max_length of the tokenizer in {folder} is {_number(length)}, but its encoder takes {positions} "
            f'tokens; write "model_max_length": {positions} in its tokenizer_config.json'
        )
    _check_merges(tokenizer, folder)
    first, second = (tokenizer(prompt).input_ids for prompt in UNLIKE)
    if first == second:
        raise InputError(
            f"the tokenizer in {folder} gives {UNLIKE[0]!r} and {UNLIKE[1]!r} the same tokens, {first}: its vocabulary "
            "is not that of text"
        )
    return tokenizer


def _check_files(kind: Any, folder: Path) -> None:
    """``tokenizer.json``, or the separate files of older tokenizers."""
    if (folder / WHOLE).exists():
        return
    files = [name for name in kind.vocab_files_names.values() if name != WHOLE]
    lacking = [name for name in files if not (folder / name).exists()]
    if lacking or not files:
        raise InputError(
            f"the tokenizer in {folder} is not whole: there is no {' and no '.join(lacking)}, and no {WHOLE} in their "
            "stead; fetch or copy the folder again"
        )


def _check_merges(tokenizer: Any, folder: Path) -> None:
    """Byte-pair encoding makes every token but single characters and special ones by a merge."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if model["type"] != "BPE":
        return
    made = {"".join(merge) if isinstance(merge, list) else merge.replace(" ", "") for merge in model["merges"]}
    suffix = model.get("end_of_word_suffix") or ""
    special = set(tokenizer.get_added_vocab())
    lost = [
        token
        for token in model["vocab"]
        if token not in made and token not in special and len(token.removesuffix(suffix)) > 1
    ]
    if lost:
        raise InputError(
            f"the tokenizer in {folder} is not whole: no merge leads to {len(lost)} of its {len(model['vocab'])} "
            f"tokens, such as {lost[0]!r}; fetch or copy its merges again"
        )


def _number(length: Any) -> str:
    return "not given" if isinstance(length, int) and length >= 10**9 else repr(length)
