"""Names of data: a file, or a data set of the hub or in a folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_FORM = re.compile(r"(?P<name>[^@:]+)(@(?P<part>[^@:]+))?(:(?P<split>\w+(\.\w+)*))?")


@dataclass(frozen=True)
class DataSet:
    """A data set that the `datasets` library reads, as `NAME[@CONFIGURATION][:SPLIT]`.

    Attributes:
        name: on the hub, or a folder.
        configuration: which of its configurations, where it has several.
        split: one of its splits.
    """

    name: str
    configuration: str | None = None
    split: str = "train"


def data_set(name: str) -> DataSet | None:
    """What a name means, if it is not that of a file; None if it is not of this form."""
    if os.path.isdir(name):
        return DataSet(name)
    found = _FORM.fullmatch(name)
    if found is None:
        return None
    return DataSet(found["name"], found["part"], found["split"] or "train")


def same_data(one: str, other: str) -> bool:
    """Whether two names of files, folders or things on the hub mean the same, or may do so."""
    if os.path.realpath(one) == os.path.realpath(other) or _same_from_elsewhere(one, other):
        return True
    first, second = data_set(one), data_set(other)
    if first is None or second is None:
        return False
    # A configuration that is not named may be the one that is.
    named = {first.configuration, second.configuration} - {None}
    return first.split == second.split and len(named) < 2 and _same_name(first.name, second.name)


def _same_from_elsewhere(one: str, other: str) -> bool:
    """Whether a relative name, which may have been written in another folder, can be the other."""
    relative, absolute = sorted((Path(one), Path(other)), key=Path.is_absolute)
    if relative.is_absolute() or not absolute.is_absolute():
        return False
    parts = [part for part in relative.parts if part != ".."]
    return bool(parts) and list(absolute.parts[-len(parts) :]) == parts


def _same_name(one: str, other: str) -> bool:
    # The hub does not tell names apart by case.
    return os.path.realpath(one) == os.path.realpath(other) or one.casefold() == other.casefold()
