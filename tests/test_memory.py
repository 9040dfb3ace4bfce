"""Peak memory: what a process reports of itself, what is predicted, what micro-batches may take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import write_reviews

from hushtune.memory import available, forget_peak, peak_memory, room
from hushtune.sizing import costs, fitting_tokens, needs


@pytest.mark.parametrize(
    ("a_token", "wanted", "limit", "expected"),
    [
        (1000, 1024, 1_024_000, 1024),
        (1000, 1024, 1_023_999, 512),
        (1000, 4096, 1 << 40, 4096),
        (1000, 4096, 0, 128),
        (1000, 3000, 1 << 40, 2048),
    ],
)
def test_as_many_tokens_as_pay_and_fit(a_token: int, wanted: int, limit: int, expected: int):
    assert fitting_tokens(a_token, wanted, limit) == expected


def test_larger_passes_are_wanted_where_every_pass_writes_all_parameters():
    for device in (torch.device("cpu"), torch.device("cuda")):
        few, all_ = (costs(device, all_move=moves) for moves in (False, True))
        assert few.most_tokens < all_.most_tokens
        assert few.overhead < all_.overhead


def test_the_peak_is_not_that_of_the_process_that_started_this_one():
    code = "from hushtune.memory import peak_memory; print(peak_memory())"
    held = bytearray(b"x") * (1536 << 20)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) < len(held) >> 20


def test_a_forgotten_peak_begins_again():
    held = bytearray(b"x") * (256 << 20)
    del held
    high = peak_memory()
    if not forget_peak():
        pytest.skip("this system keeps its peak")
    assert peak_memory() <= high - 128


def test_needs_are_those_of_the_configuration(tiny):
    import transformers

    weights = sum(
        p.numel() for p in transformers.AutoModel.from_pretrained(tiny("opt")).parameters()
    )
    wide = needs(tiny("opt"), "float32", all_move=True, max_length=32)
    narrow = needs(tiny("opt"), "bfloat16", all_move=False, max_length=32)
    assert wide.weights == 4 * weights
    assert narrow.weights == 2 * weights
    assert (wide.scratch, narrow.scratch) == (4 * 32 * 48, 0)
    assert wide.peak(100) - wide.peak(0) == 100 * wide.a_token > 0


def test_room_is_a_part_of_what_is_free():
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(memory["MemTotal"].split()[0]) * 1024
    assert 0 < room() <= total / 4
    assert available() <= total


@pytest.mark.slow
def test_a_plan_foretells_the_peak_of_training(encoder_folder: str, tmp_path: Path):
    import shutil

    from transformers import BertConfig, BertModel

    folder = tmp_path / "encoder"
    shutil.copytree(encoder_folder, folder)
    known = BertConfig.from_pretrained(encoder_folder).vocab_size
    BertModel(
        BertConfig(
            vocab_size=max(known, 16_000),
            hidden_size=384,
            num_hidden_layers=8,
            num_attention_heads=6,
            intermediate_size=1536,
        )
    ).save_pretrained(folder)
    arguments = ["--model.name", str(folder), "--model.tune", "full"]
    arguments += ["--data.train", write_reviews(tmp_path / "train.jsonl", 2000)]
    arguments += ["--data.max-length", "32", "--method.directions", "1", "--method.steps", "3"]
    arguments += ["--method.batch", "8", "--privacy.epsilon", "4"]
    arguments += ["--task.labels", "negative", "terrible", "positive", "great"]
    arguments += ["--output", str(tmp_path / "run"), "--json"]

    def hushtune(command: str) -> dict:
        words = [sys.executable, "-m", "hushtune", command, *arguments]
        out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return json.loads(out.splitlines()[-1])

    expected, actual = hushtune("plan")["expected_peak_mib"], hushtune("train")["peak_rss_mib"]
    assert abs(expected / actual - 1) <= 0.10
