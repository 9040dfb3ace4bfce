"""ε of a search: the best of a secret number of runs, of which nothing else is released.

Each run draws its configuration from a finite public set, independently and with replacement, so
that all runs are one mechanism; its Rényi curve is at most the pointwise maximum of those of the
configurations. To that curve `stopping` adds what choosing the best costs.

The accounting is Rényi's throughout, since that is what the theorems are about. ε of a run by any
other accountant says nothing of the search's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hushtune.privacy.accounting import stopping as stoppings
from hushtune.privacy.accounting.calibration import LARGEST_NOISE, SMALLEST_NOISE
from hushtune.privacy.accounting.composed import Phase
from hushtune.privacy.accounting.discretisation import Drawn, charge_delta, variation
from hushtune.privacy.accounting.gaussian import gaussian_guess
from hushtune.privacy.accounting.stopping import Stopping
from hushtune.privacy.accounting.validation import (
    check_delta_of_gaussian,
    check_epsilon,
    check_guarantee,
    expect,
)

ACCOUNTANT_OF_SEARCH = "hushtune Rényi divergences of a search"

#: What a step's moment may be short of where dp-accounting cuts off its series, at e^−30.
_CUT_OFF = 1e-12

#: Noise is found up to this factor.
_CLOSE = 1 + 2e-4


@dataclass(frozen=True)
class Training:
    """A configuration's training, but for its noise."""

    sampling_probability: float
    steps: int
    directions: int

    @classmethod
    def of(cls, phase: Phase) -> Training:
        """What a phase is but for its noise."""
        return cls(phase.sampling_probability, phase.steps, phase.directions)

    def with_noise(self, noise_multiplier: float, noise_scale_integer: int) -> Phase:
        """The steps with this noise."""
        return Phase(
            mechanism="gaussian",
            noise_multiplier=noise_multiplier,
            noise_scale_integer=noise_scale_integer,
            **dataclasses.asdict(self),
        )


@dataclass(frozen=True)
class PrivateSearch:
    """A search and everything that its ε follows from.

    Attributes:
        stopping: the distribution of the number of runs.
        candidates: for each configuration that runs may have, everything that a run releases: the
            training, and whatever its score costs. Gaussian noise, add-or-remove-one.

    Raises:
        ValueError: if there is no candidate, or one with other noise.
    """

    stopping: Stopping
    candidates: tuple[tuple[Phase, ...], ...]

    def __post_init__(self) -> None:
        expect(bool(self.candidates), "candidates", self.candidates, "at least one")
        for phase in self._phases:
            expect(phase.mechanism == "gaussian", "mechanism", phase.mechanism, "gaussian")

    def epsilon(self, delta: float) -> float:
        """The ε of the whole search; infinity if none was found.

        What integer noise costs is charged to δ: a run's outcome is within its total variation of
        the one that is accounted for, and the search's within E[K] times as much, since K does not
        depend on the data.

        Raises:
            ValueError: if δ is not between 0 and 1.
        """
        check_guarantee(delta=delta, adjacency="add-or-remove-one")
        check_delta_of_gaussian(delta)
        distance = self.stopping.mean * max(
            variation(
                [
                    Drawn(phase.mechanism, phase.steps * phase.directions, scale)
                    for phase in candidate
                    if (scale := phase.noise_scale_integer) is not None
                ]
            )
            for candidate in self.candidates
        )
        return charge_delta(self._continuous_epsilon, delta, distance)

    def training(self, steps: Training) -> Phase:
        """Such a training with the noise that it has here.

        Raises:
            ValueError: if no candidate has it.
        """
        for phase, *_ in self.candidates:
            if Training.of(phase) == steps:
                return phase
        raise ValueError(f"Expected {steps!r} to be the training of a candidate.")

    def covers(self, training: Phase) -> bool:
        """Whether a run with such a training is a candidate, or has more noise than one."""
        return any(
            Training.of(phase) == Training.of(training)
            and phase.mechanism == training.mechanism
            and phase.noise_multiplier <= training.noise_multiplier
            and _fineness(phase) <= _fineness(training)
            for phase, *_ in self.candidates
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the ledger's header."""
        return {
            "stopping": self.stopping.to_json(),
            "candidates": [
                [dataclasses.asdict(phase) for phase in candidate] for candidate in self.candidates
            ],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PrivateSearch:
        """The search that `to_json` wrote, validated again.

        Raises:
            TypeError, KeyError, ValueError: if it wrote no such values.
        """
        candidates = [tuple(Phase(**each) for each in parts) for parts in values["candidates"]]
        return cls(stoppings.from_json(values["stopping"]), tuple(candidates))

    @property
    def _phases(self) -> list[Phase]:
        return [phase for candidate in self.candidates for phase in candidate]

    @cached_property
    def _curve(self) -> np.ndarray:
        """The search's Rényi curve, with noise that is not rounded to integers."""
        each = [
            np.sum(
                [
                    _renyi(phase.noise_multiplier, phase.sampling_probability, phase.steps)
                    for phase in candidate
                ],
                axis=0,
            )
            for candidate in self.candidates
        ]
        return self.stopping.curve(_orders(), np.max(each, axis=0))

    def _continuous_epsilon(self, delta: float) -> float:
        """Canonne, Kamath and Steinke 2020, Proposition 12, at its best order."""
        orders = _orders()
        converted = np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
        # In this order what is not a number stays none.
        return max(float((self._curve + converted).min()), 0.0)


def calibrate_search(
    *,
    epsilon: float,
    delta: float,
    stopping: Stopping,
    trainings: Sequence[Training],
    noise_scale_integer: int,
    scoring: Phase | None = None,
) -> PrivateSearch:
    """The search of ε at most `epsilon` with little noise.

    The first training gets the least noise with which a search of it alone has that ε, each
    further one the least that leaves the ε of the search with all trainings so far within it.

    Args:
        epsilon: ε of the whole search.
        delta: its δ.
        stopping: the distribution of the number of runs.
        trainings: of the configurations, different ones.
        noise_scale_integer: the smallest integer scale that noise is drawn at.
        scoring: what the score of a run costs beside its training, if it is computed from the same
            data.

    Raises:
        ValueError: if a value is out of range, or no noise reaches that ε.
    """
    check_epsilon(epsilon)
    found: tuple[tuple[Phase, ...], ...] = ()
    also = () if scoring is None else (scoring,)
    for training in trainings:

        def candidates(
            noise: float, training: Training = training, before: tuple = found
        ) -> tuple[tuple[Phase, ...], ...]:
            return (*before, (training.with_noise(noise, noise_scale_integer), *also))

        def is_enough(noise: float, candidates: Callable = candidates) -> bool:
            return PrivateSearch(stopping, candidates(noise)).epsilon(delta) <= epsilon

        guess = gaussian_guess(
            epsilon, delta, training.sampling_probability, training.steps, "add-or-remove-one"
        )
        found = candidates(_least(is_enough, max(guess, SMALLEST_NOISE)))
    return PrivateSearch(stopping, found)


def _least(is_enough: Callable[[float], bool], guess: float) -> float:
    """The least noise that is enough, up to a small factor; from above.

    Raises:
        ValueError: if none is.
    """
    noise = guess
    while not is_enough(noise):
        noise *= 2
        accepted = f"at most {LARGEST_NOISE:g}, for an epsilon that a search can have"
        expect(noise <= LARGEST_NOISE, "noise_multiplier", noise, accepted)
    too_little = noise / 2
    while too_little > SMALLEST_NOISE and is_enough(too_little):
        noise, too_little = too_little, too_little / 2
    while noise > too_little * _CLOSE:
        middle = math.sqrt(too_little * noise)
        if is_enough(middle):
            noise = middle
        else:
            too_little = middle
    return noise


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Without dp-accounting's warnings of orders at which its series does not converge.

    They are infinite then, and no bound is taken at them.
    """
    warnings = logging.getLogger("absl")
    level = warnings.level
    warnings.setLevel(logging.ERROR)
    try:
        yield
    finally:
        warnings.setLevel(level)


def _fineness(phase: Phase) -> float:
    """The scale of integer noise; continuous noise is the finest."""
    return phase.noise_scale_integer or math.inf


@lru_cache(maxsize=1)
def _orders() -> np.ndarray:
    from dp_accounting.rdp import rdp_privacy_accountant

    return np.array(rdp_privacy_accountant.DEFAULT_RDP_ORDERS)


@lru_cache(maxsize=256)
def _renyi(noise_multiplier: float, sampling_probability: float, steps: int) -> np.ndarray:
    """The Rényi curve of Poisson-sampled Gaussian steps (Mironov, Talwar and Zhang 2019)."""
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    orders = _orders()
    step = dp_event.PoissonSampledDpEvent(
        sampling_probability, dp_event.GaussianDpEvent(noise_multiplier)
    )
    accountant = RdpAccountant(list(orders))
    with _without_warnings():
        accountant.compose(dp_event.SelfComposedDpEvent(step, steps))
    return accountant.rdp * (1 + 2.0**-40) + steps * _CUT_OFF / (orders - 1)
