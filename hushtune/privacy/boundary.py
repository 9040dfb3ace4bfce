"""The privacy boundary: private numbers go in, integers that may be published come out.

This is the only module that turns values computed from private data into a released value.
Everything after it is post-processing of its output and of public randomness. The order is

    combine per unit -> non-finite to zero -> clip in float64 -> truncate onto a grid
    -> verify the norm in integers -> sum exactly in int64 -> add exactly sampled noise

Formal guarantee. Let Δ be the plan's integer `sensitivity` and s its integer `noise_scale`.
Whatever the inputs, every unit adds to the sum an integer vector v with ‖v‖₂ ≤ Δ (Gaussian) or
‖v‖₁ ≤ Δ (Laplace): this is checked in integer arithmetic, not derived from floating point.
Integer addition is associative, so the sum is the same for any order of units and the sums of
two data sets of which one has one unit more differ by exactly one such vector. Cutting the sum
off at the limits of int64 does not increase that difference. `release` adds to each coordinate an
independent discrete Gaussian or discrete Laplace variable of scale s, drawn by OpenDP's exact
samplers from OpenSSL's cryptographic generator, which the operating system seeds and nobody else
can. One call of `release` is therefore the discrete Gaussian (Laplace) mechanism with noise
multiplier s/Δ.

Nothing here is logged, counted or kept: no clip rate, no norm, no sum, no noise value. Messages of
errors name public values only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from opendp.domains import atom_domain, vector_domain
from opendp.measurements import make_gaussian, make_laplace
from opendp.metrics import l1_distance, l2_distance
from opendp.mod import enable_features

from hushtune.privacy.exact_sums import column_sums, sums_of_magnitudes, sums_of_squares
from hushtune.privacy.plan import Combine, PrivacyPlan

#: Adds noise to exact integer sums; replaced in tests only.
AddNoise = Callable[[list[int]], list[int]]

#: Numbers that are clipped at a time, unless a row has more.
_CLIPPED_TOGETHER = 2**16

#: Sums are cut off at ± this, the largest int64.
_LARGEST = 2**63 - 1


class Boundary:
    """Releases one noised integer vector a step, bound to the plan that accounts for it.

    Args:
        plan: clip, grid, integer sensitivity and noise scale, all fixed before the first step.
        add_noise: replaces the noise, for tests only. Nothing that reads a configuration or a
            command line can reach this argument.
    """

    def __init__(self, plan: PrivacyPlan, *, add_noise: AddNoise | None = None) -> None:
        self.plan = plan
        self._add_noise = add_noise or exact_noise(plan)

    def release(self, scalars: np.ndarray, unit_of_row: np.ndarray) -> tuple[int, ...]:
        """One release: K noised integers, in units of the plan's grid.

        Args:
            scalars: (rows, K) float64, for each sampled row its loss difference per direction.
                Zero rows are allowed: an empty sample is released like any other.
            unit_of_row: (rows,) which unit each row belongs to; the rows of a unit are in the
                unit's own fixed order.
        """
        return self.publish(self.bounded_sum(scalars, unit_of_row))

    def bounded_sum(self, scalars: np.ndarray, unit_of_row: np.ndarray) -> list[int]:
        """The exact sum of the units' clipped vectors: private, until it went through `publish`.

        Where the data is spread over several owners, each computes its own and the sums are added.

        Args:
            scalars, unit_of_row: as for `release`.
        """
        directions = self.plan.directions
        if scalars.shape != (len(unit_of_row), directions):
            # The number of rows is private, and this text may reach a terminal.
            raise ValueError(
                f"Expected scalars of shape (rows, {directions}), one row per unit row."
            )
        per_unit = combine_rows(scalars, unit_of_row, self.plan.combine)
        return exact_sum(clip_to_grid(per_unit, self.plan))

    def publish(self, total: list[int]) -> tuple[int, ...]:
        """K noised integers from K sums to which every unit added one clipped vector at most."""
        return tuple(int(value) for value in self._add_noise(total))


def combine_rows(scalars: np.ndarray, unit_of_row: np.ndarray, combine: Combine) -> np.ndarray:
    """(units, K) float64: the mean or sum of each unit's rows, taken in the order given.

    A unit's result depends on its own rows alone.
    """
    rows_of: dict[int, list[int]] = {}
    for row, unit in enumerate(unit_of_row.tolist()):
        rows_of.setdefault(unit, []).append(row)
    combined = np.zeros((len(rows_of), scalars.shape[1]), dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        for place, rows in enumerate(rows_of.values()):
            for row in rows:
                combined[place] += scalars[row]
            if combine == "mean":
                combined[place] /= len(rows)
    return combined


def clip_to_grid(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    """(units, K) int64, each row of norm at most `plan.sensitivity`: clip, truncate, verify.

    The float64 part decides only *which* admissible integers stand for a unit. That they are
    admissible is checked at the end without floating point; a row that fails becomes zero.
    """
    integers = np.empty(per_unit.shape, dtype=np.int64)
    # Rows have nothing to do with each other; some at a time stay in the processor's cache.
    rows = max(1, _CLIPPED_TOGETHER // max(1, per_unit.shape[1]))
    for start in range(0, len(per_unit), rows):
        integers[start : start + rows] = _clipped(per_unit[start : start + rows], plan)
    return integers


def _clipped(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    """`clip_to_grid` of some rows."""
    finite = np.where(np.isfinite(per_unit), per_unit, 0.0)
    # Dividing by the largest entry first keeps the squares from overflowing.
    largest = np.abs(finite).max(axis=1, keepdims=True, initial=0.0)
    direction = np.divide(finite, largest, out=np.zeros_like(finite), where=largest > 0)
    norm_of_direction = plan.norm(direction)
    # min(|x|, Δ) in grid units, written so that no intermediate value can be undefined. The bound
    # is Δ rather than C / grid, of which truncation alone could leave more than Δ.
    with np.errstate(over="ignore"):
        length = np.minimum(
            largest / plan.grid, plan.sensitivity / np.maximum(norm_of_direction, 1.0)
        )
    integers = np.trunc(direction * length).astype(np.int64)
    # Rounding of the norm may leave a row a little too long: one step toward zero mends that.
    too_long = ~_admitted(integers, plan)
    shortened = integers[too_long] - np.sign(integers[too_long])
    shortened[~_admitted(shortened, plan)] = 0
    integers[too_long] = shortened
    return integers


def _admitted(integers: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    """(units,) bool: which rows are within the sensitivity, by integer arithmetic."""
    if plan.mechanism == "gaussian":
        lengths, longest = sums_of_squares(integers), plan.sensitivity**2
    else:
        lengths, longest = sums_of_magnitudes(integers), plan.sensitivity
    return np.array([length <= longest for length in lengths], dtype=bool)


def exact_sum(bounded: np.ndarray) -> list[int]:
    """The column sums of (rows, K) int64 in integers without limit, cut off at those of int64.

    The plan makes sure that `population` units cannot reach the limit. There may be more units than
    the declared population, and a sum that wraps around would differ by 2^64 between neighbours.
    Cutting off is monotone and moves no two values apart.
    """
    totals = column_sums(bounded)
    if min(totals, default=0) >= -_LARGEST and max(totals, default=0) <= _LARGEST:
        return totals  # as nearly always; looking is much faster than cutting
    return [max(-_LARGEST, min(_LARGEST, total)) for total in totals]


def exact_noise(plan: PrivacyPlan) -> AddNoise:
    """OpenDP's exact sampler for the plan: maps an integer vector to its noised version.

    OpenDP saturates its output at the limits of int64, which is post-processing.
    """
    enable_features("contrib")
    vectors = vector_domain(atom_domain(T="i64"), size=plan.directions)
    scale = float(plan.noise_scale)  # exact: the plan keeps it below 2^53
    make: Callable[[Sequence[int]], list[int]]
    if plan.mechanism == "gaussian":
        make = make_gaussian(vectors, l2_distance(T="f64"), scale=scale)
    else:
        make = make_laplace(vectors, l1_distance(T="i64"), scale=scale)
    return lambda total: list(make(total))
