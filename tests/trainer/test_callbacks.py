"""Callbacks are told of public values only, and may end a run early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from training import causal, documents, seen_inside, seq2seq_collator, trainer
from transformers import TrainerCallback

from hushtune import core
from hushtune.config import ConfigError


class Notes(TrainerCallback):
    """Notes every event with all that it was told."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[tuple[str, int, dict[str, Any]]] = []
        self._stop_at = stop_at

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def note(args: Any, state: Any, control: Any, **told: Any) -> None:
            self.events.append((name, state.global_step, told))
            if name == "on_step_end" and state.global_step == self._stop_at:
                control.should_training_stop = True

        return note

    def names(self) -> list[str]:
        return [name for name, _, _ in self.events]


def tuning(tiny: Any, folder: Path, notes: TrainerCallback, **options: Any) -> Any:
    return trainer(
        causal(tiny("gpt2")),
        folder,
        documents(),
        data_collator=seq2seq_collator(tiny("gpt2")),
        callbacks=[notes],
        **options,
    )


def test_events_come_in_order_with_public_values(tiny, tmp_path: Path):
    notes = Notes()
    run = tuning(
        tiny,
        tmp_path,
        notes,
        eval_dataset=documents(8, seed=7),
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=3,
    )
    result = run.train()
    assert notes.names() == [
        "on_init_end",
        "on_train_begin",
        "on_step_end",
        "on_step_end",
        *("on_log", "on_evaluate"),
        "on_step_end",
        "on_save",
        "on_step_end",
        *("on_log", "on_evaluate", "on_save"),
        *("on_log", "on_train_end"),
    ]
    steps = [step for name, step, _ in notes.events if name == "on_step_end"]
    assert steps == [1, 2, 3, 4]
    for name, _, told in notes.events:
        assert told.pop("model") is run.model
        for nothing in ("train_dataloader", "eval_dataloader", "optimizer", "lr_scheduler"):
            assert told.pop(nothing) is None
        assert told.keys() == {"processing_class"} | (
            {"logs"} if name == "on_log" else {"metrics"} if name == "on_evaluate" else set()
        )
    assert run.state.epoch == pytest.approx(4 * 12 / 60)
    assert run.state.max_steps == 4
    assert [entry["step"] for entry in run.state.log_history] == [2, 4, 4]
    assert result.metrics["steps_charged"] == 4
    checkpoint = causal(tiny("gpt2"))
    core.replay(checkpoint, tmp_path / "checkpoint-3" / "ledger.jsonl")
    saved = causal(str(tmp_path / "checkpoint-3"))
    for one, other in zip(saved.parameters(), checkpoint.parameters(), strict=True):
        assert np.array_equal(one.detach(), other.detach())


def test_there_is_no_training_loss(tiny, tmp_path: Path):
    result = tuning(tiny, tmp_path, Notes()).train()
    with pytest.raises(AttributeError, match="a training loss is computed from private rows"):
        print(result.training_loss)
    assert result._fields == ("global_step", "guarantee", "metrics")
    assert not any("loss" in name for name in result.metrics)


def numbers_in(value: Any) -> set[float]:
    """All numbers in something nested."""
    if isinstance(value, dict):
        return set().union(*map(numbers_in, [*value.keys(), *value.values()]), set())
    if isinstance(value, list | tuple | set):
        return set().union(*map(numbers_in, value), set())
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return {float(value)}
    return set()


def holds(outside: set[float], value: float, digits: int) -> bool:
    """Whether the value is there, in full or rounded to at least so many digits."""
    for each in outside:
        shown = len(f"{each!r}".split("e")[0].replace(".", "").strip("-0"))
        if shown >= digits and float(f"{value:.{shown - 1}e}") == each:
            return True
    return False


def test_nothing_private_is_told_logged_or_printed(tiny, tmp_path, monkeypatch, capfd, caplog):
    seen = seen_inside(monkeypatch)
    notes = Notes()
    run = tuning(
        tiny,
        tmp_path,
        notes,
        batch=30.5,
        disable_tqdm=False,
        eval_dataset=documents(8, seed=7),
        eval_strategy="steps",
        eval_steps=2,
        max_steps=6,
    )
    result = run.train()
    run.save_model()
    assert len(seen) == 6
    printed = "".join(capfd.readouterr()) + caplog.text
    files = {
        path.name: path.read_text(encoding="utf-8")
        for path in tmp_path.rglob("*")
        if path.suffix in (".json", ".md") and "token" not in path.name
    }
    told = [
        {key: value for key, value in each.items() if key in ("logs", "metrics")}
        for _, _, each in notes.events
    ]
    outside = numbers_in([told, run.state.log_history, vars(run.state), list(result)])
    for text in (printed, *files.values()):
        for word in text.replace(",", " ").replace("|", " ").split():
            try:
                outside.add(float(word.strip("()[]{}:;%")))
            except ValueError:
                continue
    assert holds(outside, result.guarantee["epsilon"], 8)  # so that what is there is found
    sizes = [len(set(units)) for _, units in seen]
    for slopes, _ in seen:
        for value in slopes.ravel():
            assert not holds(outside, float(value), 8)
        for value in (slopes.mean(), np.abs(slopes).mean(), np.linalg.norm(slopes, axis=1).max()):
            assert not holds(outside, float(value), 5)
    listed = f"{sizes}"
    assert listed not in printed + str(told)
    assert "train_loss" not in printed + str(told) + str(run.state)


def test_a_callback_may_stop_and_the_guarantee_is_that_of_the_plan(tiny, tmp_path: Path):
    run = tuning(tiny, tmp_path / "stopped", Notes(stop_at=2))
    result = run.train()
    assert result.global_step == 2
    whole = tuning(tiny, tmp_path / "whole", Notes()).train()
    assert result.guarantee["epsilon"] == whole.guarantee["epsilon"]
    assert result.guarantee["steps"] == 4
    assert result.guarantee["steps_charged"] == 2
    again = causal(tiny("gpt2"))
    core.replay(again, tmp_path / "stopped" / "ledger.jsonl")
    for one, other in zip(run.model.parameters(), again.parameters(), strict=True):
        assert np.array_equal(one.detach(), other.detach())


def test_transformers_own_early_stopping_works(tiny, tmp_path: Path):
    stopping = transformers.EarlyStoppingCallback(early_stopping_patience=1)
    stopping.early_stopping_threshold = 1e6  # nothing is ever better by that
    run = tuning(
        tiny,
        tmp_path,
        stopping,
        eval_dataset=documents(8, seed=7),
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="loss",
    )
    assert run.args.greater_is_better is False
    assert run.train().global_step == 2
    assert run.state.best_metric == min(
        entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry
    )


def test_a_display_of_every_step_s_time_is_refused(tiny, tmp_path: Path):
    with pytest.raises(ConfigError, match="ProgressCallback is not accepted, it shows how long"):
        tuning(tiny, tmp_path, transformers.trainer_callback.ProgressCallback())
    run = tuning(tiny, tmp_path, Notes())
    with pytest.raises(ConfigError, match="ProgressCallback"):
        run.add_callback(transformers.trainer_callback.ProgressCallback)


class Meddles(TrainerCallback):
    """Switches dropout on."""

    def on_step_end(self, args: Any, state: Any, control: Any, **told: Any) -> None:
        told["model"].train()


def test_dropout_stays_off_whatever_a_callback_does(tiny, tmp_path: Path, monkeypatch):
    modes = []
    run = tuning(tiny, tmp_path, Meddles())
    run.model.transformer.drop.register_forward_pre_hook(
        lambda module, _: modes.append(module.training)
    )
    run.train()
    assert modes
    assert not any(modes)


def test_the_terminal_shows_the_guarantee_and_no_loss(tiny, tmp_path: Path, capsys):
    tuning(tiny, tmp_path, Notes(), disable_tqdm=False).train()
    shown = capsys.readouterr().out
    assert "ε = " in shown
    assert "loss" not in shown
    written = json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[0])
    # The name of what is optimised, in the configuration, is no loss of anybody's.
    assert "loss" not in json.dumps(written).replace('"objective": "loss"', "")
