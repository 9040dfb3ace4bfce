"""From a plan to its ε, and from an ε to the noise it takes. Usable alone.

A plan is T steps, each the noised sum of K numbers an example, clipped to norm C, over a Poisson
sample with probability q. `epsilon` answers what it costs, `calibrate` how much noise it needs,
`composed_epsilon` what several plans on the same data cost together, and `group_privacy` what that
means for several examples of one person.

Formal guarantee: every ε returned holds for the plan with noise drawn exactly, with fresh noise
and a fresh secret sample in each step. Where ε has no closed form it comes from a pessimistic
privacy loss distribution, whose rounding all goes one way: above.

    >>> noise = calibrate(mechanism="gaussian", epsilon=2.0, delta=1e-5,
    ...                   sampling_probability=0.008, steps=20_000)
    >>> round(noise, 2)
    2.37
"""

import math
from functools import lru_cache
from importlib.metadata import version

from hushtune.privacy.accounting import validation
from hushtune.privacy.accounting.calibration import LARGEST_NOISE, SMALLEST_NOISE, Search
from hushtune.privacy.accounting.composed import Phase, Spent, composed_epsilon
from hushtune.privacy.accounting.gaussian_dp import shown_beside
from hushtune.privacy.accounting.mechanisms import MECHANISMS, Terms, plan_epsilon
from hushtune.privacy.accounting.shares import SharedRounds, epsilon_of_shares, share_of_noise

__all__ = [
    "ACCOUNTANT",
    "ACCOUNTANT_VERSION",
    "Phase",
    "SharedRounds",
    "Spent",
    "calibrate",
    "composed_epsilon",
    "epsilon",
    "epsilon_of_shares",
    "group_privacy",
    "share_of_noise",
    "shown_beside",
]

ACCOUNTANT = "hushtune privacy loss distributions"
ACCOUNTANT_VERSION = version("hushtune")

# The smallest integer scale that noise is drawn at; what it costs is included by `calibrate`.
_SMALLEST_SCALE = 2**32


def epsilon(
    *,
    mechanism: str,
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    delta: float,
    adjacency: str = "add-or-remove-one",
    directions: int = 1,
    noise_scale_integer: int | None = None,
) -> float:
    """The ε of a plan, at most 1 % above the smallest and never below it.

    Gaussian noise: analytic for full batches (Balle and Wang 2018), otherwise a privacy loss
    distribution. Laplace noise with δ = 0: the closed form of pure ε; with δ > 0: a privacy loss
    distribution, for one direction and add-or-remove-one only, since the worst case of several
    directions under L1 clipping is not proven.

    Args:
        mechanism: "gaussian" (K-vectors clipped in L2) or "laplace" (clipped in L1).
        noise_multiplier: σ/C or b/C: scale of the noise on the sum over the clipping norm.
        sampling_probability: q, with which each unit takes part in a step; 1 for all.
        steps: T, how many releases.
        delta: δ of the guarantee; 0 for pure ε, with laplace noise.
        adjacency: "add-or-remove-one" or "replace-one".
        directions: K, how many numbers a release has.
        noise_scale_integer: parameter of the discrete noise in units of its grid; what discrete
            noise differs from continuous noise is then charged.

    Returns:
        ε; infinity if no finite one was found, which takes a δ beyond double precision.

    Raises:
        ValueError: if a value is out of range; one line that names it and what is accepted.
    """
    validation.check_plan(
        mechanism=mechanism,
        sampling_probability=sampling_probability,
        steps=steps,
        delta=delta,
        adjacency=adjacency,
        directions=directions,
    )
    validation.check_noise_multiplier(noise_multiplier)
    validation.check_noise_scale_integer(noise_scale_integer)
    terms = Terms(
        mechanism, float(sampling_probability), int(steps), float(delta), adjacency, int(directions)
    )
    scale = None if noise_scale_integer is None else int(noise_scale_integer)
    return plan_epsilon(terms, float(noise_multiplier), scale)


def calibrate(
    *,
    mechanism: str,
    epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    adjacency: str = "add-or-remove-one",
    directions: int = 1,
) -> float:
    """The least noise multiplier, within about 0.1 %, whose ε is at most `epsilon`.

    Room is left for discrete noise of integer scale 2^32 or more, so that the ε of the finished
    plan is at most `epsilon` too. A plan that would hold with hardly any noise, because δ covers
    being sampled at all, gets a noise multiplier of 0.01.

    Args:
        mechanism: "gaussian" or "laplace", as for `epsilon`.
        epsilon: the ε that the plan may cost, above 0.
        delta: δ of the guarantee; 0 for pure ε, with laplace noise.
        sampling_probability: q, with which each unit takes part in a step; 1 for all.
        steps: T, how many releases.
        adjacency: "add-or-remove-one" or "replace-one".
        directions: K, how many numbers a release has.

    Returns:
        σ/C or b/C: multiply by the clipping norm for the scale of the noise on the sum.

    Raises:
        ValueError: if a value is out of range; one line that names it and what is accepted.
    """
    validation.check_plan(
        mechanism=mechanism,
        sampling_probability=sampling_probability,
        steps=steps,
        delta=delta,
        adjacency=adjacency,
        directions=directions,
    )
    validation.check_epsilon(epsilon)
    terms = Terms(
        mechanism, float(sampling_probability), int(steps), float(delta), adjacency, int(directions)
    )
    return _calibrate(terms, float(epsilon))


def group_privacy(epsilon: float, delta: float, size: int) -> tuple[float, float]:
    """What (ε, δ) for one unit guarantees for `size` units together.

    (mε, δ·(e^{mε} − 1)/(e^ε − 1)), by going from one data set to the other one unit at a time
    (Vadhan 2017, Lemma 2.2, with the sum not bounded further).

    Args:
        epsilon: ε for one unit, at least 0.
        delta: δ for one unit.
        size: m, how many units.

    Returns:
        ε and δ for the group; a δ of 1 guarantees nothing.

    Raises:
        ValueError: if a value is out of range.
    """
    validation.expect(
        validation.is_real(epsilon) and epsilon >= 0, "epsilon", epsilon, "at least 0 and finite"
    )
    validation.expect(
        validation.is_real(delta) and 0 <= delta < 1, "delta", delta, "at least 0 and below 1"
    )
    validation.expect(
        validation.is_positive_integer(size), "size", size, "an integer of at least 1"
    )
    if size == 1 or delta == 0:
        return size * epsilon, delta
    if size * epsilon > 700:
        return size * epsilon, 1.0
    factor = math.expm1(size * epsilon) / math.expm1(epsilon) if epsilon > 0 else size
    return size * epsilon, min(1.0, delta * factor)


@lru_cache(maxsize=256)
def _calibrate(terms: Terms, target: float) -> float:
    mechanism = MECHANISMS[terms.mechanism]

    def rough_cost(noise_multiplier: float) -> float:
        return mechanism.curve(terms, noise_multiplier).rough_epsilon(terms.delta)

    def cost(noise_multiplier: float) -> float:
        curve = mechanism.curve(terms, noise_multiplier)
        continuous = curve.epsilon(terms.delta)
        return max(continuous, mechanism.integer_epsilon(terms, curve.epsilon, _SMALLEST_SCALE))

    guess = mechanism.guess(terms, target)
    if not mechanism.is_closed_form(terms):
        search = Search(target, guess)
        search.run(rough_cost)
        return search.run(cost)
    noise = max(guess, SMALLEST_NOISE)
    step = 2.0**-50
    while cost(noise) > target and noise < LARGEST_NOISE:
        noise *= 1 + step
        step *= 2
    return noise
