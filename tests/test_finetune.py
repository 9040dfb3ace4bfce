"""One call from Python: the run of the command line, with data from anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import write_reviews

import hushtune
from hushtune import finetuning
from hushtune.cli import main
from hushtune.config import ConfigError
from hushtune.privacy.ledger import LedgerError
from hushtune.run import replay
from hushtune.tasks.files import DataError

TASK = {"labels": {"negative": "it was terrible", "positive": "it was great"}}
METHOD = {"steps": 4, "directions": 4, "batch": 12}


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def tuned(encoder: str, data: Any, folder: Path, **options: Any) -> hushtune.Result:
    settings: dict[str, Any] = {"privacy": 4.0, "task": TASK, "method": METHOD, "quiet": True}
    section = data if isinstance(data, dict) else {"train": data}
    section = {"max_length": 32, **section}
    return hushtune.finetune(model=encoder, data=section, output=folder, **(settings | options))


def test_a_result_is_a_model_ready_to_use_with_its_guarantee(encoder_folder, reviews, tmp_path):
    public = write_reviews(tmp_path / "public.jsonl", 12, seed=1)
    result = tuned(encoder_folder, {"train": reviews, "eval": public}, tmp_path / "run")
    assert 3.9 < (result.epsilon or 0) <= 4
    assert result.guarantee == json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert result.summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    texts = [row["text"] for row in rows_of(public)]
    labels = [row["label"] for row in rows_of(public)]
    answers = result.predict(texts)
    shares = [answer == label for answer, label in zip(answers, labels, strict=True)]
    assert sum(shares) / len(shares) == pytest.approx(result.summary["private_accuracy"])
    assert answers == hushtune.load(tmp_path / "run").predict(texts)
    assert sum(each.numel() for each in result.model.parameters()) > 1000
    assert result.tokenizer(texts[0])["input_ids"]
    replay(tmp_path / "run" / "ledger.jsonl", model=None, out=tmp_path / "again")
    one, other = ((tmp_path / f / "model" / "label_vectors.safetensors") for f in ("run", "again"))
    assert one.read_bytes() == other.read_bytes()


def frame(rows: list[dict[str, Any]]) -> Any:
    return pytest.importorskip("pandas").DataFrame(rows)


def dataset(rows: list[dict[str, Any]]) -> Any:
    return pytest.importorskip("datasets").Dataset.from_list(rows)


@pytest.mark.parametrize("make", [list, iter, frame, dataset])
def test_rows_may_be_in_memory(make, encoder_folder, reviews, tmp_path):
    data = {"train": make(rows_of(reviews)), "eval": make(rows_of(reviews)[:9]), "unit": "user_id"}
    result = tuned(encoder_folder, data, tmp_path / "run")
    assert result.guarantee["unit"] == "user_id"
    assert result.guarantee["population"] == 21
    assert "private_accuracy" in result.summary
    alone = tuned(encoder_folder, make(rows_of(reviews)), tmp_path / "alone")
    assert alone.guarantee["population"] == 60


def test_cells_of_a_frame_are_as_json_has_them():
    import numpy as np

    pandas = pytest.importorskip("pandas")
    cells = pandas.DataFrame({"options": [np.array(["a", "b"])], "rows": [np.int64(3)]})
    cells["unknown"] = pandas.NA
    assert finetuning._rows("train", cells) == [{"options": ["a", "b"], "rows": 3, "unknown": None}]


def test_an_interrupted_call_goes_on(encoder_folder, reviews, tmp_path, monkeypatch):
    from hushtune.report.terminal import TerminalProgress

    def stop(self: Any, steps: int) -> None:
        if steps == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TerminalProgress, "stepped", stop)
        with pytest.raises(KeyboardInterrupt):
            tuned(encoder_folder, rows_of(reviews), tmp_path / "run")
    with pytest.raises(LedgerError, match="belongs to a different run"):
        tuned(encoder_folder, rows_of(reviews), tmp_path / "run", seed=1)
    with pytest.raises(LedgerError, match="has 59 units"):
        tuned(encoder_folder, rows_of(reviews)[1:], tmp_path / "run")
    result = tuned(encoder_folder, rows_of(reviews), tmp_path / "run")
    assert result.guarantee["steps_charged"] == 4


def test_without_privacy_it_says_so(encoder_folder, reviews, tmp_path):
    result = tuned(encoder_folder, reviews, tmp_path / "run", privacy="none")
    assert result.epsilon is None
    assert result.guarantee["private"] is False


def test_the_run_is_that_of_the_command_line(encoder_folder, reviews, tmp_path, capsys):
    tuned(encoder_folder, reviews, tmp_path / "run")
    command = ["train", str(tmp_path / "run" / "config.yaml"), "--json"]
    with pytest.raises(SystemExit) as exit_:  # it is complete, so nothing more is spent
        main(command)
    assert not exit_.value.code
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "run" / "summary.json").read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": 7}, "data.train: int is not accepted"),
        ({"data": [1, 2]}, "data.train: list is not accepted"),
        ({"data": {"train": "x.jsonl", "evaluate": "y"}}, "unknown key data.evaluate"),
        ({"privacy": {"epsilon": -1}}, "privacy.epsilon: -1.0 is not accepted"),
        ({"method": {"name": "adam"}}, "method.name: "),
        ({"task": None}, "task.labels: {} is not accepted"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(options, message, encoder_folder, tmp_path):
    data = options.pop("data", [{"text": "good", "label": "positive"}] * 20)
    with pytest.raises(ConfigError) as refused:
        tuned(encoder_folder, data, tmp_path / "run", **options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_the_private_rows_are_no_public_ones(encoder_folder, reviews, tmp_path):
    rows = rows_of(reviews)
    with pytest.raises(ConfigError, match=r"^data\.eval: .* not the private training data\.$"):
        tuned(encoder_folder, {"train": rows, "eval": rows}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_alone_is_what_is_trained_on(encoder_folder, tmp_path):
    for data in (str(tmp_path / "nothing.jsonl"), [{"body": "good"}]):
        with pytest.raises(DataError, match=r"no such file|no column 'text'"):
            hushtune.finetune(model=encoder_folder, data=data, privacy=1, task=TASK, quiet=True)


def test_a_row_in_memory_is_named(encoder_folder, tmp_path):
    rows = [{"text": "good", "label": "positive"}, {"text": "", "label": "positive"}]
    with pytest.raises(DataError, match=r"^rows in memory, row 2: text is empty or not text\.$"):
        tuned(encoder_folder, rows, tmp_path / "run")


def test_accounting_needs_no_torch():
    code = "import sys, hushtune; assert hushtune.privacy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(hushtune.finetune)
    with pytest.raises(AttributeError, match="has no attribute 'tune_finely'"):
        hushtune.tune_finely  # noqa: B018
