"""The table in docs/private-evaluation.md is what the formula gives."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from hushtune.evaluating.ratios import denominator, ratios, scales
from hushtune.privacy.accounting import Phase, calibrate, composed_epsilon

TEXT = (Path(__file__).parents[2] / "docs" / "private-evaluation.md").read_text(encoding="utf-8")
_LINES = [line for line in TEXT.splitlines() if re.match(r"\| [\d.]+ \|", line)]
ROWS = [line.strip("| ").split(" | ") for line in _LINES]


def noise_for(epsilon: float) -> float:
    return calibrate(
        mechanism="gaussian",
        epsilon=epsilon,
        delta=1e-5,
        sampling_probability=1.0,
        steps=1,
        directions=2,
    )


def test_the_table_is_there():
    assert [row[0] for row in ROWS] == ["0.1", "0.25", "0.5", "1", "2"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"ε = {row[0]}")
def test_errors_and_least_numbers(row):
    epsilon, told, *errors, least = row
    noise = noise_for(float(epsilon))
    assert float(told) == pytest.approx(noise, abs=0.006)
    a, b = scales(1)
    for n, error in zip((100, 300, 1000, 10_000), errors, strict=True):
        released = np.array([n * a, n * b])
        found = ratios(released, noise)
        if found is None:
            assert error == "–"
            continue
        assert float(error) == pytest.approx(100 * found[0].standard_error, rel=0.05)
        # Half of the answers right: the numerator is zero.
        (half,) = ratios(np.array([n * a, 0.0]), noise) or []
        assert half.standard_error == pytest.approx(noise / math.sqrt(2) / n)
    _, error = denominator(np.zeros(2), noise, most=1.0)
    assert int(least) == round(3 * error)


def test_what_four_calls_cost_together():
    phase = Phase(
        mechanism="gaussian",
        noise_multiplier=noise_for(0.5),
        sampling_probability=1.0,
        steps=4,
        directions=2,
    )
    (told,) = re.findall(r"four calls at ε = 0\.5 cost ([\d.]+) together", TEXT)
    assert float(told) == pytest.approx(composed_epsilon([phase], delta=1e-5), abs=0.006)
