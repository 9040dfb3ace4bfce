"""What a written answer is worth beside those that are right, as SQuAD scores them.

Source: Rajpurkar et al. (2016).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1 if an answer is one of those accepted, but for case, articles and punctuation; else 0."""
    return float(any(_words(answer) == _words(each) for each in accepted))


def token_f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 of an answer's words against those of an accepted one, from 0 to 1.

    Words are compared but for case, articles and punctuation. Two answers without any words agree.
    """
    return max(_f1(_words(answer), _words(each)) for each in accepted)


def _words(text: str) -> list[str]:
    plain = text.lower().translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))
