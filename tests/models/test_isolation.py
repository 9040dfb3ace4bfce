"""No example's loss depends on another's presence, length or content, by a single bit."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models

from hushtune import probe
from hushtune import session as sessions
from hushtune.config import from_values
from hushtune.session import Session
from hushtune.tasks.data import LabelledText
from hushtune.zo.estimators import Move
from hushtune.zo.probe import Slopes

MOVES = [Move(0, 0.0), Move(0, 1e-3), Move(1, 1e-3), Move(1, -1e-3)]

#: Of all lengths, in tokens, up to far more than fits. The third and fourth fill their row.
TEXTS = [
    "good",
    "a very good film",
    *(" ".join(["was"] * count) for count in (26, 60, 11, 12, 13, 5)),
    "the actor was awful and the plot never was",
    "so so so so so so so so so so so",
    "book",
    " ".join(["food"] * 28),
]


def _config(folder: str, tune: str, dtype: str, words: tuple[str, str], **task: str):
    return from_values(
        {
            "model": {"name": folder, "tune": tune, "dtype": dtype},
            "data": {"train": "unused", "max_length": 32},
            "task": {"labels": {"negative": words[0], "positive": words[1]}, **task},
            "method": {"directions": 2, "steps": 3, "batch": 4.0, "micro_batch_tokens": 256},
            "privacy": {"epsilon": 4.0},
        }
    )


def _losses(session: Session, texts: list[str], rows: list[int]) -> np.ndarray:
    data = LabelledText(texts, np.arange(len(texts)) % 2, np.arange(len(texts)))
    return session.losses(session.task(data)).at(np.array(rows, dtype=int), MOVES, charge=0)


CASES = [
    ("bert", "full", tiny_models.SINGLE, {}),
    ("roberta", "lora", tiny_models.SINGLE, {}),
    ("gpt2", "full", tiny_models.SINGLE, {"readout": "head"}),
    ("llama", "lora", tiny_models.SEVERAL, {}),
    ("opt", "last-1", tiny_models.SINGLE, {}),
    ("t5", "full", tiny_models.SINGLE, {}),
    ("bert", "prompt", tiny_models.SINGLE, {}),
    ("roberta", "prefix", tiny_models.SINGLE, {"readout": "head"}),
    ("gpt2", "prefix", tiny_models.SINGLE, {}),
    ("llama", "prompt", tiny_models.SINGLE, {}),
    ("t5", "prompt", tiny_models.SEVERAL, {}),
    ("t5", "prefix", tiny_models.SINGLE, {}),
    ("encoder", "head", tiny_models.SINGLE, {}),
    ("encoder", "full", tiny_models.SINGLE, {}),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "tune", "words", "task"), CASES)
def test_other_rows_keep_every_bit(family, tune, words, task, dtype, tiny, monkeypatch):
    # How steep the loss is takes the probe most of its time, and is beside the point.
    chosen = 1e-3, Slopes(typical=1.0, agreement=1.0)
    monkeypatch.setattr(probe, "choose_scale", lambda *_, **__: chosen)
    session = sessions.begin(_config(tiny(family), tune, dtype, words, **task), units=12)
    # A head of two labels is so small a product that some processors add up its rows differently,
    # and bfloat16 has kernels of its own; rows are then alone.
    may_be_alone = dtype == "bfloat16" or task.get("readout") == "head"
    assert any(shape.rows > 1 for shape in session.shapes) or may_be_alone
    everyone = list(range(len(TEXTS)))
    together = _losses(session, TEXTS, everyone)
    assert np.isfinite(together).all()

    for gone in (0, 3, 10):
        rest = [row for row in everyone if row != gone]
        assert np.array_equal(_losses(session, TEXTS, rest), together[rest]), f"without {gone}"
    for changed, text in [(0, TEXTS[3]), (2, "bad"), (5, "</s> [SEP] <|endoftext|>")]:
        texts = [text if row == changed else old for row, old in enumerate(TEXTS)]
        rest = [row for row in everyone if row != changed]
        assert np.array_equal(_losses(session, texts, everyone)[rest], together[rest]), changed
    for row in everyone:
        assert np.array_equal(_losses(session, TEXTS, [row]), together[[row]]), f"{row} alone"


def test_a_micro_batch_of_full_rows_is_like_any_other(tiny):
    # A mask without a zero is dropped by models, which then take another kernel.
    session = sessions.begin(_config(tiny("opt"), "full", "float32", tiny_models.SINGLE), units=12)
    readout = session.loaded.readout
    long = readout.encode(" ".join(["was"] * 99))
    assert readout.collate([long, long], 32)["attention_mask"].sum() == 2 * 31
