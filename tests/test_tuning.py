"""Choosing settings privately, from the command line: what is released, and what is not."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command, refusal
from conftest import write_reviews

from hushtune import loading, tuning
from hushtune.cli import main
from hushtune.config import ConfigError
from hushtune.config.searching import configurations, load_search
from hushtune.privacy import ledger as ledgers
from hushtune.privacy import registry as registries
from hushtune.privacy.accounting import composed_epsilon
from hushtune.privacy.accounting.stopping import Poisson
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.charged_search import ChargedSearch
from hushtune.privacy.drawing import SecretDraws
from hushtune.privacy.ledger import StepFailed
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.unpublished import UnpublishedLedger

EXAMPLE = Path(__file__).parent.parent / "examples" / "search.yaml"

SEARCH = """
data: {{train: {train}, eval: {public}, max_length: 32}}
model: {{name: {model}}}
task: {{labels: {{negative: it was terrible, positive: it was great}}}}
method: {{steps: 5, batch: 12, directions: 4}}
privacy: {{epsilon: 4}}
search:
  over: {{method.learning_rate: [0.1, 1], method.clip_norm: [1, 8]}}
  expected_runs: 2
output: {output}
"""


@pytest.fixture
def search_file(encoder_folder: str, reviews: str, tmp_path: Path) -> str:
    """A search of four configurations with a tiny encoder; its folder is runs/best."""
    public = write_reviews(tmp_path / "public.jsonl", 30, seed=1)
    (tmp_path / "search.yaml").write_text(
        SEARCH.format(
            train=reviews,
            public=public,
            model=encoder_folder,
            output=tmp_path / "runs" / "best",
        )
    )
    return str(tmp_path / "search.yaml")


@pytest.fixture
def number_of_runs(monkeypatch):
    """Makes a search run so often; nothing but a test can."""

    def fix(runs: int) -> None:
        monkeypatch.setattr(SecretDraws, "number_of_runs", lambda *_: runs)

    return fix


def files(folder: Path) -> list[Path]:
    return sorted(each.relative_to(folder) for each in folder.rglob("*") if each.is_file())


def test_the_winner_is_a_run_folder_that_claims_the_epsilon_of_the_search(
    search_file, tmp_path, capsys
):
    summary = command(capsys, "tune", search_file)
    runs = tmp_path / "runs"
    assert [each.name for each in runs.iterdir()] == ["best"]
    best = runs / "best"
    assert {each.name for each in best.iterdir()} == {
        "config.yaml", "ledger.jsonl", "metrics.jsonl", "model", "privacy.json", "summary.json",
    }  # fmt: skip
    assert summary == json.loads((best / "summary.json").read_text())
    assert summary.keys() == {
        "zero_shot_accuracy", "private_accuracy", "evaluation_rows_cut", "epsilon", "delta",
        "steps", "ledger_head", "moved_sha256",
    }  # fmt: skip

    plan = PrivacyPlan.from_json(ledgers.read(best / "ledger.jsonl").header["plan"])
    one_run = composed_epsilon([plan.phase], delta=plan.delta)
    assert one_run < 3
    assert 3.99 < summary["epsilon"] <= 4
    guarantee = command(capsys, "privacy", str(best))
    assert guarantee["epsilon"] == summary["epsilon"]
    assert guarantee["epsilon_of_charged_steps"] == summary["epsilon"]
    assert guarantee["group_privacy"][0]["epsilon"] == 2 * summary["epsilon"]
    assert guarantee["search"]["expected_runs"] == pytest.approx(2)
    assert any("How long the search took" in each for each in guarantee["exclusions"])
    assert any("outside of the search" in each for each in guarantee["exclusions"])
    assert "ε = 4, δ = 1e-05" in (best / "model" / "README.md").read_text()
    assert "a secret number of runs, 2 expected" in (best / "model" / "README.md").read_text()

    checked = command(capsys, "verify", str(best))
    assert checked["verified"]
    ended = {check["name"]: check["status"] for check in checked["checks"]}
    assert ended.pop("ledger head") == "not applicable"
    assert set(ended.values()) == {"passed"}
    assert "ε = 4" in json.loads((best / "certificate.json").read_text())["claim"]
    command(capsys, "replay", str(best), "--out", str(tmp_path / "again"))
    weights = Path("model") / "label_vectors.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (best / weights).read_bytes()


@pytest.fixture
def privately_scored(search_file: str) -> str:
    """The same search where no rows are public."""
    path = Path(search_file)
    text = re.sub(r", eval: [^,]+,", ",", path.read_text())
    path.write_text(text.replace("expected_runs: 2", "expected_runs: 2\n  score: private"))
    return search_file


def test_without_public_rows_a_search_scores_privately_and_pays_for_it(
    privately_scored, tmp_path, capsys
):
    described = command(capsys, "tune", privately_scored, "--plan")
    assert described["score"] == "private"
    assert described["score_noise"] == pytest.approx(10.0)
    summary = command(capsys, "tune", privately_scored)
    best = tmp_path / "runs" / "best"
    assert summary["private_accuracy"] is None
    assert summary["epsilon"] <= 4.0
    header = ledgers.read(best / "ledger.jsonl").header
    plan = PrivacyPlan.from_json(header["plan"])
    assert plan.search is not None
    for training, scoring in plan.search.candidates:
        assert training.steps == 5
        assert (scoring.steps, scoring.directions) == (1, 1)
        assert scoring.sampling_probability == 1.0
        assert scoring.noise_multiplier == pytest.approx(10.0)
    # With a score to pay for, training has more noise than without.
    searched, search = load_search(privately_scored)
    public = dataclasses.replace(
        searched, data=dataclasses.replace(searched.data, eval=searched.data.train + "x")
    )
    free = tuning.plan_search(public, dataclasses.replace(search, score="public"), units=60)
    assert free.scoring is None
    assert all(len(candidate) == 1 for candidate in free.terms.candidates)
    paid = tuning.plan_search(searched, search, units=60)
    pairs = zip(free.trainings(), paid.trainings(), strict=True)
    assert all(more.noise_multiplier > less.noise_multiplier for less, more in pairs)
    assert command(capsys, "privacy", str(best))["epsilon"] == summary["epsilon"]
    report = command(capsys, "verify", str(best), "--model", searched.model.name)
    assert report["verified"] is True


def test_a_private_score_goes_through_the_boundary_once_a_run(
    privately_scored, number_of_runs, capsys, monkeypatch
):
    number_of_runs(3)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    release = Boundary.release

    def watched(self, scalars, unit_of_row):
        if self.plan.steps == 1:
            seen.append((scalars, unit_of_row))
        return release(self, scalars, unit_of_row)

    monkeypatch.setattr(Boundary, "release", watched)
    command(capsys, "tune", privately_scored)
    assert len(seen) == 3
    for scalars, unit_of_row in seen:
        assert scalars.shape == (60, 1)
        assert set(scalars.ravel()) <= {-1.0, 1.0}
        assert np.array_equal(unit_of_row, np.arange(60))


def test_of_private_scores_the_best_wins(privately_scored, number_of_runs, capsys, monkeypatch):
    """With exact scores and all configurations in turn, the winner has the most right answers."""
    from hushtune.evaluating import noised_score

    number_of_runs(4)
    turn = iter(range(4))
    monkeypatch.setattr(SecretDraws, "below", lambda *_: next(turn))
    reached = iter([5, 9, 9, 2])
    monkeypatch.setattr(noised_score.Boundary, "release", _only_scores(reached))
    command(capsys, "tune", privately_scored)
    config, search = load_search(privately_scored)
    won = json.loads((Path(config.output) / "ledger.jsonl").read_text().splitlines()[0])["header"]
    assert won["config"]["method"] == configurations(config, search)[1].to_json()["method"]


def _only_scores(reached):
    release = Boundary.release

    def replaced(self, scalars, unit_of_row):
        if self.plan.steps == 1:
            return (next(reached),)
        return release(self, scalars, unit_of_row)

    return replaced


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("score: exact", "search.score: .exact. is not accepted; it must be public or private"),
        ("score_noise: 0", "search.score_noise: 0 is not accepted"),
        ("score_noise: much", "search.score_noise: .much. is not accepted"),
        ("score_noise: true", "search.score_noise: true is not accepted"),
    ],
)
def test_a_score_that_is_none_is_refused(score, said, search_file):
    path = Path(search_file)
    path.write_text(path.read_text().replace("expected_runs: 2", f"expected_runs: 2\n  {score}"))
    with pytest.raises(ConfigError, match=said):
        load_search(search_file)


def test_a_finished_search_is_left_as_it_is_and_no_other_one_takes_its_folder(
    search_file, tmp_path, capsys
):
    summary = command(capsys, "tune", search_file)
    before = {name: (tmp_path / "runs" / name).read_bytes() for name in files(tmp_path / "runs")}
    assert command(capsys, "tune", search_file) == summary
    assert command(capsys, "train", str(tmp_path / "runs" / "best" / "config.yaml")) == summary
    after = {name: (tmp_path / "runs" / name).read_bytes() for name in files(tmp_path / "runs")}
    assert after == before
    # Cut short between the last file and the end, its record would tell when it began.
    record = tmp_path / "runs" / "best.search"
    record.write_text("charged")
    assert command(capsys, "tune", search_file) == summary
    assert not record.exists()
    for flags in (["--seed", "5"], ["--method.steps", "6"], ["--privacy.epsilon", "3"]):
        assert "belongs to a different run" in refusal(capsys, "tune", search_file, *flags)
    shutil.rmtree(tmp_path / "runs" / "best" / "model")
    (tmp_path / "runs" / "best" / "summary.json").unlink()
    assert "holds something else" in refusal(capsys, "tune", search_file)


def test_nothing_that_is_shown_or_kept_tells_how_many_runs_there_were(
    search_file, tmp_path, capfd, number_of_runs, monkeypatch
):
    """One run or four: the same lines, files and, but for the winner itself, contents."""
    shown, kept, modes = [], [], []
    for runs in (1, 4):
        number_of_runs(runs)
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["tune", search_file])
        assert not exit_.value.code
        said = capfd.readouterr()
        lines = [line for line in said.out.splitlines() if "accuracy" not in line]
        shown.append([line for line in lines if not set(line) <= set("0123456789abcdef ")])
        shown[-1] = [line for line in shown[-1] if not line.startswith("ledger head")]
        assert said.err.count("\r") <= 3  # the bar of the one model that is saved
        kept.append(files(tmp_path / "runs"))
        modes.append((tmp_path / "runs" / "best" / "ledger.jsonl").stat().st_mode)
    assert shown[0] == shown[1]
    assert kept[0] == kept[1]
    assert modes[0] == modes[1]


def test_no_file_tells_when_the_search_began_or_when_the_winner_ran(
    search_file, tmp_path, capsys, number_of_runs, monkeypatch
):
    number_of_runs(3)
    run, ended, written = tuning._run, [], []

    def watched(*arguments: Any) -> Any:
        before = files(tmp_path)
        _, outcome = run(*arguments)
        written.append(files(tmp_path) != before)
        ended.append(time.time_ns())
        time.sleep(0.05)  # coarser than the clock of file systems
        return 10.0 - len(ended), outcome  # the first one wins

    monkeypatch.setattr(tuning, "_run", watched)
    command(capsys, "tune", search_file)
    assert written == [False, False, False]
    best = tmp_path / "runs" / "best"
    for path in (best, *best.rglob("*")):
        found = path.stat()
        assert min(found.st_mtime_ns, found.st_ctime_ns) > ended[-1], path


def test_the_charge_is_durable_before_anything_is_drawn(search_file, tmp_path, capsys, monkeypatch):
    record = tmp_path / "runs" / "best.search"
    events: list[str] = []
    fsync, urandom = os.fsync, os.urandom

    def synced(file: int) -> None:
        fsync(file)
        if record.exists() and os.fstat(file).st_ino == record.stat().st_ino:
            assert json.loads(record.read_text())["search"]["search"]["expected_runs"] == 2
            events.append("charged")

    def drawn(count: int) -> bytes:
        events.append("drawn")
        return urandom(count)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("hushtune.privacy.drawing.os.urandom", drawn)
    monkeypatch.setattr("hushtune.settling.secrets.token_hex", lambda count: "0" * 2 * count)
    command(capsys, "tune", search_file)
    assert events[0] == "charged"
    assert events.count("charged") == 1
    assert "drawn" in events


def test_a_charge_that_may_not_be_durable_ends_the_search(
    search_file, tmp_path, capsys, monkeypatch
):
    def failing(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("hushtune.privacy.chain.os.fsync", failing)
    monkeypatch.setattr(
        SecretDraws, "number_of_runs", lambda *_: pytest.fail("drawn without a charge")
    )
    assert "the disk is full" in refusal(capsys, "tune", search_file)


SEARCHING = """
import os, sys, time
from hushtune import tuning
from hushtune.cli import main
from hushtune.cli import main

run = tuning._run

def slow(*arguments):
    score, outcome = run(*arguments)
    print("ran", flush=True)
    time.sleep(600)

tuning._run = slow
main(["tune", sys.argv[1]])
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_search_that_is_killed_leaves_its_charge_and_nothing_else(
    how, search_file, tmp_path, capsys
):
    inherited = {"PYTHONPATH": ":".join(sys.path), "TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", SEARCHING, search_file],
        env=os.environ | inherited,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("ran" in line.split() for line in process.stdout)
        busy = refusal(capsys, "tune", search_file)
        process.send_signal(how)
        assert process.wait(timeout=60) != 0
    assert "another process is searching here" in busy
    assert files(tmp_path / "runs") == [Path("best.search")]
    assert files(tmp_path / "scratch") == []
    for _ in range(2):
        lost = refusal(capsys, "tune", search_file)
        assert "was charged here and did not end, so it is lost" in lost
    assert files(tmp_path / "runs") == [Path("best.search")]


def test_a_record_that_was_cut_short_is_a_charge(search_file, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "best.search").write_bytes(b'{"sear')
    assert "is lost" in refusal(capsys, "tune", search_file)


def test_a_refusal_before_the_charge_leaves_nothing(search_file, tmp_path, capsys):
    rows = (tmp_path / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(rows + '{"text": "fine", "label": "unheard of"}\n')
    assert "unheard of" in refusal(capsys, "tune", search_file)
    assert files(tmp_path / "runs") == []
    (tmp_path / "train.jsonl").write_text(rows)
    command(capsys, "tune", search_file)


class Drawn(SecretDraws):
    """Draws that a test has chosen."""

    def __init__(self, *choices: int) -> None:
        super().__init__()
        self.choices = list(choices)

    def number_of_runs(self, stopping: object) -> int:
        return len(self.choices)

    def below(self, bound: int) -> int:
        return self.choices.pop(0)


def best_of(scores: dict[str, list[float]], draws: Drawn) -> str:
    """Which run is chosen where those of a configuration score like this, in turn."""
    terms: Any = type("Terms", (), {"stopping": Poisson(5.0)})
    counts = dict.fromkeys(scores, 0)

    def run(choice: Any) -> tuple[float, str]:
        counts[choice["name"]] += 1
        return scores[choice["name"]].pop(0), f"{choice['name']}{counts[choice['name']]}"

    return tuning.best_of(terms, [{"name": name} for name in scores], run, draws=draws)


def test_the_best_run_is_chosen_and_of_several_the_first():
    assert best_of({"a": [0.5, 0.7], "b": [0.6]}, Drawn(0, 1, 0)) == "a2"
    assert best_of({"a": [0.7, 0.7], "b": [0.7]}, Drawn(1, 0, 0)) == "b1"
    assert best_of({"a": [float("-inf")]}, Drawn(0)) == "a1"


def test_a_run_that_fails_ends_the_search_without_a_word_on_what_it_met():
    def run(_: Any) -> Any:
        raise RuntimeError("row 17 said: my account is OS-1565")

    terms: Any = type("Terms", (), {"stopping": Poisson(5.0)})
    with pytest.raises(StepFailed) as caught:
        tuning.best_of(terms, [{}], run, draws=Drawn(0, 0))
    assert str(caught.value) == "the search failed with RuntimeError; it is charged and lost."
    assert caught.value.__context__ is None


def test_warnings_of_runs_stay_inside_and_so_does_where_an_interruption_met_them():
    terms: Any = type("Terms", (), {"stopping": Poisson(5.0)})

    def warning(_: Any) -> Any:
        warnings.warn("17 rows overflowed", stacklevel=1)
        return 0.5, "kept"

    def interrupted(_: Any) -> Any:
        secret = "17 rows"
        raise KeyboardInterrupt(secret)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert tuning.best_of(terms, [{}], warning, draws=Drawn(0, 0)) == "kept"
    assert heard == []
    with pytest.raises(KeyboardInterrupt) as caught:
        tuning.best_of(terms, [{}], interrupted, draws=Drawn(0))
    assert caught.value.args == ()
    assert caught.value.__context__ is None


def test_planning_loads_one_model_however_many_configurations_there_are(
    search_file, number_of_runs, capsys, monkeypatch
):
    loads = []
    load = loading.load_model
    monkeypatch.setattr(
        loading, "load_model", lambda *of, **more: (loads.append(1), load(*of, **more))[1]
    )
    number_of_runs(1)
    text = Path(search_file).read_text().replace("clip_norm: [1, 8]", "directions: [2, 4, 8]")
    Path(search_file).write_text(text)
    command(capsys, "tune", search_file)
    assert len(loads) == 3  # planned, ran, and made again to be saved


def test_a_search_whose_run_failed_is_lost(search_file, tmp_path, capsys, monkeypatch):
    def failing(*_: object) -> None:
        raise MemoryError("17 rows")

    monkeypatch.setattr(tuning, "train_steps", failing)
    assert "failed with MemoryError; it is charged and lost" in refusal(capsys, "tune", search_file)
    monkeypatch.undo()
    assert "is lost" in refusal(capsys, "tune", search_file)


def test_every_run_draws_its_configuration_and_is_trained_as_planned(
    search_file, capsys, number_of_runs, monkeypatch
):
    """Of 40 runs none may be of a fifth configuration; all four come but once in 24,000 times."""
    number_of_runs(40)
    drawn = []

    def noted(header: Any, *_: object) -> Any:
        ledger = UnpublishedLedger(dict(header))
        drawn.append(
            (header["settings"]["learning_rate"], header["plan"]["clip_norm"], header["plan"])
        )
        for _ in range(header["steps"]):
            ledger.release(ledger.charge(), [0] * 4)
        return 0.0, (ledger, {"accuracy": 0.0})

    monkeypatch.setattr(tuning, "_run", noted)
    command(capsys, "tune", search_file)
    assert {each[:2] for each in drawn} == {(0.1, 1.0), (0.1, 8.0), (1.0, 1.0), (1.0, 8.0)}
    plans = [PrivacyPlan.from_json(each[2]) for each in drawn]
    assert len({plan.epsilon() for plan in plans}) == 1
    assert {plan.search for plan in plans} == {plans[0].search}


def test_a_plan_says_what_a_search_costs_before_it_is_charged(search_file, tmp_path, capsys):
    plan = command(capsys, "tune", search_file, "--plan")
    assert not (tmp_path / "runs").exists()
    assert 3.99 < plan["epsilon"] <= 4
    assert plan["expected_runs"] == pytest.approx(2)
    assert len(plan["configurations"]) == 4
    for each in plan["configurations"]:
        assert each["settings"].keys() == {"method.learning_rate", "method.clip_norm"}
        assert each["epsilon_of_one_run"] < 3
        assert each["noise_multiplier"] > 1.1 * each["noise_multiplier_without_search"]
    with pytest.raises(SystemExit) as exit_:
        main(["tune", search_file, "--plan"])
    assert not exit_.value.code
    assert "for the whole" in capsys.readouterr().out


def test_a_search_is_entered_in_a_registry_before_it_is_drawn(
    search_file, tmp_path, capsys, monkeypatch
):
    registry = tmp_path / "registry.jsonl"
    flags = ["--privacy.registry", str(registry), "--data.identity", "reviews"]
    missing = refusal(capsys, "tune", search_file, *flags)
    assert "no such registry" in missing
    assert files(tmp_path / "runs") == []
    registries.create(registry)
    number_of_runs = SecretDraws.number_of_runs

    def after_entry(*arguments: Any) -> int:
        (entry,) = registries.read(registry).entries
        assert 3.99 < entry.epsilon <= 4
        return number_of_runs(*arguments)

    monkeypatch.setattr(SecretDraws, "number_of_runs", after_entry)
    summary = command(capsys, "tune", search_file, *flags)
    shown = command(capsys, "privacy", "--registry", str(registry))
    (total,) = shown["totals"]
    assert total["epsilon"] == pytest.approx(summary["epsilon"])
    assert shown["entries"][0]["what"] == "search"


REFUSED = {
    "laplace": (["--privacy.mechanism", "laplace"], "privacy.mechanism"),
    "replace-one": (["--privacy.adjacency", "replace-one"], "privacy.adjacency"),
    "no privacy": (["--privacy.mechanism", "none", "--method.name", "mezo"], "privacy.mechanism"),
    "mezo": (["--method.name", "mezo"], "method.name"),
    "dp-sgd": (["--method.name", "dp-sgd"], "method.name"),
    "no public data": (["--data.eval", "None"], "data.eval"),
    "evaluations between": (["--eval-every", "2"], "eval_every"),
    "no epsilon": (["--privacy.epsilon", "None"], "privacy.epsilon"),
    "a large batch": (["--method.batch", "61"], "method.batch"),
    "a large delta": (["--privacy.delta", "0.02"], "privacy.delta"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("plan", [[], ["--plan"]], ids=["tune", "plan"])
def test_what_a_search_cannot_account_for_is_refused(kind, plan, search_file, tmp_path, capsys):
    flags, key = REFUSED[kind]
    assert f"{key}: " in refusal(capsys, "tune", search_file, *plan, *flags)
    assert files(tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{}", "expected a section with over"),
        ("{over: {method.learning_rate: [1]}, runs: 3}", "expected a section with over"),
        ("{over: {}}", "search.over"),
        ("{over: {method.learning_rate: 1}}", "search.over"),
        ("{over: [1, 2]}", "search.over"),
        ("{over: {privacy.epsilon: [1, 2]}}", 'search.over: "privacy.epsilon" is not accepted'),
        ("{over: {method.learning_rat: [1]}}", '"method.learning_rat" is not accepted'),
        ("{over: {method.learning_rate: [1, 1]}}", "different configurations"),
        ("{over: {method.learning_rate: [1, 1.0]}}", "different configurations"),
        ("{over: [{method.steps: 5}, {}]}", "different configurations"),
        ("{over: {method.learning_rate: [fast]}}", 'method.learning_rate: "fast"'),
        ("{over: {method.learning_rate: [-1]}}", "method.learning_rate: -1"),
        ("{over: {method.name: [mezo]}}", "method.name"),
        ("{over: [{}], distribution: binomial}", "search.distribution"),
        ("{over: [{}], expected_runs: 1}", "a number from 2 to 1000"),
        ("{over: [{}], expected_runs: many}", "a number from 2 to 1000"),
        ("{over: [{}], expected_runs: true}", "a number from 2 to 1000"),
    ],
)
def test_a_section_that_makes_no_search_is_refused(section, said, search_file, tmp_path, capsys):
    text = Path(search_file).read_text()
    head, _, tail = text.partition("search:")
    (tmp_path / "other.yaml").write_text(
        f"{head}search: {section}\noutput:{tail.split('output:')[1]}"
    )
    assert said in refusal(capsys, "tune", str(tmp_path / "other.yaml"))


def test_a_run_file_without_a_search_is_refused(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("privacy: {epsilon: 2}\n")
    assert "expected a section" in refusal(capsys, "tune", str(tmp_path / "run.yaml"))
    assert "expected a file" in refusal(capsys, "tune")


def test_a_list_of_configurations_is_taken_as_it_is(search_file, tmp_path):
    text = Path(search_file).read_text().replace(
        "{method.learning_rate: [0.1, 1], method.clip_norm: [1, 8]}",
        "[{method.learning_rate: 0.1}, {method.directions: 8, method.steps: 9}]",
    )  # fmt: skip
    Path(search_file).write_text(text)
    first, second = (each.method for each in configurations(*load_search(search_file)))
    assert (first.learning_rate, first.directions, first.steps) == (0.1, 4, 5)
    assert (second.learning_rate, second.directions, second.steps) == ("auto", 8, 9)


def test_the_example_is_a_search():
    assert len(configurations(*load_search(EXAMPLE))) == 18


def test_a_ledger_is_kept_in_memory_for_runs_of_a_search_alone():
    with pytest.raises(ValueError, match="whose plan is one of a search"):
        UnpublishedLedger({"steps": 4, "plan": {"steps": 4, "directions": 2}})


def test_a_ledger_whose_search_counts_on_more_noise_than_it_has_claims_nothing(
    search_file, tmp_path, capsys
):
    """As if the header named a candidate with more noise than the steps were released with."""
    command(capsys, "tune", search_file)
    header = ledgers.read(tmp_path / "runs" / "best" / "ledger.jsonl").header
    (candidate,) = header["plan"]["search"]["candidates"]
    candidate[0]["noise_multiplier"] *= 1.5
    with ledgers.Ledger(tmp_path / "forged" / "ledger.jsonl", header):
        pass
    said = refusal(capsys, "privacy", str(tmp_path / "forged"))
    assert "that of a search which accounts for this plan" in said


def test_one_process_at_a_time(tmp_path):
    record = tmp_path / "best.search"
    with (
        ChargedSearch(record),
        pytest.raises(ledgers.LedgerError, match="another process is searching here"),
    ):
        ChargedSearch(record)
    assert not record.exists()
