"""Several releases of different kinds from the same data: phases of a run, or runs.

All parts are composed as privacy loss distributions, in one sum. Composition is adaptive: a part
may be chosen after the results of those before it, as long as its terms and the number of parts
do not depend on them (Dong, Roth and Su 2022, Theorem 3.2; Zhu, Dong and Wang 2022, Theorem 10).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hushtune.privacy.accounting import validation
from hushtune.privacy.accounting.composition import PrivacyLossCurve, Repeated
from hushtune.privacy.accounting.discretisation import Drawn, integer_epsilon
from hushtune.privacy.accounting.gaussian import SHIFT, gaussian_epsilon
from hushtune.privacy.accounting.laplace import PureLaplace
from hushtune.privacy.accounting.mechanisms import Terms, plan_epsilon
from hushtune.privacy.accounting.pairs import (
    GaussianAddOrRemove,
    GaussianReplace,
    LaplaceAddOrRemove,
    RandomisedResponse,
)

# Losses of ±0 would be one; this makes no difference to any ε that is printed.
_LEAST_LOSS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Steps that are alike; the arguments are those of `epsilon`.

    Attributes:
        mechanism: "gaussian" (K-vectors clipped in L2) or "laplace" (clipped in L1).
        noise_multiplier: σ/C or b/C: scale of the noise on the sum over the clipping norm.
        sampling_probability: q, with which each unit takes part in a step; 1 for all.
        steps: how many releases.
        directions: K, how many numbers a release has.
        noise_scale_integer: parameter of discrete noise in units of its grid; what it differs
            from continuous noise is then charged.

    Raises:
        ValueError: if a value is out of range; one line that names it and what is accepted.
    """

    mechanism: str
    noise_multiplier: float
    sampling_probability: float
    steps: int
    directions: int = 1
    noise_scale_integer: int | None = None

    def __post_init__(self) -> None:
        validation.check_release(
            mechanism=self.mechanism,
            sampling_probability=self.sampling_probability,
            steps=self.steps,
            directions=self.directions,
        )
        validation.check_noise_multiplier(self.noise_multiplier)
        validation.check_noise_scale_integer(self.noise_scale_integer)


@dataclass(frozen=True)
class Spent:
    """Any mechanism of which only its (ε, δ) is known, such as an evaluation done elsewhere.

    It is composed as the most revealing mechanism with that guarantee, which is randomised
    response that fails with probability δ (Kairouz, Oh and Viswanath 2015).

    Raises:
        ValueError: if a value is out of range.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        validation.expect(
            validation.is_real(self.epsilon) and self.epsilon >= 0,
            "epsilon",
            self.epsilon,
            "at least 0 and finite",
        )
        validation.expect(
            validation.is_real(self.delta) and 0 <= self.delta < 1,
            "delta",
            self.delta,
            "at least 0 and below 1",
        )


def composed_epsilon(
    parts: Sequence[Phase | Spent], *, delta: float, adjacency: str = "add-or-remove-one"
) -> float:
    """The ε of all parts together, on the same data: at most 1 % above the smallest, never below.

    Analytic if all parts are Gaussian noise on full batches; a sum of closed forms if `delta` is
    0; otherwise by privacy loss distributions. Laplace noise in several directions or under
    replace-one, whose worst case with δ above 0 is not proven, enters with the pure ε of each
    step.

    Args:
        parts: phases of one run, runs, or both, in any order; nothing at all costs 0.
        delta: δ of the guarantee; 0 for pure ε.
        adjacency: "add-or-remove-one" or "replace-one", for all parts. What is `Spent` has to be
            known for the same adjacency and unit.

    Returns:
        ε; infinity if the parts' own δ leave nothing of `delta`.

    Raises:
        ValueError: if a value is out of range, or `delta` is 0 and a part has no pure ε.
    """
    validation.check_guarantee(delta=delta, adjacency=adjacency)
    phases = _merged([part for part in parts if isinstance(part, Phase)])
    spent = [part for part in parts if isinstance(part, Spent)]
    if delta == 0:
        return _pure_epsilon(phases, spent, adjacency)
    if not spent and len(phases) == 1 and _is_fully_known(phases[0], adjacency):
        return _own_epsilon(phases[0], delta, adjacency)
    drawn = [
        Drawn(phase.mechanism, phase.steps * phase.directions, phase.noise_scale_integer)
        for phase in phases
        if phase.noise_scale_integer is not None and _is_fully_known(phase, adjacency)
    ]
    together = _together(phases, spent, delta, adjacency)
    basic = _basic_epsilon(phases, spent, delta, adjacency)
    return float(min(integer_epsilon(together, delta, drawn), basic))


def _merged(phases: Sequence[Phase]) -> list[Phase]:
    """Phases that are alike but for their number of steps, as one."""
    steps: defaultdict[Phase, int] = defaultdict(int)
    for phase in phases:
        steps[replace(phase, steps=1)] += int(phase.steps)
    return [replace(phase, steps=number) for phase, number in steps.items()]


def _is_fully_known(phase: Phase, adjacency: str) -> bool:
    """Whether the dominating pair of its steps is proven, rather than only their pure ε."""
    return phase.mechanism == "gaussian" or (
        phase.directions == 1 and adjacency == "add-or-remove-one"
    )


def _pure(phase: Phase, steps: int, adjacency: str) -> float:
    return PureLaplace(
        phase.noise_multiplier, phase.sampling_probability, steps, adjacency
    ).epsilon()


def _pure_epsilon(phases: Sequence[Phase], spent: Sequence[Spent], adjacency: str) -> float:
    for phase in phases:
        if phase.mechanism == "gaussian":
            validation.check_delta_of_gaussian(0.0)
    already = sum(part.delta for part in spent)
    validation.expect(already == 0, "delta", 0.0, f"above {already:g}, which is spent already")
    costs = [_pure(phase, phase.steps, adjacency) for phase in phases]
    return math.fsum([*costs, *(part.epsilon for part in spent)]) * (1 + 2.0**-50)


def _own_epsilon(phase: Phase, delta: float, adjacency: str) -> float:
    if not _is_fully_known(phase, adjacency):
        return _pure(phase, phase.steps, adjacency)
    terms = Terms(
        phase.mechanism,
        float(phase.sampling_probability),
        phase.steps,
        float(delta),
        adjacency,
        int(phase.directions),
    )
    scale = phase.noise_scale_integer
    return plan_epsilon(terms, float(phase.noise_multiplier), None if scale is None else int(scale))


def _basic_epsilon(
    phases: Sequence[Phase], spent: Sequence[Spent], delta: float, adjacency: str
) -> float:
    """Basic composition: the sum of what each part costs with its share of δ."""
    left = delta - math.fsum(part.delta for part in spent)
    uncertain = sum(_is_fully_known(phase, adjacency) for phase in phases)
    if left < 0 or (uncertain and left <= 0):
        return math.inf
    # A little less than an equal share, so that rounding cannot make the shares exceed δ.
    share = left / max(uncertain, 1) * (1 - 1e-12)
    costs = [_own_epsilon(phase, share, adjacency) for phase in phases]
    return math.fsum([*costs, *(part.epsilon for part in spent)]) * (1 + 2.0**-50)


def _together(
    phases: Sequence[Phase], spent: Sequence[Spent], delta: float, adjacency: str
) -> Callable[[float], float]:
    """ε of all parts as a function of δ, with continuous noise."""
    repeated = [
        Repeated(RandomisedResponse(max(part.epsilon, _LEAST_LOSS), part.delta), count)
        for part, count in Counter(spent).items()
    ]
    squared_distance = 0.0
    for phase in phases:
        noise, q = float(phase.noise_multiplier), float(phase.sampling_probability)
        if not _is_fully_known(phase, adjacency):
            pair = RandomisedResponse(_pure(phase, 1, adjacency), 0.0)
        elif phase.mechanism == "laplace":
            pair = LaplaceAddOrRemove(noise, q)
        elif q == 1:
            # Full batches add up to one Gaussian (Dong, Roth and Su 2022, Corollary 3.3).
            squared_distance += phase.steps * (SHIFT[adjacency] / noise) ** 2
            continue
        else:
            pair = (GaussianReplace if adjacency == "replace-one" else GaussianAddOrRemove)(
                noise, q
            )
        repeated.append(Repeated(pair, phase.steps))
    mu = math.sqrt(squared_distance)
    if not repeated:
        return lambda at_delta: gaussian_epsilon(mu, at_delta) if mu > 0 else 0.0
    if mu > 0:
        repeated.append(Repeated(GaussianAddOrRemove(1 / mu, 1.0), 1))
    return PrivacyLossCurve(repeated, delta).epsilon
