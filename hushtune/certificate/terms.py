"""Compare terms: nested plain values, as JSON holds them."""

from __future__ import annotations

import math
from typing import Any

#: Processors round differently in the accountant's transforms; what is certified is shown to four
#: digits.
_RELATIVE_TOLERANCE = 1e-6


def differing_terms(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Both values of each leaf in which two nested plain values differ, by dotted path.

    Floats may differ by a millionth, everything else not at all; a leaf that one side lacks is
    None there.
    """
    left, right = _leaves("", one), _leaves("", other)
    pairs = {path: (left.get(path), right.get(path)) for path in {**right, **left}}
    return {
        path: pair
        for path, pair in pairs.items()
        if not (path in left and path in right and _same(*pair))
    }


def _same(one: Any, other: Any) -> bool:
    if type(one) is float and type(other) is float:
        return math.isclose(one, other, rel_tol=_RELATIVE_TOLERANCE)
    return type(one) is type(other) and one == other


def _leaves(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    else:
        return {path: value}
    if not value:
        return {path: value}  # an empty list is a value as well
    pieces = [_leaves(f"{path}.{key}" if path else str(key), item) for key, item in inner]
    return {key: item for piece in pieces for key, item in piece.items()}
