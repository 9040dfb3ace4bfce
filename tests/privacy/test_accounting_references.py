"""ε against independent accountants.

`accounting_references.json` holds what dp-accounting says on grids so fine that the last
refinement hardly moved ε, and prv-accountant's bounds, made by `benchmarks/accounting.py`.
"""

import json
from pathlib import Path

import dp_accounting
import opendp.prelude as dp
import pytest

from hushtune.privacy.accounting import Phase, calibrate, composed_epsilon, epsilon

STORED = json.loads((Path(__file__).parent / "accounting_references.json").read_text())
REFERENCES = sorted(STORED["references"].items())
KEYS = [key for key, _ in REFERENCES]
RELATIONS = {
    "add-or-remove-one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}


def found_epsilon(key):
    adjacency, delta, phases = json.loads(key)
    parts = [
        Phase(mechanism=mechanism, noise_multiplier=noise, sampling_probability=q, steps=steps)
        for mechanism, noise, q, steps in phases
    ]
    if len(parts) > 1:
        return composed_epsilon(parts, delta=delta, adjacency=adjacency)
    return epsilon(
        mechanism=parts[0].mechanism,
        noise_multiplier=parts[0].noise_multiplier,
        sampling_probability=parts[0].sampling_probability,
        steps=parts[0].steps,
        delta=delta,
        adjacency=adjacency,
    )


def test_the_grid_of_plans_covers_the_extremes():
    plans = [(*json.loads(key), kept["epsilon"]) for key, kept in REFERENCES]
    phases = [phase for _, _, phases, _ in plans for phase in phases]
    assert len(plans) >= 60
    assert {mechanism for mechanism, *_ in phases} == {"gaussian", "laplace"}
    assert {adjacency for adjacency, *_ in plans} == set(RELATIONS)
    assert {0.3, 100.0} <= {noise for _, noise, *_ in phases}
    assert 1.0 in {q for _, _, q, _ in phases}
    assert {1, 10**6} <= {steps for *_, steps in phases}
    assert min(tight for *_, tight in plans) < 0.011
    assert max(tight for *_, tight in plans) > 29.0


@pytest.mark.parametrize(("key", "kept"), REFERENCES, ids=KEYS)
def test_epsilon_is_not_below_the_reference_and_at_most_one_percent_above(key, kept):
    found = found_epsilon(key)
    # The reference is above the tight value by about what its last refinement moved it.
    slack = max(kept["moved"], 1e-6)
    assert found >= kept["epsilon"] * (1 - slack) - 1e-9
    assert found <= kept["epsilon"] * 1.01 + 1e-9


@pytest.mark.parametrize(
    ("key", "bounds"),
    [(key, kept["prv"]) for key, kept in REFERENCES if kept["prv"]],
    ids=[key for key, kept in REFERENCES if kept["prv"]],
)
def test_epsilon_is_where_prv_accountant_says(key, bounds):
    lower, upper = bounds
    found = found_epsilon(key)
    assert lower <= found
    assert found <= upper * 1.003


@pytest.mark.slow
@pytest.mark.parametrize(("key", "kept"), REFERENCES[::6], ids=KEYS[::6])
def test_stored_references_can_be_computed_again(key, kept):
    adjacency, delta, phases = json.loads(key)
    accountant = dp_accounting.pld.PLDAccountant(RELATIONS[adjacency], kept["interval"])
    for mechanism, noise, q, steps in phases:
        kinds = {"gaussian": dp_accounting.GaussianDpEvent, "laplace": dp_accounting.LaplaceDpEvent}
        event = kinds[mechanism](noise)
        if q < 1:
            event = dp_accounting.PoissonSampledDpEvent(q, event)
        accountant.compose(event, steps)
    assert accountant.get_epsilon(delta) == pytest.approx(kept["epsilon"], rel=1e-6, abs=1e-9)


# --- OpenDP's own ρ ------------------------------------------------------------------------------


def opendp_rho(scale, sensitivity):
    """What OpenDP says that its discrete Gaussian on integer vectors costs."""
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    return dp.m.make_gaussian(*space, scale=float(scale)).map(float(sensitivity))


@pytest.mark.parametrize("steps", [1, 25, 10**6])
@pytest.mark.parametrize("ratio", [0.3, 2.0, 100.0])
def test_full_batches_agree_with_the_rho_of_the_noise_that_is_drawn(ratio, steps):
    sensitivity = 2**33
    rho = steps * opendp_rho(round(ratio * sensitivity), sensitivity)
    mu = steps**0.5 / ratio
    assert rho == pytest.approx(mu**2 / 2, rel=1e-9)
    # ρ-zCDP knows less than the Gaussian itself: its ε is larger (Bun and Steinke 2016, 1.3).
    delta = 1e-6
    looser = rho + 2 * (rho * 13.815510557964274) ** 0.5
    found = epsilon(
        mechanism="gaussian",
        noise_multiplier=ratio,
        sampling_probability=1.0,
        steps=steps,
        delta=delta,
        directions=4,
        noise_scale_integer=round(ratio * sensitivity),
    )
    assert found < looser


def test_calibrated_noise_has_the_rho_of_its_gaussian():
    noise = calibrate(
        mechanism="gaussian", epsilon=2.0, delta=1e-5, sampling_probability=1.0, steps=100
    )
    sensitivity = 2**33
    rho = 100 * opendp_rho(round(noise * sensitivity), sensitivity)
    assert rho == pytest.approx(100 / noise**2 / 2, rel=1e-9)
