"""A score that tests name as module:function."""

from __future__ import annotations

from collections.abc import Sequence


def longer(answer: str, accepted: Sequence[str]) -> float:
    return len(answer) / max(map(len, accepted))
