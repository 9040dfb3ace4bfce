"""What an evaluation on private data says: close to the exact metrics, with errors, and no more."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import write_reviews
from finished import Command, Runs, rows_of, write

from hushtune.config import from_values
from hushtune.finetuning import Result
from hushtune.models.restore import load_tuned
from hushtune.privacy import evaluations
from hushtune.privacy import ledger as ledgers
from hushtune.tasks.data import read_labelled_text
from hushtune.tasks.metrics import measure_of, score_rows
from hushtune.tasks.task import TextTask

#: With this ε the noise of a call is a tenth of a unit.
CLEAR = 100


@pytest.fixture
def runs(tiny, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Runs:
    return Runs(tiny, tmp_path_factory.getbasetemp() / "evaluated", tmp_path)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def cut_off(run: Path, data: str) -> dict[str, float]:
    """The perplexity with no loss above that of a model that has learned nothing.

    Two steps with noise may leave a tiny model that is worse than that.
    """
    header = ledgers.read(run / "ledger.jsonl").header
    tuned, config = load_tuned(run, header), from_values(header["config"])
    rows = read_labelled_text(data, config.data, config.task, with_units=False)
    task = TextTask(tuned.readout, rows, tuned.shapes)
    if measure_of(tuned.readout).names != ("perplexity",):
        return {}
    weights, losses = score_rows(task)
    bounded = np.minimum(losses[:, 0], math.log(len(tuned.tokenizer)))
    return {"perplexity": math.exp(float(np.average(bounded, weights=weights)))}


@pytest.mark.parametrize(
    ("kind", "names", "counted"),
    [
        ("classification", ["accuracy"], "rows"),
        ("completion", ["f1", "exact_match"], "rows"),
        ("language-modelling", ["perplexity"], "tokens"),
    ],
)
def test_noised_metrics_are_the_exact_ones_but_for_their_errors(
    kind, names, counted, runs, command, reviews
):
    run = runs.copy(kind)
    public = reviews  # of the same rows, but another file than the run was trained on
    exact = command.json("eval", run, "--data", public)
    assert exact == command.json("eval", run, "--data", public, "--public")
    assert list(exact)[: len(names)] == names
    assert exact["data_is_public"] is True
    noised = command.json("eval", run, "--data", public, "--private", "--epsilon", CLEAR)
    for name in names:
        error = noised[f"{name}_standard_error"]
        assert 0 < error < 0.05 * (exact[name] if name == "perplexity" else 1)
        assert abs(noised[name] - cut_off(run, reviews).get(name, exact[name])) < 6 * error
        low, high = noised[f"{name}_interval"]
        assert low <= noised[name] <= high
    assert set(noised) == {
        *names,
        *(f"{name}_{what}" for name in names for what in ("standard_error", "interval")),
        *(f"noised_{counted}", f"noised_{counted}_standard_error", "no_ratio", "confidence"),
        *("call", "data", "disjoint", "population", "charged", "released", "data_is_public"),
        *("epsilon", "delta", "unit", "adjacency", "mechanism", "noise_multiplier", "limit"),
        "largest",
        "evaluation",
    }
    assert (noised["no_ratio"], noised["confidence"]) == (None, 0.95)
    assert (noised["data_is_public"], noised["released"]) == (False, True)
    if counted == "rows":
        assert noised["noised_rows"] == pytest.approx(
            60, abs=6 * noised["noised_rows_standard_error"]
        )
    # The same numbers follow from the ledger.
    assert command.json("privacy", run)["evaluation"]["calls"] == [
        {key: noised[key] for key in noised if key not in ("data_is_public", "evaluation")}
    ]


def test_users_count_alike_or_up_to_a_limit(runs, command, tmp_path):
    run = runs.copy()
    rows = rows_of(write_reviews(tmp_path / "rows.jsonl", 200))
    tuned = load_tuned(run, ledgers.read(run / "ledger.jsonl").header)
    answers = tuned.predict([row["text"] for row in rows])
    right = [row for row, answer in zip(rows, answers, strict=True) if row["label"] == answer]
    wrong = [row for row, answer in zip(rows, answers, strict=True) if row["label"] != answer]
    # Ten users with two rows each, all right, and one with sixty rows, all wrong.
    few = [{**right[place], "user_id": f"u{place // 2}"} for place in range(20)]
    many = [{**row, "user_id": "one"} for row in wrong[:60]]
    assert len(many) == 60
    data = write(tmp_path / "data.jsonl", [*many[:30], *few, *many[30:]])
    flags = ("--data", data, "--private", "--unit", "user_id", "--epsilon", CLEAR, "--budget", 1e6)
    for limit, expected in ((1, 10 / 11), (2, 20 / 22), (30, 20 / 50), (60, 20 / 80)):
        chosen = ("--limit", limit) if limit > 1 else ()
        found = command.json("eval", run, *flags, *chosen)
        error = found["accuracy_standard_error"]
        assert abs(found["accuracy"] - expected) < 6 * error + 1e-9
        assert found["limit"] == limit
        assert found["unit"] == "user_id"


def test_a_ratio_within_the_noise_is_not_told(runs, command, tmp_path):
    run = runs.copy()
    data = write_reviews(tmp_path / "few.jsonl", 3)
    arguments = ["eval", run, "--data", data, "--private", "--epsilon", 0.05, "--budget", 1]
    found = command.json(*arguments)
    assert found["accuracy"] is None
    assert found["accuracy_standard_error"] is None
    assert found["accuracy_interval"] is None
    assert "noise is too large" in found["no_ratio"]
    assert "not told" in " ".join(command(*arguments)[0].split())


def test_the_number_of_rows_is_told_nowhere(runs, command, tmp_path):
    run = runs.copy()
    data = write_reviews(tmp_path / "data.jsonl", 137)
    before = {path for path in run.rglob("*") if path.is_file()}
    out, err = command("eval", run, "--data", data, "--private", "--epsilon", 0.5, "--json")
    assert err == ""
    (new,) = {path for path in run.rglob("*") if path.is_file()} - before
    for text in (out, new.read_text()):
        assert not re.search(r"(?<![\d.])137(?![\d.])", text)
    # The search would find it.
    exact, _ = command("eval", run, "--data", data, "--json")
    assert re.search(r"(?<![\d.])137(?![\d.])", exact)


def test_the_training_data_may_be_evaluated_on_privately_alone(runs, command):
    run = runs.copy()
    header = json.loads((run / "ledger.jsonl").read_text().split("\n")[0])["header"]
    train = header["config"]["data"]["train"]
    refusal = command.refused("eval", run, "--data", train)
    assert "private training data" in refusal
    assert "--private" in refusal
    found = command.json("eval", run, "--data", train, "--private", "--epsilon", CLEAR)
    assert found["noised_rows"] == pytest.approx(60, abs=6 * found["noised_rows_standard_error"])


@pytest.mark.parametrize(("population", "delta"), [(1000, 1e-5), (10**6, 1e-7)])
def test_a_population_that_may_be_known_sets_the_delta(population, delta, runs, command, reviews):
    run = runs.copy()
    how = ("--private", "--epsilon", 0.5, "--population", population)
    found = command.json("eval", run, "--data", reviews, *how)
    assert (found["delta"], found["population"]) == (pytest.approx(delta), population)
    line = command.refused("eval", run, "--data", reviews, *how[:-1], 10**8)
    assert "delta" in line
    assert "below 1 / number of units" in line


def test_from_python(runs, reviews, tmp_path):
    run = runs.copy()
    header = ledgers.read(run / "ledger.jsonl").header
    guarantee = json.loads((run / "privacy.json").read_text())
    result = Result(run, load_tuned(run, header), guarantee, {})
    exact = result.evaluate(reviews)
    assert exact["rows"] == 60
    assert result.evaluate(rows_of(reviews))["accuracy"] == exact["accuracy"]
    noised = result.evaluate_privately(
        rows_of(reviews), epsilon=CLEAR, budget=1000.0, unit="user_id"
    )
    assert (noised["unit"], noised["data"]) == ("user_id", "evaluation rows in memory")
    assert evaluations.read(run).spent == pytest.approx(CLEAR, rel=1e-3)
