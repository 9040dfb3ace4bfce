"""How well an attack did, and how well it would have done by chance."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """P[a member scores above another], ties half: the area under the ROC curve."""
    statistic = stats.mannwhitneyu(members, others).statistic
    return float(statistic / (len(members) * len(others)))


def auc_by_chance(members: int, others: int) -> float:
    """Standard deviation of `auc` around 1/2 if scores say nothing (Mann and Whitney 1947)."""
    return math.sqrt((members + others + 1) / (12 * members * others))


def true_positive_rate(members: np.ndarray, others: np.ndarray, *, at: float) -> float:
    """The share of members found by the lowest threshold with false positive rate ≤ `at`.

    Low rates are what counts for membership (Carlini et al. 2022, arXiv 2112.03570).
    """
    allowed = math.floor(at * len(others))
    threshold = np.sort(others)[::-1][allowed]
    return float((members > threshold).mean())
