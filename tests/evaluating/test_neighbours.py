"""One unit moves what is released by no more than is accounted, whatever its rows and the others'.

From the command line to the ledger, with the noise left out by the test, so that integers are
compared. Units that are removed, replaced, or have many rows; metrics of every task.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_reviews
from finished import Command, Runs, rows_of, write

from hushtune.evaluating import private
from hushtune.privacy import boundary, evaluations
from hushtune.tasks.data import LabelledText
from hushtune.tasks.metrics import score_rows
from hushtune.tasks.task import TextTask


@pytest.fixture
def runs(tiny, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Runs:
    return Runs(tiny, tmp_path_factory.getbasetemp() / "evaluated", tmp_path)


@pytest.fixture
def released(runs: Runs, capsys, tmp_path: Path, monkeypatch):
    """The exact sums of evaluations by kind of task, unit and rows; with the sensitivity."""
    monkeypatch.setattr(boundary, "exact_noise", lambda _: list)
    command, folders = Command(capsys), {}

    def release(kind: str, rows: list[dict[str, Any]], *flags: str) -> tuple[np.ndarray, int]:
        if kind not in folders:
            folders[kind] = runs.copy(kind)
        data = write(tmp_path / "data.jsonl", rows)
        how = ("--private", "--epsilon", "0.5", "--budget", "100", *flags)
        command.json("eval", folders[kind], "--data", data, *how)
        (*_, call) = evaluations.read(folders[kind]).calls
        assert call.released is not None
        return np.array(call.released, dtype=object), call.plan.sensitivity

    return release


def length(difference: np.ndarray) -> int:
    """The square of the L2 norm, in integers without limit."""
    return sum(value * value for value in difference.tolist())


#: Rows that a task may meet, of one user.
ODD = [
    {"text": "good", "label": "positive"},
    {"text": "the plot was never so bad " * 20, "label": "negative"},
    {"text": "é" * 50, "label": "negative"},
]

KINDS = ["classification", "completion", "language-modelling"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_more_or_less_moves_the_sum_by_one_sensitivity_at_most(kind, released, tmp_path):
    rows = rows_of(write_reviews(tmp_path / "others.jsonl", 30))
    by_user = ("--unit", "user_id")
    own = [
        [{**rows[0], "user_id": "ann"}],
        [{**row, "user_id": "ann"} for row in ODD],
        [{**rows[1], "user_id": "ann"}] * 70,
    ]
    without, sensitivity = released(kind, rows, *by_user)
    shifts = []
    for some in own:
        # The user's rows stand between those of the others.
        among, _ = released(kind, [*rows[:7], *some[:1], *rows[7:], *some[1:]], *by_user)
        shifts.append(among - without)
        assert 0 < length(shifts[-1]) <= sensitivity**2
        alone, _ = released(kind, some, *by_user)
        assert length(alone) <= sensitivity**2
        # Not by a bit does what the user adds depend on who else is there.
        assert (alone == shifts[-1]).all()
    if kind == "classification":
        # All of what is accounted is made use of, by one row and by seventy.
        for shift in (shifts[0], shifts[2]):
            assert length(shift) >= (sensitivity - 2) ** 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_replaced_moves_the_sum_by_two_sensitivities_at_most(kind, released, tmp_path):
    rows = rows_of(write_reviews(tmp_path / "others.jsonl", 12))
    before, sensitivity = released(kind, rows)
    for row in ODD:
        after, _ = released(kind, [*rows[:3], {**rows[3], **row}, *rows[4:]])
        assert length(after - before) <= (2 * sensitivity) ** 2


def test_numbers_outside_of_all_bounds_do_not_get_past_the_boundary(
    released, tmp_path, monkeypatch
):
    rows = rows_of(write_reviews(tmp_path / "others.jsonl", 12))
    without, sensitivity = released("classification", rows)
    make = private.vectors
    for wrong in (1e300, -7.0, math.nan, math.inf):

        def spoilt(*arguments: Any, wrong: float = wrong, **options: Any) -> np.ndarray:
            found = make(*arguments, **options)
            found[5] = wrong
            return found

        with monkeypatch.context() as patch:
            patch.setattr(private, "vectors", spoilt)
            among, _ = released("classification", rows)
        with_and_without, _ = released("classification", [*rows[:5], *rows[6:]])
        assert length(among - with_and_without) <= sensitivity**2
    assert length(without) > sensitivity**2


def test_prompts_are_completed_one_by_one(runs: Runs, capsys, tmp_path, monkeypatch):
    from transformers import OPTForCausalLM

    run, sizes = runs.copy("completion"), []
    generate = OPTForCausalLM.generate

    def noted(self: Any, **inputs: Any) -> Any:
        sizes.append(tuple(inputs["input_ids"].shape))
        return generate(self, **inputs)

    monkeypatch.setattr(OPTForCausalLM, "generate", noted)
    data = write_reviews(tmp_path / "data.jsonl", 9)
    command = Command(capsys)
    exact = command.json("eval", run, "--data", data)
    assert sizes == [(9, sizes[0][1])]
    noised = command.json("eval", run, "--data", data, "--private", "--epsilon", "30")
    assert [rows for rows, _ in sizes[1:]] == [1] * 9
    assert len({width for _, width in sizes[1:]}) > 1  # nor are they padded
    for name in ("f1", "exact_match"):
        low, high = noised[f"{name}_interval"]
        assert low - 0.5 <= exact[name] <= high + 0.5


def test_where_rows_touch_each_other_micro_batches_are_of_one_row(
    runs: Runs, capsys, tmp_path, monkeypatch
):
    from hushtune.tasks.readouts import DescriptionsReadOut

    scores, rows = DescriptionsReadOut.scores, []

    def coupled(self: Any, inputs: Any) -> Any:
        found = scores(self, inputs)
        rows.append(len(found))
        return found + 1e-3 * inputs["input_ids"].double().mean()

    monkeypatch.setattr(DescriptionsReadOut, "scores", coupled)
    shapes: list[Any] = []
    scored = private.score_rows

    def seen(task: TextTask, *, alone: bool) -> Any:
        rows.clear()
        found = scored(task, alone=alone)
        shapes.extend(rows)
        return found

    monkeypatch.setattr(private, "score_rows", seen)
    data = write_reviews(tmp_path / "data.jsonl", 9)
    Command(capsys).json("eval", runs.copy(), "--data", data, "--private", "--epsilon", "30")
    assert shapes == [1] * 9


def test_a_row_scores_the_same_bits_alone_and_among_others(runs: Runs):
    import hushtune

    tuned = hushtune.load(runs.copy("language-modelling"))
    texts = ["a good film", "bad", "it was not the very best story again and again", "so it was"]

    def scored(some: list[str]) -> dict[str, tuple[float, float]]:
        task = TextTask(tuned.readout, LabelledText.unlabelled(some), tuned.shapes)
        weights, values = score_rows(task, alone=True)
        return dict(zip(some, zip(weights, values[:, 0], strict=True), strict=True))

    together = scored(texts)
    for text in texts:
        assert scored([text]) == {text: together[text]}
