"""A registry adds up what was spent on a data set, and no run takes a step twice."""

from __future__ import annotations

import math
import multiprocessing
import shutil

import numpy as np
import pytest

from hushtune.privacy import chain
from hushtune.privacy import ledger as ledgers
from hushtune.privacy import registry as registries
from hushtune.privacy.accounting import composed_epsilon, group_privacy
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.registry import RegisteredRun, RegistryError
from hushtune.privacy.steps import PrivateSteps
from hushtune.privacy.totals import totals

NUMBER = {"epsilon": 0.5, "delta": 0.0, "unit": "example", "adjacency": "add-or-remove-one"}


def make_plan(**changes) -> PrivacyPlan:
    return PrivacyPlan.with_noise(
        **{
            "mechanism": "gaussian",
            "delta": 1e-5,
            "adjacency": "add-or-remove-one",
            "unit": "example",
            "combine": "mean",
            "population": 1000,
            "sampling_probability": 0.125,
            "steps": 100,
            "directions": 4,
            "clip_norm": 1.0,
            "noise_multiplier": 2.0,
        }
        | changes
    )


def make_header(run: str, plan: PrivacyPlan) -> dict:
    return {"private": True, "run": run, "steps": plan.steps, "plan": plan.to_json()}


def run_in(folder, registry, *, run: str, charges: int, data: str = "tickets", **changes) -> None:
    """So many steps of a run, as `PrivateSteps` takes them."""
    plan = make_plan(**changes)
    with Ledger(folder / "ledger.jsonl", make_header(run, plan)) as ledger:
        registered = RegisteredRun(registry, data=data, where=str(folder), ledger=ledger)
        steps = PrivateSteps(ledger, units=10, registered=registered)
        for _ in range(charges):
            steps.step(lambda units, _: (np.zeros((len(units), plan.directions)), units))


def spend(registry, **changes) -> None:
    values = {"data": "tickets", "what": "evaluation", "note": "dashboard"} | NUMBER
    registries.enter_spending(registry, **values | changes)


@pytest.fixture
def registry(tmp_path):
    path = tmp_path / "secure" / "registry.jsonl"
    registries.create(path)
    return path


def test_runs_on_one_data_set_are_added_up(registry, tmp_path):
    run_in(tmp_path / "a", registry, run="a", charges=1)
    run_in(tmp_path / "b", registry, run="b", charges=0, noise_multiplier=3.0, steps=50)
    run_in(tmp_path / "c", registry, run="c", charges=1, data="letters")
    one, two = make_plan(), make_plan(noise_multiplier=3.0, steps=50)
    tickets, letters = totals(registries.read(registry).entries)
    assert (tickets.data, tickets.entries, tickets.delta) == ("tickets", 2, 2e-5)
    assert tickets.epsilon == pytest.approx(one.epsilon() + two.epsilon(), rel=1e-6)
    phases = composed_epsilon([one.phase, two.phase], delta=2e-5)
    assert tickets.epsilon_if_fixed_beforehand == phases
    assert max(one.epsilon(), two.epsilon()) < phases < tickets.epsilon
    assert letters.epsilon == pytest.approx(one.epsilon(), rel=1e-6)


def test_a_run_that_goes_on_is_counted_once_and_another_seed_again(registry, tmp_path):
    run_in(tmp_path / "a", registry, run="a", charges=2)
    run_in(tmp_path / "a", registry, run="a", charges=3)
    assert len(registries.read(registry).entries) == 1
    run_in(tmp_path / "b", registry, run="b", charges=1)
    assert len(registries.read(registry).entries) == 2


def charged(folder) -> int:
    return ledgers.read(folder / "ledger.jsonl").charges


def test_what_was_reserved_when_a_process_died_is_charged_when_the_run_goes_on(registry, tmp_path):
    """A block of 500 steps is five."""
    run_in(tmp_path / "a", registry, run="a", charges=7, steps=500)
    assert charged(tmp_path / "a") == 7
    run_in(tmp_path / "a", registry, run="a", charges=1, steps=500)
    assert charged(tmp_path / "a") == 11
    record = ledgers.read(tmp_path / "a" / "ledger.jsonl")
    assert sorted(record.releases) == [0, 1, 2, 3, 4, 5, 6, 10]


def test_a_run_folder_that_was_set_back_is_refused(registry, tmp_path):
    folder, copy = tmp_path / "a", tmp_path / "copy"
    run_in(folder, registry, run="a", charges=2)
    shutil.copytree(folder, copy)
    run_in(folder, registry, run="a", charges=4)
    with pytest.raises(RegistryError, match=r"knows of 6 steps of this run, its ledger .* of 2"):
        run_in(copy, registry, run="a", charges=1)
    run_in(folder, registry, run="a", charges=1)


def test_two_copies_together_take_no_more_steps_than_are_planned(registry, tmp_path):
    """Whoever comes second finds the step taken, at whatever moment the copy was made."""
    for folder in ("a", "copy"):
        run_in(tmp_path / folder, registry, run="a", charges=0, steps=8)
    with (
        Ledger(tmp_path / "a" / "ledger.jsonl", make_header("a", make_plan(steps=8))) as one,
        Ledger(tmp_path / "copy" / "ledger.jsonl", make_header("a", make_plan(steps=8))) as two,
    ):
        both = [
            RegisteredRun(registry, data="tickets", where="", ledger=ledger)
            for ledger in (one, two)
        ]
        taken = 0
        for ledger, registered in [(one, both[0]), (two, both[1])] * 8:
            try:
                registered.cover(ledger.charges)
            except RegistryError:
                continue
            ledger.charge()
            taken += 1
        assert taken == 8
        with pytest.raises(RegistryError, match="a copy of this run has taken step 0"):
            both[1].cover(0)


def test_a_run_that_began_elsewhere_is_refused(registry, tmp_path):
    run_in(tmp_path / "a", registry, run="a", charges=3)
    other = tmp_path / "other.jsonl"
    registries.create(other)
    with pytest.raises(RegistryError, match="registered from its first step on"):
        run_in(tmp_path / "a", other, run="a", charges=1)


def test_a_mistyped_path_does_not_begin_to_count_from_zero(registry, tmp_path):
    with pytest.raises(RegistryError, match=r"no such registry; .* --new"):
        run_in(tmp_path / "a", tmp_path / "registry.josnl", run="a", charges=1)
    assert not (tmp_path / "registry.josnl").exists()
    with pytest.raises(FileExistsError):
        registries.create(registry)


def test_a_known_run_has_to_keep_its_plan_and_its_data_set(registry, tmp_path):
    run_in(tmp_path / "a", registry, run="a", charges=0)
    with pytest.raises(RegistryError, match="another plan or data set"):
        run_in(tmp_path / "b", registry, run="a", charges=0, noise_multiplier=1.0)
    with pytest.raises(RegistryError, match="another plan or data set"):
        run_in(tmp_path / "a", registry, run="a", charges=0, data="letters")


def test_what_was_released_elsewhere_is_added(registry, tmp_path):
    run_in(tmp_path / "a", registry, run="a", charges=0)
    (alone,) = totals(registries.read(registry).entries)
    spend(registry)
    (both,) = totals(registries.read(registry).entries)
    assert both.epsilon == pytest.approx(alone.epsilon + 0.5)
    assert alone.epsilon < both.epsilon_if_fixed_beforehand <= both.epsilon


def test_a_guarantee_for_users_holds_for_their_rows_but_not_the_other_way_round(registry):
    spend(registry, unit="user_id")
    (users,) = totals(registries.read(registry).entries)
    assert users.epsilon == pytest.approx(0.5)
    spend(registry, what="survey", note="")
    users, rows = totals(registries.read(registry).entries)
    assert (users.epsilon, users.epsilon_if_fixed_beforehand) == (None, None)
    assert users.because == "survey protects one example, of which a user_id may have many"
    # One row less of a user is the user removed and added again: a group of two.
    assert rows.epsilon == pytest.approx(0.5 + group_privacy(0.5, 0.0, 2)[0])


def test_a_row_that_is_replaced_may_move_to_another_user(registry):
    spend(registry, unit="user_id")
    spend(registry, what="survey", note="", adjacency="replace-one")
    _, rows = totals(registries.read(registry).entries)
    assert (rows.unit, rows.adjacency, rows.epsilon) == ("example", "replace-one", None)
    assert "a row may change its user_id" in rows.because


def test_replacing_is_removing_and_adding_but_not_the_other_way_round(registry):
    spend(registry)
    spend(registry, adjacency="replace-one")
    added, replaced = totals(registries.read(registry).entries)
    assert (added.adjacency, added.epsilon) == ("add-or-remove-one", None)
    assert added.because == "evaluation (dashboard) is replace-one"
    assert replaced.epsilon == pytest.approx(2 * 0.5 + 0.5)


def test_a_run_without_privacy_leaves_no_total(registry, tmp_path):
    spend(registry)
    plan = make_plan()
    header = make_header("a", plan) | {"private": False}
    with Ledger(tmp_path / "ledger.jsonl", header) as ledger:
        RegisteredRun(registry, data="tickets", where="runs/a", ledger=ledger)
    (total,) = totals(registries.read(registry).entries)
    assert total.epsilon is None
    assert total.because == "training without privacy (runs/a) hides nothing"


def test_each_changed_removed_or_moved_line_is_reported(registry, tmp_path):
    run_in(tmp_path / "a", registry, run="a", charges=1)
    spend(registry)
    lines = registry.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4  # what it is, a run, a reservation, a spending
    for number, line in enumerate(lines, start=1):
        for byte in range(len(line)):
            changed = bytearray(line)
            changed[byte] ^= 1
            registry.write_bytes(b"".join([*lines[: number - 1], changed, *lines[number:]]))
            with pytest.raises(RegistryError, match=f"line {number}"):
                registries.read(registry)
        if number < len(lines):
            registry.write_bytes(b"".join(lines[: number - 1] + lines[number:]))
            with pytest.raises(RegistryError, match=f"line {number}"):
                registries.read(registry)


def test_a_torn_entry_is_cut_off_since_its_run_had_not_begun(registry):
    spend(registry)
    whole = registry.read_bytes()
    registry.write_bytes(whole + b'{"training":{"da')
    assert len(registries.read(registry).entries) == 1
    spend(registry, what="survey")
    assert [entry.what for entry in registries.read(registry).entries] == ["evaluation", "survey"]


def test_entries_of_several_processes_do_not_get_lost(registry):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_spend_five_times, args=(registry,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(registries.read(registry).entries) == 15


def _spend_five_times(registry) -> None:
    for _ in range(5):
        spend(registry)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epsilon", -1.0), ("epsilon", math.inf), ("delta", 1.0), ("unit", ""), ("adjacency", "near")],
)
def test_a_spending_that_makes_no_sense_is_refused(name, value, registry):
    with pytest.raises(ValueError, match=f"Expected {name}"):
        spend(registry, **{name: value})
    assert not registries.read(registry).entries


def test_a_line_of_another_kind_is_refused(registry):
    first = registry.read_bytes()
    head = registries.read(registry).head
    for content in (
        {"charge": 0},
        {"registry": {"format": 1}},
        {"spending": {"epsilon": 1}},
        {"training": {"plan": {}}},
    ):
        line, _ = chain.make_line(head, content)
        registry.write_bytes(first + line)
        with pytest.raises(RegistryError, match="line 2: not what may stand here"):
            registries.read(registry)
