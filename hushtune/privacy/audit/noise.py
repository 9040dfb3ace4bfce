"""Whether the noise is what the plan says: shape, scale, tails, last bits, independence.

At scales from 2^32 on the discrete distributions and the continuous ones of the same scale differ
by less than 2^-31 in any event, which is added where it could matter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from hushtune.privacy.audit import exact
from hushtune.privacy.audit.findings import FALSE_ALARM, Finding, tested
from hushtune.privacy.plan import PrivacyPlan

_DISCRETE = 2.0**-31
_LAST_BITS = 16
_LARGEST_LAG = 8
# One number times this odd one, plus the other, modulo 2^64, tells pairs of numbers apart.
_ODD = np.uint64(0x9E3779B97F4A7C15)


def findings(noise: np.ndarray, plan: PrivacyPlan, where: str) -> list[Finding]:
    """Shape, scale and tails of independent draws.

    Args:
        noise: released less the sum, any shape.
        where: appended to the names of the findings.
    """
    relative = noise.ravel().astype(np.float64) / plan.noise_scale
    return [
        _shape(relative, plan, where),
        _scale(relative, plan, where),
        _tails(relative, plan, where),
    ]


def same(noise: np.ndarray, others: np.ndarray, where: str) -> Finding:
    """Whether two sets of independent draws have one distribution."""
    distance = exact.largest_distance(noise.ravel(), others.ravel())
    allowed = sum(exact.band(sample.size, FALSE_ALARM / 2) for sample in (noise, others))
    evidence = f"distribution functions {distance:.2g} apart, {allowed:.2g} allowed"
    return Finding(f"the same noise {where}", distance <= allowed, evidence)


def last_bits(noise: np.ndarray) -> Finding:
    """Whether the noise is made of exact integers: rounded floats have a coarser grid."""
    numbers = noise.ravel()
    p_values = [
        exact.binomial_p_value(int((numbers >> bit & 1).sum()), numbers.size, 0.5)
        for bit in range(_LAST_BITS)
    ]
    evidence = f"each of the last {_LAST_BITS} bits is set in half of all draws"
    return tested("last bits of the noise", min(1.0, _LAST_BITS * min(p_values)), evidence)


def independence(noise: np.ndarray) -> list[Finding]:
    """Whether signs agree in half of all pairs: neighbours in a release, and in consecutive ones.

    Args:
        noise: (releases, numbers).
    """
    signs = np.where(noise < 0, -1, 1).astype(np.int8)
    lags = range(1, min(_LARGEST_LAG, noise.shape[1] - 1) + 1)
    within = {lag: signs[:, lag:] * signs[:, :-lag] for lag in lags}
    across = {lag: signs[lag:] * signs[:-lag] for lag in (1, 2) if lag < len(signs)}
    return [
        _agreement(within, "numbers of one release are independent"),
        _agreement(across, "consecutive releases are independent"),
    ]


def repetition(series: list[np.ndarray]) -> Finding:
    """Whether two numbers that were released one after the other ever come again as a pair.

    By chance a given pair does with a probability below 2^-64, a million pairs below 10^-6.

    Args:
        series: int64 arrays; numbers along the last axis were released one after the other.
    """
    pairs = np.concatenate(
        [
            (each[..., :-1].view(np.uint64) * _ODD + each[..., 1:].view(np.uint64)).ravel()
            for each in series
        ]
    )
    repeated = len(pairs) - len(np.unique(pairs))
    evidence = f"{repeated} of {len(pairs)} pairs of consecutive numbers come again"
    return Finding("noise does not repeat", repeated == 0, evidence)


def _agreement(products: dict[int, np.ndarray], name: str) -> Finding:
    shares = {lag: float((product > 0).mean()) for lag, product in products.items()}
    lag = max(shares, key=lambda lag: abs(shares[lag] - 0.5))
    p_value = min(
        exact.binomial_p_value(int((product > 0).sum()), product.size, 0.5)
        for product in products.values()
    )
    evidence = f"signs at a distance of {lag} agree in {shares[lag]:.4f} of pairs"
    return tested(name, min(1.0, len(products) * p_value), evidence)


def _shape(relative: np.ndarray, plan: PrivacyPlan, where: str) -> Finding:
    places = np.sort(relative)
    expected = _distribution(plan).cdf(places)
    ranks = np.arange(len(places) + 1) / len(places)
    distance = max(float((ranks[1:] - expected).max()), float((expected - ranks[:-1]).max()))
    p_value = exact.band_p_value(max(0.0, distance - _DISCRETE), len(places))
    evidence = f"largest distance of {len(places)} draws from the plan's noise {distance:.2g}"
    return tested(f"shape of the noise {where}", p_value, evidence)


def _scale(relative: np.ndarray, plan: PrivacyPlan, where: str) -> Finding:
    if plan.mechanism == "gaussian":
        statistic, law = float(relative @ relative), stats.chi2(len(relative))
        measured = math.sqrt(statistic / len(relative))
    else:
        statistic, law = float(np.abs(relative).sum()), stats.gamma(len(relative))
        measured = statistic / len(relative)
    p_value = exact.two_sided(float(law.cdf(statistic)), float(law.sf(statistic)))
    return tested(f"scale of the noise {where}", p_value, f"{measured:.4f} of the plan's")


def _tails(relative: np.ndarray, plan: PrivacyPlan, where: str) -> Finding:
    largest = float(np.abs(relative).max())
    # log P(|noise| ≤ largest), for all draws together.
    below = len(relative) * math.log1p(-min(1.0 - 2.0**-53, 2 * _distribution(plan).sf(largest)))
    p_value = exact.two_sided(math.exp(below), -math.expm1(below))
    evidence = f"largest of {len(relative)} draws {largest:.2f} scales"
    return tested(f"tails of the noise {where}", p_value, evidence)


def _distribution(plan: PrivacyPlan) -> Any:
    return stats.norm if plan.mechanism == "gaussian" else stats.laplace
