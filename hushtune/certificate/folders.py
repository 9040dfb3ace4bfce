"""Compare a saved model with the replayed one, file by file and tensor by tensor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_WEIGHTS = ".safetensors"

#: For people; loaders do not read it, and whoever publishes a model writes it anew.
MODEL_CARD = "README.md"

#: Entries of JSON files that say with what, and from where, a library wrote them.
_CIRCUMSTANCES = (
    "transformers_version",
    "peft_version",
    "is_local",
    "local_files_only",
    "name_or_path",
    "_name_or_path",
)


def difference_of_weights(saved: Path, replayed: Path) -> str | None:
    """The first difference between the safetensors files of two folders; None: there is none."""
    names, wanted = _names(saved, weights=True), _names(replayed, weights=True)
    if names != wanted:
        return _difference_of_names(saved, names, wanted)
    for name in sorted(names):
        try:
            difference = _difference_of_tensors(saved / name, replayed / name)
        except SafetensorError as error:
            difference = f"cannot be read ({error})"
        if difference:
            return f"{saved.name}/{name}: {difference}"
    return None


def difference_of_other_files(
    saved: Path, replayed: Path, *, base_names: Collection[str]
) -> str | None:
    """The first difference between all other files of two folders; None: there is none.

    A model card may be there and hold anything. In settings it does not count with which versions
    of libraries and from where they were written, by which of `base_names` an adapter knows its
    base model, and in which order it lists its layers.
    """
    names, wanted = _names(saved, weights=False), _names(replayed, weights=False)
    if names != wanted:
        return _difference_of_names(saved, names, wanted)
    for name in sorted(names):
        one, other = (saved / name).read_bytes(), (replayed / name).read_bytes()
        if one != other and not (
            name.endswith(".json") and _settings(one, base_names) == _settings(other, base_names)
        ):
            return f"{saved.name}/{name} is not what the replay wrote"
    return None


def count_tensors(folder: Path) -> tuple[int, int]:
    """Number of tensors and of safetensors files."""
    names = _names(folder, weights=True)
    tensors = 0
    for name in names:
        with safe_open(str(folder / name), framework="pt") as file:
            tensors += len(file.keys())
    return tensors, len(names)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by path from the folder's parent."""
    found = {}
    for path in sorted(_files(folder)):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(folder.parent).as_posix()] = digest
    return found


def _files(folder: Path) -> list[Path]:
    # A link to a folder counts as a file, so that nothing hides behind it.
    return [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def _names(folder: Path, *, weights: bool) -> set[str]:
    names = {path.relative_to(folder).as_posix() for path in _files(folder)}
    return {name for name in names if name.endswith(_WEIGHTS) == weights and name != MODEL_CARD}


def _difference_of_names(folder: Path, names: set[str], wanted: set[str]) -> str:
    if missing := sorted(wanted - names):
        return f"{folder.name}/ lacks {missing[0]}"
    return f"{folder.name}/ holds {min(names - wanted)}, which the replay did not write"


def _difference_of_tensors(one: Path, other: Path) -> str | None:
    with safe_open(str(one), "pt") as saved, safe_open(str(other), "pt") as replayed:
        if set(saved.keys()) != set(replayed.keys()):
            return f"tensor {min(set(saved.keys()) ^ set(replayed.keys()))} is in one file only"
        if saved.metadata() != replayed.metadata():
            return "its metadata is not what the replay wrote"
        for name in sorted(saved.keys()):
            if difference := _difference(saved.get_tensor(name), replayed.get_tensor(name)):
                return f"tensor {name} {difference}"
    return None


def _difference(one: Tensor, other: Tensor) -> str | None:
    if one.dtype != other.dtype or one.shape != other.shape:
        return (
            f"is {one.dtype} of shape {tuple(one.shape)}, replay gives {other.dtype} of shape "
            f"{tuple(other.shape)}"
        )
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    if torch.equal(*bits):
        return None
    rows = [each.reshape(one.numel(), -1) for each in bits]
    count = int((rows[0] != rows[1]).any(dim=1).sum())
    return f"differs from the replay in {count} of {one.numel()} entries"


def _settings(content: bytes, base_names: Collection[str]) -> Any:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(value, dict):
        return value
    value = {key: item for key, item in value.items() if key not in _CIRCUMSTANCES}
    if value.get("base_model_name_or_path") in base_names:
        value["base_model_name_or_path"] = None
    layers = value.get("target_modules")
    if isinstance(layers, list):
        value["target_modules"] = sorted(map(str, layers))  # PEFT keeps them as a set
    return value
