"""Faults planted on purpose, in one place: what each is, and what flags it.

Three kinds. *Mechanism* faults replace a part of the boundary or of the sampler; a finding of
`hushtune.privacy.audit` flags them. *Order* faults are in what surrounds the two, the ledger and
the order of a step; `order.check` flags them. *Pipeline* faults need a model; the tests that plant
them are named.

    python tests/faults/catalogue.py      the table, with the lower bounds on ε that are found
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass

import mechanism_faults as mechanism
import order
import pytest

from hushtune.privacy import PrivacyPlan
from hushtune.privacy.audit import MechanismAudit, audit_mechanism


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: short, unique.
        sentence: what the faulty code does.
        flagged_by: a finding of the audit, what `order.check` says, or a test.
        plant: puts the fault into the running code; absent where a test elsewhere does.
        noise: which of `PLANS` is audited with the fault.
    """

    name: str
    sentence: str
    flagged_by: str
    plant: Callable[[pytest.MonkeyPatch], None] | None = None
    noise: str = "gaussian"


SCALE = "scale of the noise with nobody there"

# fmt: off
MECHANISM = [
    Fault("noise too small", "The noise is 1.5 times too small.",
          SCALE, mechanism.scaled_noise(1 / 1.5)),
    Fault("noise a little too small", "The noise is 3 % too small.",
          SCALE, mechanism.scaled_noise(0.97)),
    Fault("no noise for nobody", "An empty sample is released without noise.",
          SCALE, mechanism.no_noise_for_nobody),
    Fault("noise of the batch's size", "Noise is scaled by the number of units that were sampled.",
          "scale of the noise with many units there", mechanism.noise_by_size),
    Fault("noise of another kind",
          "Laplace noise of the same standard deviation, accounted as Gaussian.",
          "shape of the noise with nobody there", mechanism.laplace_for_gaussian),
    Fault("tails cut off", "Noise beyond three standard deviations is drawn again.",
          "tails of the noise with nobody there", mechanism.cut_tails),
    Fault("floating-point noise", "Noise is drawn in single precision and rounded.",
          "last bits of the noise", mechanism.single_precision_noise),
    Fault("one noise for all directions", "All numbers of a release get the same noise.",
          "numbers of one release are independent", mechanism.one_noise_for_all_directions),
    Fault("noise used twice", "Every second release gets the noise of the one before.",
          "no memory between numbers", mechanism.noise_used_twice),
    Fault("noise from a short list", "Noise is taken from fifty vectors that were drawn once.",
          "noise does not repeat", mechanism.noise_from_a_list),
    Fault("noise from the direction seed",
          "The noise is a function of the public seed and the step.",
          "noise has no seed", mechanism.noise_from_seed),
    Fault("noise from the global generator", "The noise comes from a generator that scripts seed.",
          "noise has no seed", mechanism.noise_from_global_generator),
    Fault("clip missing", "A unit's vector is put on the grid as it is.",
          "sensitivity", mechanism.no_clip),
    Fault("clip on the mean", "The vector that is clipped is the mean of the batch.",
          "sensitivity", mechanism.clip_the_mean),
    Fault("K accounted as one", "Each of the K numbers is clipped on its own.",
          "sensitivity", mechanism.clip_each_direction),
    Fault("clip in another norm", "Clipped in L2 where Laplace noise is accounted, which needs L1.",
          "sensitivity", mechanism.clip_in_l2, noise="laplace"),
    Fault("clip by floating point alone",
          "Rounded to the nearest grid point, and the integers not verified.",
          "sensitivity", mechanism.round_to_nearest),
    Fault("NaN let through", "A loss that is not a number passes the clip.",
          "sensitivity", mechanism.nan_passes),
    Fault("rows counted as units", "Each row of a unit is clipped and added on its own.",
          "sensitivity", mechanism.rows_as_units),
    Fault("clip from the batch", "The clip is the median length in the batch.",
          "additivity", mechanism.clip_at_the_median),
    Fault("floating-point sum", "Clipped vectors are added in single precision.",
          "additivity", mechanism.single_precision_sum),
    Fault("outlier in the sum",
          "A running sum in floating point, clipped at the end, swallows small vectors.",
          "additivity", mechanism.clip_after_the_sum),
    Fault("actual batch size as divisor", "The sum is divided by the number of sampled units.",
          "additivity", mechanism.divided_by_size),
    Fault("order of units",
          "The first unit of a batch counts twice, as padding of a last micro-batch would.",
          "order", mechanism.first_unit_twice),
    Fault("shuffled batches", "Batches of a shuffled data set are accounted as Poisson samples.",
          "turns of units", mechanism.shuffled_epochs),
    Fault("batches of fixed size", "As many units as expected are drawn in each step.",
          "sizes of batches", mechanism.fixed_size),
    Fault("q doubled", "Units take part twice as often as accounted.",
          "sampling probability", mechanism.doubled),
    Fault("q rounded", "Coins have 8 bits, so that q = 0.05 becomes 13/256.",
          "sampling probability", mechanism.eight_bit_coins),
    Fault("one unit in every batch", "A unit, say the first of the file, always takes part.",
          "every unit alike", mechanism.first_unit_always),
    Fault("units sampled in blocks", "Neighbouring units share a coin.",
          "neighbouring units are independent", mechanism.blocks),
    Fault("units rest", "Who took part sits out the next step.",
          "consecutive steps are independent", mechanism.resting),
    Fault("sampler with a seed", "Samples come from the public seed.",
          "samples have no seed", mechanism.seeded_sampler),
]

ORDER = [
    Fault("budget lost on resume", "A new process starts with a new ledger.",
          order.UNCHARGED, order.start_at_zero),
    Fault("lost steps forgotten", "On resume, a charge without a release is taken back.",
          order.UNCHARGED, order.forget_lost_steps),
    Fault("charge after sampling", "The charge is recorded after units were sampled.",
          order.UNCHARGED, order.charge_last),
    Fault("lost step done again", "A charge without a release is used for a new sample.",
          order.UNCHARGED, order.redo_lost_steps),
    Fault("failed step tried again", "A step that fails is computed again on a new sample.",
          order.UNCHARGED, order.try_again),
    Fault("release applied before it is recorded",
          "A release leaves the step before it is on disk.",
          order.UNRECORDED, order.release_unrecorded),
    Fault("one step too many", "The ledger lets one more step happen than was planned.",
          order.TOO_MANY, order.one_step_more),
    Fault("error passed on", "The text of an error in mid-step leaves the step.",
          order.TOLD, order.pass_errors_on),
]

_SAMPLING = "tests/mistakes/test_mistake_02_sampling.py::"
_SENSITIVITY = "tests/mistakes/test_mistake_03_sensitivity.py::"
_ACCOUNTING = "tests/mistakes/test_mistake_04_accounting.py::"
_NUMBERS = "tests/mistakes/test_mistake_10_private_numbers.py::"
_COUPLING = "tests/mistakes/test_mistake_12_coupling.py::"

PIPELINE = [
    Fault("divisor from the batch", "Parameters are updated by the mean over the actual batch.",
          f"{_SENSITIVITY}test_the_check_flags_an_update_by_the_actual_size"),
    Fault("n from the labels", "q is computed from a number of units that is not the data's.",
          f"{_ACCOUNTING}test_the_check_flags_n_from_labels"),
    Fault("noise for fewer steps", "Noise is calibrated for one step less than is taken.",
          f"{_ACCOUNTING}test_the_check_flags_noise_for_fewer_steps"),
    Fault("empty batches skipped", "The sampler draws until somebody takes part.",
          f"{_SAMPLING}test_the_check_flags_drawing_until_somebody_takes_part"),
    Fault("parameters drift", "Parameters are moved and moved back in place.",
          "tests/mistakes/test_mistake_07_drift.py::test_the_check_flags_perturbing_in_place"),
    Fault("private numbers outside",
          "Sizes, means, norms, samples or noise are printed, logged or written.",
          f"{_NUMBERS}test_the_check_flags_each_leak_on_its_own"),
    Fault("shape of the sample", "Forward passes have as many rows as were sampled.",
          f"{_COUPLING}test_the_check_flags_batches_of_the_size_of_the_sample"),
    Fault("statistics of the batch", "An example's loss depends on who else was sampled.",
          f"{_COUPLING}test_the_check_flags_statistics_of_the_batch"),
    Fault("smaller batches after running out of memory", "The step is tried again in halves.",
          f"{_COUPLING}test_the_check_flags_a_retry_with_smaller_batches"),
]
# fmt: on

_TERMS = {
    "adjacency": "add-or-remove-one",
    "unit": "example",
    "combine": "mean",
    "population": 400,
    "expected_units": 20.0,
    "steps": 200,
    "directions": 4,
    "clip_norm": 1.5,
    "epsilon": 4.0,
}


@functools.cache
def plan(noise: str) -> PrivacyPlan:
    """A small plan with this kind of noise, (4, 10⁻⁵) or pure."""
    delta = 1e-5 if noise == "gaussian" else 0.0
    return PrivacyPlan.for_epsilon(mechanism=noise, delta=delta, **_TERMS)


@functools.cache
def audit(fault: Fault, coordinates: int) -> MechanismAudit:
    """The audit of the code with the fault in it."""
    assert fault.plant is not None
    with pytest.MonkeyPatch.context() as patch:
        fault.plant(patch)
        return audit_mechanism(plan(fault.noise), coordinates=coordinates)


def print_table() -> None:
    """Every fault, what flags it and, for mechanism faults, ε ≥ what is found of the claim."""
    print("| fault | what it does | flagged by | ε at least | ε claimed |\n|---|---|---|---|---|")
    for fault in MECHANISM:
        found = audit(fault, coordinates=100_000)
        failed = {finding.name for finding in found.findings if not finding.passed}
        assert fault.flagged_by in failed, (fault.name, failed)
        bounds = f"{found.epsilon_lower_bound:.2f} | {found.epsilon_claimed:.2f}"
        print(f"| {fault.name} | {fault.sentence} | {fault.flagged_by} | {bounds} |", flush=True)
    for fault in [*ORDER, *PIPELINE]:
        print(f"| {fault.name} | {fault.sentence} | {fault.flagged_by} | | |")


if __name__ == "__main__":
    sys.exit(print_table())
