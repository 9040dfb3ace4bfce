"""What runs is what the ledger accounts for: `PrivateSteps` is made from the ledger alone."""

from __future__ import annotations

import numpy as np
import pytest

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import BudgetSpent, Ledger, StepFailed
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.steps import PrivateSteps

UNITS = 40


def make_header(*, private: bool = True, **changes) -> dict:
    plan = PrivacyPlan.with_noise(
        **{
            "mechanism": "gaussian",
            "delta": 1e-5,
            "adjacency": "add-or-remove-one",
            "unit": "example",
            "combine": "mean",
            "population": UNITS,
            "sampling_probability": 0.5,
            "steps": 3,
            "directions": 2,
            "clip_norm": 1.0,
            "noise_multiplier": 1.0,
        }
        | changes
    )
    return {"private": private, "steps": plan.steps, "plan": plan.to_json()}


def ones(units: np.ndarray, _: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((len(units), 2)), units


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def test_sampling_clip_and_noise_are_those_of_the_header(path):
    every = {"random_bytes": lambda count: bytes(count), "add_noise": list}
    twice = np.repeat(np.arange(UNITS), 2)
    for combine, clip_norm in (("mean", 1.0), ("sum", 3.0)):
        header = make_header(private=False, combine=combine, clip_norm=clip_norm)
        with Ledger(path, header) as ledger:
            steps = PrivateSteps(ledger, units=UNITS, **every)
            _, released = steps.step(lambda units, _: (np.ones((2 * UNITS, 2)), twice))
            plan = PrivacyPlan.from_json(header["plan"])
            # The mean of a unit's two rows is (1, 1), their sum (2, 2), both longer than C = 1;
            # with C = 3 the sum is 2·√2 long and stays as it is.
            each = 1 / np.sqrt(2) if combine == "mean" else 2
            assert released[0] * plan.grid == pytest.approx(UNITS * each, rel=1e-6)
        path.unlink()


def test_a_step_is_charged_before_anybody_is_sampled_and_released_before_it_returns(path):
    seen = []

    def look(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        seen.append((charge, ledgers.read(path).charges, len(ledgers.read(path).releases)))
        return ones(units, charge)

    with Ledger(path, make_header()) as ledger:
        steps = PrivateSteps(ledger, units=UNITS)
        while steps.left:
            charge, released = steps.step(look)
            assert ledgers.read(path).releases[charge] == released
        with pytest.raises(BudgetSpent):
            steps.step(look)
    assert seen == [(0, 1, 0), (1, 2, 1), (2, 3, 2)]


def test_a_step_that_fails_is_spent_and_says_nothing_of_what_was_computed(path):
    def fail(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        raise RuntimeError(f"out of memory with {len(units)} units")

    with Ledger(path, make_header()) as ledger:
        steps = PrivateSteps(ledger, units=UNITS)
        with pytest.raises(
            StepFailed, match=r"^step 0 failed with RuntimeError; .* spent\.$"
        ) as it:
            steps.step(fail)
        assert it.value.__context__ is None
        assert it.value.__cause__ is None
        frames = []
        traceback = it.value.__traceback__
        while traceback is not None:
            frames.append(traceback.tb_frame)
            traceback = traceback.tb_next
        values = [value for frame in frames[1:] for value in frame.f_locals.values()]
        assert not any(isinstance(value, np.ndarray | Exception) for value in values)
        assert steps.step(ones)[0] == 1
    record = ledgers.read(path)
    assert (record.charges, sorted(record.releases)) == (2, [1])


class BatchOf213(RuntimeError):
    """An error whose very name is private."""


class PanicOf213(BaseException):
    """The same of compiled code, to which Python's `Exception` means nothing."""


@pytest.mark.parametrize("error", [BatchOf213, PanicOf213])
def test_of_an_error_only_the_kind_that_python_knows_is_named(path, error):
    def fail(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        raise error

    with (
        Ledger(path, make_header()) as ledger,
        pytest.raises(StepFailed, match=r"^step 0 failed with RuntimeError;"),
    ):
        PrivateSteps(ledger, units=UNITS).step(fail)


def test_an_interrupted_step_keeps_no_frame_of_what_was_computed(path):
    def interrupt(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        raise KeyboardInterrupt(len(units))

    with Ledger(path, make_header()) as ledger:
        with pytest.raises(KeyboardInterrupt) as it:
            PrivateSteps(ledger, units=UNITS).step(interrupt)
        assert it.value.args == ()
        assert it.value.__context__ is None
        assert "interrupt" not in [entry.name for entry in it.traceback]
        assert ledger.charges == 1


@pytest.mark.parametrize(
    ("private", "injected", "because"),
    [
        (True, {"add_noise": list}, "NOT PRIVATE"),
        (True, {"random_bytes": bytes}, "NOT PRIVATE"),
        (False, {}, "marked private"),
    ],
)
def test_the_mark_of_the_ledger_has_to_fit(private, injected, because, path):
    with (
        Ledger(path, make_header(private=private)) as ledger,
        pytest.raises(ValueError, match=because),
    ):
        PrivateSteps(ledger, units=UNITS, **injected)


def test_a_ledger_that_allows_more_steps_than_its_plan_is_not_begun(path):
    with pytest.raises(ledgers.LedgerError, match="steps"):
        Ledger(path, make_header() | {"steps": 5})
    assert not path.read_bytes()
