"""Every evaluation on private data is charged before anything is computed, from a fixed budget."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from finished import Command, Runs, rows_of, write

from hushtune.evaluating import private
from hushtune.privacy import chain, evaluations
from hushtune.privacy import ledger as ledgers
from hushtune.privacy import registry as registries


@pytest.fixture
def runs(tiny, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Runs:
    return Runs(tiny, tmp_path_factory.getbasetemp() / "evaluated", tmp_path)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def run(runs: Runs) -> Path:
    return runs.copy()


def paid(run: Path, data: object, epsilon: float, *flags: object) -> list[object]:
    return ["eval", run, "--data", data, "--private", "--epsilon", epsilon, *flags]


def ledger_files(run: Path) -> list[Path]:
    return sorted((run / "evaluation").glob("*"))


def gaussian_epsilon(noise_multipliers: list[float], delta: float, shift: float) -> float:
    """ε of Gaussian releases together, by Balle and Wang (2018), Theorem 8; without the package."""
    mu = shift * math.sqrt(sum(1 / noise**2 for noise in noise_multipliers))
    normal = scipy.stats.norm.cdf

    def excess(epsilon: float) -> float:
        near, far = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
        return normal(near) - math.exp(epsilon) * normal(far) - delta

    return float(scipy.optimize.brentq(excess, 0, 100))


@pytest.mark.parametrize(("adjacency", "shift"), [("add-or-remove-one", 1), ("replace-one", 2)])
def test_what_calls_cost_follows_from_their_ledgers_alone(adjacency, shift, runs, command, reviews):
    run = runs.copy("classification", "--privacy.epsilon", "4", "--privacy.adjacency", adjacency)
    for epsilon in (0.5, 0.25, 1.0):
        found = command.json(*paid(run, reviews, epsilon, "--budget", 3))
        assert found["epsilon"] == pytest.approx(epsilon, rel=1e-3)
        assert found["epsilon"] <= epsilon
    noise = []
    for path in ledger_files(run):
        plan = json.loads(path.read_text().split("\n")[0])["header"]["plan"]
        assert (plan["sampling_probability"], plan["steps"], plan["directions"]) == (1, 1, 2)
        noise.append(plan["noise_scale"] / plan["sensitivity"])
    told = command.json("privacy", run)
    spent = told["evaluation"]
    together = gaussian_epsilon(noise, 1e-5, shift)
    assert spent["epsilon_of_charged_calls"] == pytest.approx(together, rel=1e-5)
    assert [call["epsilon"] for call in spent["calls"]] == pytest.approx(
        [gaussian_epsilon([each], 1e-5, shift) for each in noise], rel=1e-5
    )
    assert {name: spent[name] for name in ("epsilon", "delta", "unit", "adjacency")} == {
        "epsilon": 3.0,
        "delta": 1e-5,
        "unit": "example",
        "adjacency": adjacency,
    }
    (total,) = told["total"]["totals"]
    assert told["total"]["assuming"] == "the same units are in both"
    assert total["epsilon"] == pytest.approx(told["epsilon"] + 3)
    assert total["delta"] == pytest.approx(told["delta"] + 1e-5)
    assert together < total["epsilon_if_fixed_beforehand"] <= total["epsilon"]
    text, _ = command("privacy", run)
    assert "if the same units are in both" in " ".join(text.split())
    assert "ε = 3, δ = 1e-05" in " ".join(text.split())


def test_a_call_that_would_exceed_the_budget_is_refused_and_not_charged(run, command, reviews):
    command.json(*paid(run, reviews, 0.5, "--budget", 0.8))
    command.json(*paid(run, reviews, 0.5))
    before = [path.read_bytes() for path in ledger_files(run)]
    line = command.refused(*paid(run, reviews, 0.5))
    assert line.startswith("hushtune eval: ")
    assert "of the budget of 0.8 is spent" in line
    assert "Nothing was charged" in line
    assert "fixed budget = 0.8" in command.refused(*paid(run, reviews, 0.1, "--budget", 5))
    assert "fixed unit = example" in command.refused(*paid(run, reviews, 0.1, "--unit", "user_id"))
    assert "fixed delta = 1e-05" in command.refused(*paid(run, reviews, 0.1, "--delta", 1e-6))
    assert [path.read_bytes() for path in ledger_files(run)] == before
    command.json(*paid(run, reviews, 0.1))


def test_without_a_budget_one_call_is_all(run, command, reviews):
    command.json(*paid(run, reviews, 0.5))
    assert "of the budget of 0.5 is spent" in command.refused(*paid(run, reviews, 0.01))


def test_the_charge_is_on_disk_before_anything_is_computed(run, command, reviews, monkeypatch):
    seen, scored = [], private.score_rows

    def look(*arguments: Any, **options: Any) -> Any:
        record = ledgers.read(ledger_files(run)[-1])
        seen.append((record.charges, len(record.releases)))
        return scored(*arguments, **options)

    monkeypatch.setattr(private, "score_rows", look)
    command.json(*paid(run, reviews, 0.5))
    assert seen == [(1, 0)]


_KILLED = """
import os, signal, sys
from hushtune.evaluating import private
from hushtune.cli import main
private.score_rows = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def test_a_killed_call_is_charged_and_releases_nothing(run, command, reviews):
    arguments = [str(each) for each in paid(run, reviews, 0.5, "--budget", 0.6)]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told = command.json("privacy", run)["evaluation"]
    assert (told["calls_charged"], told["calls_released"]) == (1, 0)
    assert told["epsilon_of_charged_calls"] == pytest.approx(0.5, rel=1e-3)
    assert "accuracy" not in told["calls"][0]
    assert "of the budget of 0.6 is spent" in command.refused(*paid(run, reviews, 0.5))
    assert command.json(*paid(run, reviews, 0.1))["call"] == 2


def test_a_charge_that_was_cut_short_counts_and_a_header_does_not(run, command, reviews):
    command.json(*paid(run, reviews, 0.5, "--budget", 0.6))
    (path,) = ledger_files(run)
    header, charge, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + charge[:7])
    assert "is spent" in command.refused(*paid(run, reviews, 0.5))
    path.write_bytes(header)
    # Nor does a call that nothing was charged for fix the budget.
    command.json(*paid(run, reviews, 0.7))
    second = ledger_files(run)[1]
    second.write_bytes(second.read_bytes()[:50])
    assert "evaluation" not in command.json("privacy", run)
    assert command.json(*paid(run, reviews, 0.2))["call"] == 2


def test_a_call_that_fails_is_spent_and_says_nothing_of_what_was_computed(
    run, command, reviews, monkeypatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("accuracy 0.73519264 of 613 rows")

    monkeypatch.setattr(private, "score_rows", fail)
    line = command.refused(*paid(run, reviews, 0.5))
    assert line == "hushtune eval: step 0 failed with RuntimeError; its charge is spent."
    assert evaluations.read(run).spent == pytest.approx(0.5, rel=1e-3)


def test_one_process_at_a_time(run, command, reviews):
    with evaluations.opened(run):
        assert "another process is evaluating" in command.refused(*paid(run, reviews, 0.5))
    command.json(*paid(run, reviews, 0.5))


def test_bad_rows_are_named_and_nothing_is_charged(run, command, reviews, tmp_path):
    rows = rows_of(reviews)
    rows[16]["label"] = "so so"
    data = write(tmp_path / "bad.jsonl", rows)
    line = command.refused(*paid(run, data, 0.5))
    assert f"{data}, row 17: unknown label 'so so'" in line
    assert "row 1: no column 'person'" in command.refused(
        *paid(run, reviews, 0.5, "--unit", "person")
    )
    assert not ledger_files(run)


@pytest.mark.parametrize(
    ("flags", "because"),
    [
        (["--private"], "--private needs --epsilon"),
        (["--private", "--public", "--epsilon", 1], "exclude each other"),
        (["--epsilon", 1], "--epsilon goes with --private"),
        (["--public", "--budget", 1], "--budget goes with --private"),
        (["--disjoint"], "--disjoint goes with --private"),
        (["--private", "--epsilon", 0], "epsilon=0.0 to be above 0"),
        (["--private", "--epsilon", "nan"], "epsilon=nan to be above 0"),
        (["--private", "--epsilon", 1, "--budget", "nan"], "budget=nan to be above 0"),
        (["--private", "--epsilon", 1, "--budget", 0.5], "budget of 0.5"),
        (["--private", "--epsilon", 1, "--delta", 0], "delta"),
        (["--private", "--epsilon", 1, "--delta", 0.02], "delta=0.02 to be below"),
        (["--private", "--epsilon", 1, "--population", 0], "population=0 to be at least 1"),
        (["--private", "--epsilon", 1, "--limit", 0], "limit=0.0 to be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(flags, because, run, command, reviews):
    assert because in command.refused("eval", run, "--data", reviews, *flags)
    assert not ledger_files(run)


def test_of_other_people_the_larger_of_both_guarantees_holds(run, command, reviews):
    command.json(*paid(run, reviews, 0.5, "--budget", 5, "--disjoint"))
    told = command.json("privacy", run)
    (total,) = told["total"]["totals"]
    assert told["total"]["assuming"] == "no unit is in both"
    assert (total["epsilon"], total["delta"]) == (5.0, 1e-5)
    # One call without the statement, and all is added up.
    command.json(*paid(run, reviews, 0.5))
    told = command.json("privacy", run)
    assert told["total"]["totals"][0]["epsilon"] == pytest.approx(told["epsilon"] + 5)


def test_of_users_nothing_follows_from_a_training_that_protects_rows(run, command, reviews):
    command.json(*paid(run, reviews, 0.5, "--unit", "user_id"))
    by_unit = {each["unit"]: each for each in command.json("privacy", run)["total"]["totals"]}
    assert by_unit["user_id"]["epsilon"] is None
    assert "of which a user_id may have many" in by_unit["user_id"]["because"]
    assert by_unit["example"]["epsilon"] > 4


def test_a_run_without_privacy_may_be_evaluated_and_has_no_total(runs, command, reviews):
    run = runs.copy("classification", "--method.name", "mezo", "--privacy", "none")
    command.json(*paid(run, reviews, 0.5))
    told = command.json("privacy", run)
    assert told["evaluation"]["epsilon"] == 0.5
    (total,) = told["total"]["totals"]
    assert (total["epsilon"], total["because"]) == (None, "training without privacy hides nothing")
    assert "nothing can be guaranteed" in " ".join(command("privacy", run)[0].split())


def test_a_registry_is_charged_as_well(runs, command, reviews, tmp_path):
    registry = tmp_path / "registry.jsonl"
    registries.create(registry)
    run = runs.copy(
        "classification",
        *("--privacy.epsilon", "4", "--data.identity", "reviews"),
        *("--privacy.registry", str(registry)),
    )
    command.json(*paid(run, reviews, 0.5, "--budget", 2))
    command.json(*paid(run, reviews, 0.25, "--disjoint"))
    entries = command.json("privacy", "--registry", registry)["entries"]
    assert [(each["what"], each["data"]) for each in entries] == [
        ("training", "reviews"),
        ("evaluation", "reviews"),
        ("evaluation", "reviews, evaluation"),
    ]
    assert [each["epsilon"] for each in entries[1:]] == pytest.approx([0.5, 0.25], rel=1e-3)
    assert entries[1]["where"] == str(run / "evaluation" / "000001.jsonl")
    registry.unlink()
    assert "no such registry" in command.refused(*paid(run, reviews, 0.5))
    assert command.json("privacy", run)["evaluation"]["calls_charged"] == 2


def forge(path: Path, change: Any) -> None:
    """A ledger with another header, whose hashes follow from each other."""
    header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(header["header"])
    head, content = chain.genesis("hushtune ledger"), b""
    for line in [header, *lines]:
        line.pop("hash")
        made, head = chain.make_line(head, line)
        content += made
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda one, two: one.unlink(), "000001.jsonl: is missing"),
        (lambda one, two: shutil.copy(two, one), "does not follow"),
        (
            lambda one, two: one.write_bytes(
                one.read_bytes().replace(b'"charge":0', b'"charge":1')
            ),
            "hash does not match",
        ),
        (
            lambda one, two: forge(two, lambda header: header["budget"].update(epsilon=50.0)),
            "the first call fixed budget = 3.0",
        ),
        (
            lambda one, two: forge(two, lambda header: header["plan"].update(delta=1e-6)),
            "not of an evaluation",
        ),
        (lambda one, two: forge(two, lambda header: header.update(private=False)), "not of an"),
        (
            lambda one, two: forge(
                two, lambda header: header["plan"].update(noise_scale=2**33, sensitivity=2**34 - 1)
            ),
            "line 1",
        ),
        (
            lambda one, two: forge(two, lambda header: header["evaluation"].update(model="0" * 64)),
            "the model of another run",
        ),
    ],
)
def test_ledgers_that_were_changed_are_not_believed(change, because, run, command, reviews):
    for _ in range(2):
        command.json(*paid(run, reviews, 0.5, "--budget", 3))
    change(*ledger_files(run))
    out, _ = command("privacy", run, "--json", code=1)
    told = json.loads(out)
    assert told["ledger_ok"] is False
    assert because in told["error"]
    assert because in command.refused("privacy", run)


def test_more_charges_than_the_budget_allows_are_not_believed(run, command, reviews):
    for _ in range(2):
        command.json(*paid(run, reviews, 0.5, "--budget", 0.8))
    forge(ledger_files(run)[1], lambda header: header["plan"].update(noise_scale=2**32))
    assert "cost more than the budget" in command.refused("privacy", run)
    assert "cost more than the budget" in command.refused(*paid(run, reviews, 0.01))


def test_the_ledger_of_an_evaluation_is_no_runs(run, command, reviews):
    command.json(*paid(run, reviews, 0.5))
    assert "no run's" in command.refused("privacy", ledger_files(run)[0])


def test_an_evaluated_run_is_certified_as_before(run, command, reviews):
    before = (run / "privacy.json").read_bytes()
    command.json(*paid(run, reviews, 0.5))
    assert command.json("verify", run)["verified"]
    assert (run / "privacy.json").read_bytes() == before


def test_the_noise_is_that_of_the_plan(run, command, reviews, monkeypatch):
    """The same evaluation many times: what differs is the noise that is accounted, and is fresh."""
    plan, numbers = None, None
    make = private.PrivateSteps.step

    def kept(self: Any, slopes: Any) -> Any:
        nonlocal plan, numbers
        plan, numbers = self.plan, slopes(np.arange(60), 0)
        return make(self, slopes)

    monkeypatch.setattr(private.PrivateSteps, "step", kept)
    command.json(*paid(run, reviews, 0.5))
    assert plan is not None
    assert numbers is not None
    from hushtune.privacy.boundary import Boundary

    exact = np.array(Boundary(plan, add_noise=list).release(*numbers), dtype=float)
    boundary = Boundary(plan)
    noise = np.array([boundary.release(*numbers) for _ in range(3000)], dtype=float) - exact
    # In float64, since a scale of 2^32 is as good as continuous. Rejects falsely once in 1e8 times.
    assert scipy.stats.kstest(noise.ravel() / plan.noise_scale, "norm").pvalue > 1e-8
    assert scipy.stats.kstest(noise.ravel() / plan.noise_scale / 1.2, "norm").pvalue < 1e-8
    correlation = scipy.stats.pearsonr(noise[:, 0], noise[:, 1])
    assert correlation.pvalue > 1e-8
    released = evaluations.read(run).calls[0].released
    assert released is not None
    assert (np.abs(np.array(released, dtype=float) - exact) < 8 * plan.noise_scale).all()
    assert plan.noise_multiplier == pytest.approx(7.03, rel=1e-3)
