"""A process is killed; the same code goes on from the ledger, with the model as it was at first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from training import causal, documents, same, seq2seq_collator, trainer

from hushtune import core
from hushtune.cli import main
from hushtune.config import ConfigError
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import LedgerError

#: Seconds. A process imports torch before it does anything, on a machine that may be busy.
PATIENCE = 180

STEPS = 40

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from training import causal, documents, seq2seq_collator, trainer

folder = {model!r}
trainer(
    causal(folder), Path({out!r}), documents(), data_collator=seq2seq_collator(folder),
    max_steps={steps},
).train()
"""


def charges(ledger: Path) -> list[int]:
    lines = ledger.read_bytes().split(b"\n")[1:-1] if ledger.exists() else []
    return [json.loads(line)["charge"] for line in lines if b'"charge"' in line]


def test_after_a_kill_the_run_goes_on_with_what_is_left_of_its_budget(tiny, tmp_path: Path):
    folder, out = tiny("gpt2"), tmp_path / "out"
    ledger = out / "ledger.jsonl"
    tests = str(Path(__file__).parent)
    script = SCRIPT.format(tests=tests, model=folder, out=str(out), steps=STEPS)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    while len(charges(ledger)) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the ledger never came to that"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    spent = ledgers.read(ledger).charges
    assert 3 <= spent < STEPS
    seen: list[int] = []
    model = causal(folder)
    options: dict[str, Any] = {"data_collator": seq2seq_collator(folder), "max_steps": STEPS}
    tuning = trainer(model, out, documents(), **options)
    tuning._progress.stepped = seen.append  # type: ignore[method-assign]
    result = tuning.train(resume_from_checkpoint=True)
    assert seen == list(range(spent + 1, STEPS + 1))
    assert charges(ledger) == list(range(STEPS))
    assert result.guarantee["steps_charged"] == STEPS
    assert result.guarantee["steps_released"] >= STEPS - 1
    again = causal(folder)
    core.replay(again, ledger)
    assert same(model, again)
    tuning.save_model()
    assert same(model, causal(str(out)))


@pytest.fixture
def begun(tiny, tmp_path: Path) -> tuple[str, Path, dict[str, Any]]:
    """A run that a callback ended after two of its steps."""
    from test_callbacks import Notes

    folder = tiny("gpt2")
    options: dict[str, Any] = {"data_collator": seq2seq_collator(folder)}
    trainer(causal(folder), tmp_path, documents(), callbacks=[Notes(stop_at=2)], **options).train()
    return folder, tmp_path, options


def test_what_has_begun_does_not_begin_again_by_mistake(begun):
    folder, out, options = begun
    before = (out / "ledger.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"holds the ledger of a run; go on with it by train\("):
        trainer(causal(folder), out, documents(), **options).train()
    with pytest.raises(ConfigError, match="it must be True or output_dir"):
        trainer(causal(folder), out, documents(), **options).train(str(out / "checkpoint-2"))
    assert (out / "ledger.jsonl").read_bytes() == before
    assert trainer(causal(folder), out, documents(), **options).train(str(out)).global_step == 4


def test_what_has_not_begun_does_not_go_on(tiny, tmp_path: Path):
    with pytest.raises(ConfigError, match="resume_from_checkpoint: there is no ledger in"):
        trainer(causal(tiny("gpt2")), tmp_path, documents()).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ({"epsilon": 5.0}, 60, r"\(privacy.epsilon differ\)"),
        ({"max_steps": 5}, 60, r"\(method.steps differ\)"),
        ({"max_length": 42}, 60, r"\(data.max_length differ\)"),
        ({"unit": "user_id"}, 60, r"\(data.unit differ\)"),
        ({}, 59, "begun with 60 units, not 59"),
    ],
)
def test_a_run_goes_on_under_its_own_terms_only(options, rows, message, begun):
    folder, out, more = begun
    before = (out / "ledger.jsonl").read_bytes()
    tuning = trainer(causal(folder), out, documents()[:rows], **(more | options))
    with pytest.raises(LedgerError, match=message):
        tuning.train(resume_from_checkpoint=True)
    assert (out / "ledger.jsonl").read_bytes() == before


def test_a_model_that_has_moved_is_not_the_one_to_go_on_with(begun):
    folder, out, options = begun
    tuning = trainer(causal(folder), out, documents(), **options)
    tuning.train(resume_from_checkpoint=True)
    with pytest.raises(LedgerError, match="do not start as the ledger says"):
        tuning.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("command", ["privacy", "replay", "verify"])
def test_the_command_line_says_what_was_spent_and_leaves_the_module_to_its_code(
    command, begun, capsys
):
    folder, out, _ = begun
    arguments = {
        "privacy": ["privacy", str(out / "ledger.jsonl")],
        "replay": ["replay", str(out / "ledger.jsonl"), "--model", folder, "--out", str(out / "x")],
        "verify": ["verify", str(out), "--model", folder],
    }[command]
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    said = " ".join("".join(capsys.readouterr()).split())
    assert "Traceback" not in said
    if command == "privacy":
        assert not exit_.value.code
        assert "ε" in said
    else:
        assert exit_.value.code == 1
        reasons = {"replay": "hushtune.core.replay makes it again", "verify": "lacks base_sha256"}
        assert reasons[command] in said
