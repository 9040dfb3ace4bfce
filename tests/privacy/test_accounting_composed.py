"""Phases, runs and mechanisms known by their (ε, δ) cost what they cost together."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from hushtune.privacy.accounting import Phase, Spent, composed_epsilon, epsilon
from hushtune.privacy.accounting.gaussian import gaussian_epsilon

ADD_OR_REMOVE = "add-or-remove-one"
REPLACE = "replace-one"


def gaussian(noise_multiplier, sampling_probability, steps, **rest):
    return Phase(
        mechanism="gaussian",
        noise_multiplier=noise_multiplier,
        sampling_probability=sampling_probability,
        steps=steps,
        **rest,
    )


def laplace(noise_multiplier, sampling_probability, steps, **rest):
    return Phase(
        mechanism="laplace",
        noise_multiplier=noise_multiplier,
        sampling_probability=sampling_probability,
        steps=steps,
        **rest,
    )


def own_epsilon(phase, delta, adjacency=ADD_OR_REMOVE):
    return epsilon(
        mechanism=phase.mechanism,
        noise_multiplier=phase.noise_multiplier,
        sampling_probability=phase.sampling_probability,
        steps=phase.steps,
        directions=phase.directions,
        noise_scale_integer=phase.noise_scale_integer,
        delta=delta,
        adjacency=adjacency,
    )


# --- identities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "adjacency"),
    [
        (gaussian(1.0, 0.01, 500), ADD_OR_REMOVE),
        (gaussian(1.0, 0.01, 500, directions=16, noise_scale_integer=2**12), REPLACE),
        (gaussian(7.0, 1.0, 30), REPLACE),
        (laplace(3.0, 0.1, 40), ADD_OR_REMOVE),
    ],
)
def test_one_phase_costs_what_it_costs_and_may_be_cut_in_pieces(phase, adjacency):
    alone = own_epsilon(phase, 1e-5, adjacency)
    assert composed_epsilon([phase], delta=1e-5, adjacency=adjacency) == alone
    fields = {name: getattr(phase, name) for name in Phase.__dataclass_fields__}
    pieces = [Phase(**fields | {"steps": steps}) for steps in (1, phase.steps - 11, 10)]
    assert composed_epsilon(pieces, delta=1e-5, adjacency=adjacency) == alone


def test_nothing_costs_nothing():
    assert composed_epsilon([], delta=0.0) == 0.0
    assert composed_epsilon([], delta=1e-5) == 0.0


@pytest.mark.parametrize(("adjacency", "shift"), [(ADD_OR_REMOVE, 1.0), (REPLACE, 2.0)])
def test_full_batches_add_up_as_gaussians(adjacency, shift):
    parts = [gaussian(10.0, 1.0, 5), gaussian(20.0, 1.0, 3), gaussian(4.0, 1.0, 1)]
    mu = shift * math.sqrt(5 / 10**2 + 3 / 20**2 + 1 / 4**2)
    found = composed_epsilon(parts, delta=1e-6, adjacency=adjacency)
    assert found == pytest.approx(gaussian_epsilon(mu, 1e-6), rel=1e-12)


@pytest.mark.parametrize("adjacency", [ADD_OR_REMOVE, REPLACE])
def test_pure_parts_add_up(adjacency):
    parts = [laplace(10.0, 0.1, 50, directions=3), laplace(30.0, 1.0, 7), Spent(0.25, 0.0)]
    found = composed_epsilon(parts, delta=0.0, adjacency=adjacency)
    costs = [own_epsilon(part, 0.0, adjacency) for part in parts[:2]]
    assert found == pytest.approx(sum(costs) + 0.25, rel=1e-12)
    assert found >= math.fsum([*costs, 0.25])


@pytest.mark.parametrize(("one", "count"), [(0.1, 50), (1.0, 8), (0.01, 300)])
@pytest.mark.parametrize("failure", [0.0, 1e-8])
def test_copies_of_spent_meet_the_optimal_composition_theorem(one, count, failure):
    """Kairouz, Oh and Viswanath 2015, Theorem 3.3: δ is 1 − (1 − δ̃)^k·(1 − Σ …)."""
    delta = 1e-5
    found = composed_epsilon([Spent(one, failure)] * count, delta=delta)

    def exact_delta(at):
        log_terms = []
        for unlikely in range(count + 1):
            loss = (count - 2 * unlikely) * one
            if loss > at:
                log_binomial = -math.log(count + 1) - special.betaln(
                    unlikely + 1, count - unlikely + 1
                )
                log_mass = log_binomial - unlikely * one - count * math.log1p(math.exp(-one))
                log_terms.append(log_mass + math.log(-math.expm1(at - loss)))
        finite = math.exp(special.logsumexp(log_terms)) if log_terms else 0.0
        return 1 - (1 - failure) ** count * (1 - finite)

    assert exact_delta(found) <= delta * (1 + 1e-6)
    assert exact_delta(found * 0.99) > delta


@given(
    noise=st.floats(0.7, 5.0),
    probability=st.floats(0.001, 0.3),
    steps=st.integers(1, 500),
    other=st.floats(0.05, 2.0),
)
@settings(max_examples=10, deadline=None)
def test_together_is_between_the_largest_part_and_the_sum(noise, probability, steps, other):
    phase, spent = gaussian(noise, probability, steps), Spent(other, 1e-7)
    alone = own_epsilon(phase, 1e-5)
    together = composed_epsilon([phase, spent], delta=1e-5)
    assert together <= own_epsilon(phase, (1e-5 - 1e-7) * (1 - 1e-9)) + other + 1e-9
    assert together >= alone * 0.998
    assert together >= other * 0.998 - 1e-5 * (1 + math.exp(other))


def test_an_order_of_parts_does_not_matter():
    parts = [gaussian(1.0, 0.01, 100), laplace(5.0, 0.05, 20), Spent(0.3, 1e-7)]
    found = [composed_epsilon(order, delta=1e-5) for order in itertools.permutations(parts)]
    assert max(found) == pytest.approx(min(found), rel=1e-9)


def test_a_part_is_never_free():
    parts = [gaussian(1.0, 0.01, 100), gaussian(3.0, 0.1, 100), Spent(0.3, 1e-7)]
    found = [composed_epsilon(parts[:count], delta=1e-5) for count in (1, 2, 3)]
    assert found[0] * 1.01 < found[1]
    assert found[1] * 1.01 < found[2]


# --- laplace noise known by its pure ε -----------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "adjacency"),
    [(laplace(10.0, 0.1, 1000, directions=4), ADD_OR_REMOVE), (laplace(10.0, 0.1, 900), REPLACE)],
)
def test_pure_steps_cost_at_most_their_sum_and_at_least_a_known_pair(phase, adjacency):
    pure = own_epsilon(phase, 0.0, adjacency)
    found = composed_epsilon([phase], delta=1e-5, adjacency=adjacency)
    assert found < pure
    one_direction = laplace(phase.noise_multiplier, phase.sampling_probability, phase.steps)
    assert found >= own_epsilon(one_direction, 1e-5)
    # Exactly what randomised response with each step's ε costs.
    step = own_epsilon(laplace(10.0, 0.1, 1, directions=phase.directions), 0.0, adjacency)
    copies = composed_epsilon([Spent(step, 0.0)] * 30, delta=1e-5)
    few = laplace(10.0, 0.1, 30, directions=4)
    if adjacency == ADD_OR_REMOVE:
        assert composed_epsilon([few], delta=1e-5) == pytest.approx(copies, rel=2e-3)


# --- integer noise, failure ----------------------------------------------------------------------


def test_integer_noise_is_charged_over_all_parts():
    def cost(first, second):
        parts = [
            gaussian(1.0, 0.01, 100, directions=8, noise_scale_integer=first),
            laplace(5.0, 0.05, 20, noise_scale_integer=second),
        ]
        return composed_epsilon(parts, delta=1e-5)

    plain, negligible = cost(None, None), cost(2**32, 2**32)
    assert plain <= negligible <= plain * (1 + 1e-6)
    assert cost(2**9, 2**32) > plain * 1.0005
    assert cost(2**32, 2**6) > plain * 1.0005


def test_failure_that_was_spent_is_not_spent_again():
    assert composed_epsilon([Spent(1.0, 1e-5)], delta=1e-5) == pytest.approx(1.0)
    assert composed_epsilon([Spent(1.0, 1.1e-5)], delta=1e-5) == math.inf
    assert composed_epsilon([Spent(1.0, 1e-5), gaussian(1.0, 0.01, 5)], delta=1e-5) == math.inf
    assert composed_epsilon([Spent(0.0, 1e-6)] * 5, delta=1e-5) == 0.0


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mechanism": "cauchy"}, "Expected mechanism='cauchy' to be one of gaussian, laplace."),
        ({"noise_multiplier": 0.0}, "Expected noise_multiplier=0.0 to be above 0 and finite."),
        ({"sampling_probability": 1.5}, "sampling_probability=1.5"),
        ({"steps": 2.5}, "Expected steps=2.5 to be an integer of at least 1."),
        ({"directions": 0}, "directions=0"),
        ({"noise_scale_integer": -1}, "noise_scale_integer=-1"),
    ],
)
def test_refusals_of_a_phase(change, message):
    fields = {
        "mechanism": "gaussian",
        "noise_multiplier": 1.0,
        "sampling_probability": 0.01,
        "steps": 10,
    }
    with pytest.raises(ValueError, match=r"^Expected ") as error:
        Phase(**(fields | change))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-0.1, 0.0), "epsilon=-0.1"), ((math.inf, 0.0), "epsilon=inf"), ((1.0, 1.0), "delta=1.0")],
)
def test_refusals_of_spent(arguments, message):
    with pytest.raises(ValueError, match=message):
        Spent(*arguments)


@pytest.mark.parametrize(
    ("parts", "terms", "message"),
    [
        ([], {"delta": 1.0}, "Expected delta=1.0 to be at least 0 and below 1."),
        ([], {"delta": 0.1, "adjacency": "swap"}, "adjacency='swap'"),
        ([gaussian(1.0, 0.1, 1)], {"delta": 0.0}, "above 0 for gaussian noise"),
        ([Spent(1.0, 1e-6)], {"delta": 0.0}, "above 1e-06, which is spent already"),
    ],
)
def test_refusals_of_composition(parts, terms, message):
    with pytest.raises(ValueError, match=message):
        composed_epsilon(parts, **terms)
