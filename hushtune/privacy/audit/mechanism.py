"""The audit: what runs is asked whether it is what was accounted, and how much it reveals."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from hushtune.privacy.audit import attacks, exact, neighbours, noise, reruns, sampling
from hushtune.privacy.audit.bounds import Point, plan_epsilon
from hushtune.privacy.audit.findings import FALSE_ALARM, Finding
from hushtune.privacy.audit.neighbours import Worst
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.plan import PrivacyPlan, require

#: The fewest coordinates from which the tests say anything.
FEWEST_COORDINATES = 10_000

# Numbers in a release of the noise alone: long vectors are ten times cheaper a number.
_WIDTH = 10_000
# Numbers of a release that the attack with memory looks at, and windows of an arm.
_SEEN = 8
_MOST_WINDOWS = 4000
_FEWEST_WINDOWS = 200
_CROWDED_RELEASES = 200
# Coins of the sampler for each coordinate of noise, which takes hundreds of times as long.
_COINS, _MOST_COINS = 100, 20_000_000
# Share of the error probability that each part of the bound may use.
_RATE, _THRESHOLD, _MEMORY, _RERUN = 0.2, 0.5, 0.15, 0.15


@dataclass(frozen=True)
class MechanismAudit:
    """What an audit found.

    Attributes:
        epsilon_lower_bound: of the whole plan at its δ: all steps, sampling included. The code's ε
            is at least this with probability `confidence`, provided that steps are alike and
            independent, as the findings test.
        epsilon_claimed: what the accountant says, an upper bound if all is right.
        confidence: of the lower bound.
        released_coordinates: how many noised integers were looked at.
        findings: each fails with probability 1e-6 where the code does what the plan says.
        passed: whether all findings did.
    """

    epsilon_lower_bound: float
    epsilon_claimed: float
    confidence: float
    released_coordinates: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The audit as plain values."""
        return dataclasses.asdict(self) | {"passed": self.passed}


@dataclass(frozen=True)
class _Releases:
    """What the code released on made-up data.

    Attributes:
        long: (releases, numbers) int64, nobody there, in releases far wider than the plan's.
        without: (windows, 2, K) int64, two consecutive releases without the unit.
        there: the same with the unit in the second release.
        crowded: (releases, K) int64 with many units there.
        again: (3, releases) int64 from the same seeds; see `reruns.releases`.
    """

    long: np.ndarray
    without: np.ndarray
    there: np.ndarray
    crowded: np.ndarray
    again: np.ndarray

    @property
    def coordinates(self) -> int:
        return sum(getattr(self, field.name).size for field in dataclasses.fields(self))


def audit_mechanism(
    plan: PrivacyPlan, *, coordinates: int = 1_000_000, confidence: float = 0.95
) -> MechanismAudit:
    """Run the boundary and the sampler of a plan on made-up data and bound their ε from below.

    Needs no private data and no model. Noise and samples are drawn as in training.

    Args:
        plan: the plan whose claim is tested.
        coordinates: about how many noised integers are released; fewer find less.
        confidence: of the lower bound, above 0 and below 1.

    Raises:
        ValueError: if a value is out of range; the message names it and what is accepted.
    """
    require(
        coordinates >= FEWEST_COORDINATES,
        "coordinates",
        coordinates,
        f"at least {FEWEST_COORDINATES}",
    )
    require(0 < confidence < 1, "confidence", confidence, "above 0 and below 1")
    worst, found = neighbours.search(plan)
    releases = _release(plan, worst, coordinates)
    taken = sampling.draw(plan, min(_COINS * coordinates, _MOST_COINS))
    exactly = Boundary(plan, add_noise=list)
    residue = _less(releases.there[:, 1], exactly.release(*worst.there))
    one_noise = noise.same(releases.long, residue, "with a unit there")
    alone = _less(releases.without, exactly.release(*worst.without))
    crowded = _less(releases.crowded, exactly.release(*neighbours.crowd(plan)))
    found += [
        *noise.findings(releases.long, plan, "with nobody there"),
        *noise.findings(alone, plan, "at the plan's width"),
        *noise.findings(residue, plan, "with a unit there"),
        *noise.findings(crowded, plan, "with many units there"),
        one_noise,
        noise.last_bits(releases.long),
        *noise.independence(releases.long),
        noise.repetition([releases.long, releases.without[:, :, 0]]),
        *sampling.findings(taken, plan.sampling_probability),
        reruns.finding(*releases.again[:2]),
        reruns.samples(plan),
    ]
    attack = _Attack(plan, worst, releases, taken, shifted_arm=one_noise.passed)
    claimed = plan.epsilon()
    surely = attack.epsilon(FALSE_ALARM)
    found += [
        attack.finding(),
        Finding(
            "lower bound within the claim",
            surely <= claimed,
            f"ε ≥ {surely:.4g} but for one audit in a million, claimed {claimed:.4g}",
        ),
    ]
    return MechanismAudit(
        attack.epsilon(1 - confidence), claimed, confidence, releases.coordinates, tuple(found)
    )


def _release(plan: PrivacyPlan, worst: Worst, coordinates: int) -> _Releases:
    """About that many coordinates; at least half of them in wide releases with nobody there."""
    width = min(_WIDTH, coordinates // 10)
    wide = dataclasses.replace(plan, directions=width)
    boundary = Boundary(wide)
    long = [boundary.release(*neighbours.nobody(wide)) for _ in range(coordinates // width)]

    affordable = coordinates // (16 * plan.directions)
    windows = min(_MOST_WINDOWS, max(_FEWEST_WINDOWS, affordable))
    boundary = Boundary(plan)
    arms = [
        [
            [boundary.release(*first), boundary.release(*second)]
            for first, second in ((worst.without, worst.without), (worst.without, worst.there))
        ]
        for _ in range(windows)
    ]
    without, there = np.array(arms).transpose(1, 0, 2, 3)
    crowd = neighbours.crowd(plan)
    crowded = [boundary.release(*crowd) for _ in range(_CROWDED_RELEASES)]
    return _Releases(
        long=np.array(long),
        without=without,
        there=there,
        crowded=np.array(crowded),
        again=np.stack(reruns.releases(plan, worst)),
    )


def _less(released: np.ndarray, total: tuple[int, ...]) -> np.ndarray:
    """What was released, less the exact sum; in float64, where nothing can wrap around."""
    return released.astype(np.float64) - np.array(total, dtype=np.float64)


class _Attack:
    """The worst unit's presence, told from what is released.

    Three attacks, whose errors add up. The first compares single numbers with thresholds: noise
    alone against the same noise with the unit's shift, which is what the code releases if its noise
    does not depend on who is there. The second needs no such thing and remembers: it sees real
    releases in pairs, the unit taking part in the second alone, and finds what numbers have in
    common. The third knows every seed and runs the code again.
    """

    def __init__(
        self,
        plan: PrivacyPlan,
        worst: Worst,
        releases: _Releases,
        taken: np.ndarray,
        *,
        shifted_arm: bool,
    ) -> None:
        self._plan = plan
        self._taken = int(taken.sum()), taken.size
        self._line = _project(releases.long, worst.shift) if shifted_arm else None
        self._again = releases.again
        seen = worst.most_moved[:_SEEN]
        arms = (
            arm[:, :, seen].reshape(len(arm), -1) / plan.noise_scale
            for arm in (releases.without, releases.there)
        )
        self._arms = attacks.linear_scores(*arms)
        self._relative_shift = worst.ratio * plan.sensitivity / plan.noise_scale

    def epsilon(self, error: float) -> float:
        """The lower bound for the whole plan that is wrong with at most this probability."""
        plan = self._plan
        # The output of rarer sampling is that of the actual one, now and then replaced by a
        # release with nobody there: post-processing, so that a lower bound on q will do.
        rate = exact.at_least(*self._taken, _RATE * error)
        again = attacks.sampled(attacks.rerun_points(*self._again, error=_RERUN * error), rate)
        found = [plan_epsilon(again, steps=plan.steps, delta=plan.delta)]
        if self._line is not None:
            points = attacks.threshold_points(
                *self._line,
                probability=rate,
                replace=plan.adjacency == "replace-one",
                error=_THRESHOLD * error,
            )
            found.append(plan_epsilon(points, steps=plan.steps, delta=plan.delta))
        if plan.steps > 1:
            # A unit that takes part may still add nothing, so the first of two steps can be quiet.
            windows = attacks.sampled(self._memory(_MEMORY * error), rate)
            found.append(plan_epsilon(windows, steps=plan.steps // 2, delta=plan.delta))
        return max(found)

    def finding(self) -> Finding:
        """Whether memory tells more than independent noise of the plan's scale allows."""
        points = self._memory(FALSE_ALARM)
        excess = [y - _most_powerful(x, self._relative_shift, self._plan) for x, y in points]
        x, y = points[int(np.argmax(excess))]
        evidence = (
            f"two consecutive releases tell a unit with power {y:.3g} or more at {x:.3g} or less"
        )
        return Finding("no memory between numbers", max(excess) <= 0, evidence)

    def _memory(self, error: float) -> list[Point]:
        return attacks.two_arm_points(*self._arms, error=error)


def _most_powerful(false_positives: float, shift: float, plan: PrivacyPlan) -> float:
    """The largest power of any test of one shifted release, `shift` in scales of the noise."""
    if plan.mechanism == "gaussian":
        return float(special.ndtr(special.ndtri(false_positives) + shift))
    factor = math.exp(min(shift, 700.0))
    return min(false_positives * factor, 1 - (1 - false_positives) / factor)


def _project(noise_alone: np.ndarray, shift: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """Noise along the direction of the shift, and the shift's length; float64.

    Numbers of a release are drawn alike and independently, so that wide releases can be cut into
    pieces of as many numbers as the shift has.
    """
    moved = np.array([float(value) for value in shift if value])
    draws = noise_alone.ravel()
    if len(moved) <= 1:
        return draws * np.sign(moved.sum() or 1.0), float(np.abs(moved).sum())
    direction = moved / np.linalg.norm(moved)
    pieces = draws[: len(draws) // len(moved) * len(moved)].reshape(-1, len(moved))
    return pieces @ direction, float(moved @ direction)
