"""The one rule for weights: a network is made from its files exactly.

Every tensor that the network has is in the files, of the same shape, and the files hold no other. Anything else is an
``InputError`` with the names: nothing is initialised at random, and nothing is dropped. The names and shapes are in the
files' headers, so that ``rfbench doctor`` and a plan judge without reading a tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rfbench.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]
Names = Sequence[tuple[str, str]]  # pairs for re.sub: spellings of one name in the course of the libraries' versions
IGNORED = re.compile(r"(^|\.)position_ids$")  # 0, 1, 2, ...: older transformers saved them, newer ones make them
MACHINE_FAULTS = (OSError, MemoryError, torch.OutOfMemoryError)  # while a file is read: they say nothing of the file
SHOWN = 3  # differences of a kind that a message names


class TensorFiles:
    """The tensors of one safetensors file, or of its shards: their shapes at once, their numbers one by one.

    Attributes:
        path: the file, or the index of the shards, for messages.
        shapes: every tensor's shape by name.
        floating: whether a tensor holds floating-point numbers, by name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """``folder/name``, or what ``folder/name.index.json`` lists; an ``InputError`` where a file is not whole."""
        self.path = folder / name
        files = [self.path]
        if not self.path.exists():
            self.path = folder / f"{name}.index.json"
            files = [folder / shard for shard in shards(self.path)]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.floating: dict[str, bool] = {}
        self._file_of: dict[str, Path] = {}
        for file in files:
            with _opened(file) as tensors:
                for key in tensors.keys():  # noqa: SIM118  # safe_open has no __iter__
                    if key in self.shapes:
                        raise InputError(
                            f"{key} is in {self._file_of[key]} and in {file.name}: these are not one network"
                        )
                    found = tensors.get_slice(key)
                    self.shapes[key] = tuple(found.get_shape())
                    self.floating[key] = found.get_dtype().startswith(("F", "BF"))
                    self._file_of[key] = file

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for file in dict.fromkeys(self._file_of.values()):
            with _opened(file) as tensors:
                yield from ((key, tensors.get_tensor(key)) for key in tensors.keys())  # noqa: SIM118


def shards(index: Path) -> list[str]:
    """The files that an index of shards lists; an ``InputError`` where it is none, or one of them is missing."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except FileNotFoundError:
        raise InputError(f"there is no {index.name.removesuffix('.index.json')} in {index.parent}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is no index of shards: {error}") from None
    lacking = [name for name in names if not (index.parent / name).exists()]
    if lacking:
        raise InputError(
            f"{index} lists {len(names)} shards, but {', '.join(lacking[:SHOWN])} "
            f"{'is' if len(lacking) == 1 else 'are'} missing; fetch or copy the folder again"
        )
    return names


def outline(build: Callable[[], nn.Module]) -> nn.Module:
    """The network without numbers: parameters on the meta device, constant buffers as they are."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return build()


def make(
    build: Callable[[], nn.Module], files: TensorFiles, what: str, device: torch.device, names: Names = ()
) -> nn.Module:
    """The network that ``build`` makes with the tensors of ``files``: fp32, in evaluation mode, on ``device``."""
    module = _described(build, files)
    own = _spelled(module, files, what, names)
    expected = module.state_dict()
    state = {own[key]: tensor.to(device, _dtype(expected[own[key]]), copy=True) for key, tensor in files if key in own}
    module.load_state_dict(state, assign=True)
    return module.to(device).eval()


def check(build: Callable[[], nn.Module], files: TensorFiles, what: str, names: Names = ()) -> None:
    """The ``InputError`` that ``make`` would raise."""
    _spelled(_described(build, files), files, what, names)


def require_equal(expected: Shapes, found: Shapes, path: Path | str, what: str) -> None:
    """An ``InputError`` names the first tensors in which ``found``, read from ``path``, differs from ``expected``."""
    missing = [f"{key} {expected[key]} is missing" for key in expected if key not in found]
    unknown = [f"{key} {found[key]} is unknown" for key in found if key not in expected]
    reshaped = [
        f"{key} is {found[key]}, where {expected[key]} is needed"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    differences = reshaped + missing + unknown
    if differences:
        shown = "; ".join(reshaped[:SHOWN] + missing[:SHOWN] + unknown[:SHOWN])
        raise InputError(f"{path} does not hold the weights of {what}: {len(differences)} tensors differ. {shown}")


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def load(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Copies ``tensors``, read from ``path``, into ``module`` by the same rule."""
    require_equal(shapes_of(module.state_dict()), shapes_of(tensors), path, what)
    _require_floats(module, {key: tensor.is_floating_point() for key, tensor in tensors.items()}, path, what)
    module.load_state_dict(tensors)


def _require_floats(module: nn.Module, floating: Mapping[str, bool], path: Path, what: str) -> None:
    """An ``InputError`` where whole numbers, as of a quantised network, stand in the place of a floating-point one."""
    whole = [key for key, own in module.state_dict().items() if own.is_floating_point() and not floating[key]]
    if whole:
        raise InputError(
            f"{path} does not hold the weights of {what}: {len(whole)} tensors hold whole numbers, such as {whole[0]}; "
            "it is quantised, or of something else: use a file in fp32, bf16 or fp16"
        )


def _described(build: Callable[[], nn.Module], files: TensorFiles) -> nn.Module:
    """The network without numbers; an ``InputError`` where the config beside the files describes none."""
    try:
        return outline(build)
    except Exception as error:  # whatever diffusers or transformers raise of a value that they do not know
        config = files.path.parent / "config.json"
        raise InputError(f"{config} describes no network: {type(error).__name__}: {error}") from None


def _spelled(module: nn.Module, files: TensorFiles, what: str, names: Names) -> dict[str, str]:
    """The module's name of every tensor in the files, whose shapes are equal; an ``InputError`` where any differs."""
    own = {respell(key, names): key for key in module.state_dict()}
    found = {}
    for key in files.shapes:
        if not IGNORED.search(key):
            found[key] = own.pop(respell(key, names), key)  # a second spelling of a name stays, as unknown
    shapes = {name: files.shapes[key] for key, name in found.items()}
    require_equal(shapes_of(module.state_dict()), shapes, files.path, what)
    _require_floats(module, {name: files.floating[key] for key, name in found.items()}, files.path, what)
    return found


def respell(key: str, names: Names) -> str:
    """A tensor's name in the one spelling that ``names`` lead to."""
    for pattern, name in names:
        key = re.sub(pattern, name, key)
    return key


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a safetensors file, or is cut off ({error})") from None
