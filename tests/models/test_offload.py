"""Weights that do not fit: the same model and numbers, each weight fetched once per micro-batch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from accelerate.utils import OffloadedWeightsLoader
from moved_losses import make_setting
from safetensors import safe_open
from torch import Tensor, nn

from hushtune.cli import main
from hushtune.config import Config, ConfigError, DataConfig, ModelConfig, TaskConfig, from_values
from hushtune.loading import load_moving
from hushtune.models.load import hash_tensors, load_model
from hushtune.models.offload import is_streamed, stored, stream, streams
from hushtune.probe import can_keep
from hushtune.session import begin, resume
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.zo import slices
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import moves
from hushtune.zo.losses import MovedLosses

TEXTS = ["good", "a bad film", "very very good", "it was not so bad", "food", "the plot was awful"]
ROWS = np.arange(len(TEXTS))
DATA = LabelledText(TEXTS, ROWS % 2, ROWS)
K = 4
FAMILIES = [
    ("encoder", {}),
    ("bert", {}),
    ("bert", {"readout": "head"}),
    ("opt", {}),
    ("gpt2", {}),
    ("llama", {}),
    ("qwen3", {}),
    ("t5", {}),
]


def _loaded(folder: str, offload: str, task: dict[str, str] | None = None) -> Any:
    labels = dict(zip(("negative", "positive"), tiny_models.SINGLE, strict=True))
    return load_model(
        ModelConfig(name=folder, offload=offload),
        TaskConfig(labels=labels, **(task or {})),
        DataConfig(max_length=32),
        seed=0,
    )


def _losses(folder: str, offload: str, tune: str = "lora", modules: tuple[str, ...] = ()) -> Any:
    # Read in one piece or not, a pass without streaming has one direction.
    shapes = [Shape(3, 32, K if offload != "none" else 1)]
    model = ModelConfig(name=folder, offload=offload)
    setting = make_setting(model, (tune, *modules), TEXTS, shapes, tiny_models.SINGLE)
    return setting.losses(shapes=shapes), setting.loaded


@pytest.fixture
def fetched(monkeypatch) -> Iterator[Counter]:
    """How often each weight is read from the checkpoint's files, by its name there."""
    counts: Counter = Counter()
    read = OffloadedWeightsLoader.__getitem__

    def counted(self: OffloadedWeightsLoader, key: str) -> Tensor:
        counts[key] += 1
        return read(self, key)

    monkeypatch.setattr(OffloadedWeightsLoader, "__getitem__", counted)
    return counts


@pytest.mark.parametrize(("family", "task"), FAMILIES)
def test_a_streamed_model_is_the_same_model(family, task, tiny):
    plain = _loaded(tiny(family), "none", task)
    inputs = plain.readout.collate([plain.readout.encode(text) for text in TEXTS], 32)
    for offload in ("cpu", "disk"):
        streamed = _loaded(tiny(family), offload, task)
        assert streams(streamed.model)
        assert streamed.base_hash == plain.base_hash
        with torch.inference_mode():
            expected = plain.readout.scores(dict(inputs))
            assert torch.equal(streamed.readout.scores(dict(inputs)), expected)
        # At rest again, where the inputs go, and tied as before.
        at_rest = [each for each in streamed.model.parameters() if is_streamed(each)]
        assert all(each.isnan().all() and not any(each.stride()) for each in at_rest)
        assert {p.device for p in at_rest} == {p.device for p in plain.model.parameters()}
        assert len(list(streamed.model.parameters())) == len(list(plain.model.parameters()))


@pytest.mark.parametrize(
    ("family", "sharing"),
    [("opt", 2), ("llama", 1), ("t5", 3), ("encoder", 1)],
)
@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_every_weight_is_fetched_once_per_micro_batch_for_all_moves(
    family, sharing, estimator, tiny, fetched
):
    expected_losses, _ = _losses(tiny(family), "none")
    losses, loaded = _losses(tiny(family), "disk")
    passes = moves(estimator, K, 1e-2)
    expected = expected_losses.at(ROWS, passes, charge=3)
    fetched.clear()
    values = losses.at(ROWS, passes, charge=3)
    # Two micro-batches; embeddings that a head shares are fetched by each module that has them.
    assert len(fetched) == sum(map(is_streamed, loaded.model.parameters()))
    *others, most = sorted(fetched.values())
    assert set(others) == {2}
    assert most == 2 * sharing
    pairs = [(v[:, :-1] - v[:, 1:]) for v in (values, expected)]
    # Not always the same bits: a larger product may round differently.
    assert np.abs(pairs[0] - pairs[1]).max() <= 1e-4 * np.abs(pairs[1]).max()


@pytest.mark.parametrize("family", ["opt", "gpt2", "qwen3", "t5"])
@pytest.mark.parametrize("small", [slices._SMALL, 0])
def test_all_parameters_move_while_they_are_in_host_memory(family, small, tiny, monkeypatch):
    monkeypatch.setattr(slices, "_SMALL", small)
    plain, _ = _losses(tiny(family), "none", "full")
    streamed, loaded = _losses(tiny(family), "cpu", "full")
    assert streams(loaded.model)
    for estimator in ("two-sided", "one-sided"):
        passes = moves(estimator, K, 1e-2)
        expected, values = (each.at(ROWS, passes, charge=3) for each in (plain, streamed))
        pairs = [(v[:, :-1] - v[:, 1:]) for v in (values, expected)]
        assert np.abs(pairs[0] - pairs[1]).max() <= 1e-4 * np.abs(pairs[1]).max()


@pytest.mark.parametrize("small", [slices._SMALL, 0])
def test_no_more_than_one_copy_of_a_large_parameter_is_there(small, tiny, monkeypatch):
    """A copy is not used any more when the next one is made, though it be in the same memory."""
    monkeypatch.setattr(slices, "_SMALL", small)
    losses, _ = _losses(tiny("gpt2"), "cpu", "full")
    passes = moves("two-sided", K, 1e-2)
    expected = losses.at(ROWS, passes, charge=3)
    memory: dict[str, Tensor] = {}
    perturbed = Directions.perturbed

    def in_one_place(self: Directions, name: str, tensor: Tensor, **options: Any) -> Tensor:
        place = memory.setdefault(name, torch.empty_like(tensor))
        return place.copy_(perturbed(self, name, tensor, **options))

    monkeypatch.setattr(Directions, "perturbed", in_one_place)
    assert np.array_equal(losses.at(ROWS, passes, charge=3), expected)


def test_frozen_layers_are_fetched_once_and_not_at_all_where_their_outputs_are_kept(tiny, fetched):
    plain, _ = _losses(tiny("opt"), "none", modules=("1.self_attn.q_proj",))
    losses, loaded = _losses(tiny("opt"), "disk", modules=("1.self_attn.q_proj",))
    assert losses.frozen_layers == 1
    passes = moves("two-sided", K, 1e-2)
    expected = plain.at(ROWS, passes, charge=3)

    def by_part() -> dict[str, set[int]]:
        parts: dict[str, set[int]] = {}
        for name, count in fetched.items():
            part = name.split(".")[3] if ".layers." in name else "other"
            parts.setdefault(part, set()).add(count)
        fetched.clear()
        return parts

    fetched.clear()
    computed = losses.at(ROWS, passes, charge=3)
    parts = by_part()
    # Two micro-batches. Embeddings are no layer: the frozen layers' pass reads them as well.
    assert parts["0"] == {2}
    assert parts["1"] == {2}
    assert np.abs(computed - expected).max() <= 1e-5
    assert can_keep(losses, loaded.readout, [Shape(3, 32, K)], 1e-2)
    fetched.clear()
    losses.keep(ROWS, limit=1 << 30)
    parts = by_part()
    assert parts["0"] == {2}
    assert "1" not in parts
    assert np.array_equal(losses.at(ROWS, passes, charge=3), computed)
    assert by_part() == {"1": {2}, "other": {2, 4}}  # the embeddings are the head's weights too


def _config(folder: str, data: str, **model: Any) -> Config:
    return from_values(
        {
            "model": {"name": folder, "lora": {"r": 2}, **model},
            "data": {"train": data, "max_length": 32},
            "task": {"labels": {"negative": "terrible", "positive": "great"}},
            "method": {"directions": 3, "steps": 4, "batch": 3.0, "micro_batch_tokens": 128},
            "privacy": {"epsilon": 4.0, "mechanism": "laplace"},
        }
    )


@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("opt", {"offload": "disk", "tune": "lora"}),
        ("llama", {"offload": "disk", "tune": "lora"}),
        ("llama", {"offload": "disk", "tune": "prefix"}),
        ("opt", {"offload": "cpu", "tune": "full"}),
    ],
)
def test_rows_do_not_touch_each_other_in_a_pass_of_all_moves(family, model, tiny, reviews):
    session = begin(_config(tiny(family), reviews, **model), units=60)
    assert {shape.directions for shape in session.shapes} == {3}
    assert max(shape.rows for shape in session.shapes) > 1
    again = resume(session.header)
    again.require_isolation()
    together, alone = session.losses(session.task(DATA)), again.losses(again.task(DATA))
    for estimator in ("two-sided", "one-sided"):
        passes = moves(estimator, 3, 1e-3)
        values = together.at(ROWS, passes, charge=1)
        for row in ROWS:
            assert np.array_equal(alone.at(ROWS[row : row + 1], passes, charge=1), values[[row]])


def test_isolation_is_tried_with_as_many_slices_as_either_estimator_has(tiny, reviews, monkeypatch):
    seen: set[int] = set()
    sliced = MovedLosses._sliced

    def noted(self: MovedLosses, inputs: Any, moves: Any, *rest: Any) -> Tensor:
        seen.add(len(moves))
        return sliced(self, inputs, moves, *rest)

    session = begin(_config(tiny("opt"), reviews, offload="disk"), units=60)
    monkeypatch.setattr(MovedLosses, "_sliced", noted)
    session.require_isolation()
    assert seen == {4, 6}


def test_updates_are_written_to_host_memory(tiny, reviews):
    sessions = [
        begin(_config(tiny("opt"), reviews, tune="full", offload=offload), units=60)
        for offload in ("none", "cpu")
    ]
    starts = [hash_tensors(session.parameters.items()) for session in sessions]
    for session in sessions:
        session.settings = sessions[0].settings
        session.plan = sessions[0].plan
        session.update().apply(0, [10**14, -(10**14), 3 * 10**13])
    ends = [hash_tensors(session.parameters.items()) for session in sessions]
    assert starts[0] == starts[1] != ends[0] == ends[1]
    expected, values = (
        session.losses(session.task(DATA)).at(ROWS, moves("two-sided", 3, 1e-3), charge=1)
        for session in sessions
    )
    assert np.abs(values - expected).max() <= 1e-5


@pytest.mark.parametrize("tune", ["full", "last-1", "bias"])
def test_what_stays_in_files_does_not_move(tune, tiny, reviews):
    with pytest.raises(ConfigError, match=r"^model.offload: disk is not accepted .*cpu or none"):
        load_moving(_config(tiny("opt"), reviews, tune=tune, offload="disk"))


class _ReadsDirectly(nn.Module):
    """Reads the weight of a module that it does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(3, 3)
        self.last = nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(rows @ self.table.weight)


def test_weights_that_are_read_behind_the_back_of_their_module_are_no_numbers():
    model = _ReadsDirectly()
    stream(model, "cpu", device=torch.device("cpu"), new=(), keep_head=False)
    assert model(torch.ones(2, 3)).isnan().all()
    assert stored(model.table.weight).isfinite().all()


@pytest.mark.parametrize(
    ("family", "flags"),
    [
        ("opt", ("--model.offload", "disk")),
        ("llama", ("--model.offload", "disk")),
        ("opt", ("--model.offload", "cpu", "--model.tune", "full")),
        ("t5", ("--model.offload", "disk", "--model.tune", "prefix")),
        ("encoder", ("--model.offload", "disk")),
        ("bert", ("--model.offload", "disk", "--task.readout", "head")),
    ],
)
def test_a_streamed_run_from_end_to_end(family, flags, tiny, reviews, tmp_path, capsys):
    def hushtune(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json"])
        assert ended.value.code == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    run = [
        *("--model.name", tiny(family), "--data.train", reviews, "--data.max-length", "32"),
        *("--task.labels", "negative", "terrible", "positive", "great", "--privacy.epsilon", "4"),
        *("--method.steps", "3", "--method.directions", "3", "--method.batch", "12"),
        *("--output", str(tmp_path / "run"), *flags),
    ]
    assert hushtune("plan", *run)["weights_streamed_from"] == flags[1]
    trained = hushtune("train", *run)
    replayed = hushtune("replay", str(tmp_path / "run"), "--out", str(tmp_path / "replayed"))
    assert replayed["same_as_trained"] is True
    assert trained["moved_sha256"] == replayed["moved_sha256"]
    saved = [*(tmp_path / "run").glob("*/*.safetensors")]
    assert saved
    for file in saved:
        twin = tmp_path / "replayed" / file.relative_to(tmp_path / "run")
        assert file.read_bytes() == twin.read_bytes()
        with safe_open(file, framework="pt") as tensors:
            assert all(tensors.get_tensor(name).isfinite().all() for name in tensors.offset_keys())
    public = str(shutil.copy(reviews, tmp_path / "public.jsonl"))
    assert hushtune("eval", str(tmp_path / "run"), "--data", public)["rows"] == 60


#: Trains, and prints the most anonymous memory that the process had, in MiB.
_MEASURED = """
import sys, threading, time
from pathlib import Path
from hushtune.cli import main

most, ready = 0, threading.Event()

def watch():
    global most
    while not ready.wait(0.02):
        lines = Path("/proc/self/status").read_text().splitlines()
        most = max(most, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

watcher = threading.Thread(target=watch)
watcher.start()
try:
    main(sys.argv[1:])
finally:
    ready.set()
    watcher.join()
    print(most // 1024)
"""


@pytest.mark.slow
def test_weights_in_files_take_no_memory(tiny, reviews, tmp_path):
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny("opt"))
    tokenizer.save_pretrained(tmp_path / "large")
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        num_hidden_layers=16,
        num_attention_heads=8,
        ffn_dim=2048,
        max_position_embeddings=64,
        word_embed_proj_dim=512,
        pad_token_id=1,
    )
    model = OPTForCausalLM(config)
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4 >> 20
    # Converted when it is read, so that nobody can map the file into memory instead.
    model.to(torch.bfloat16).save_pretrained(tmp_path / "large")
    del model
    peak = {}
    for offload in ("none", "disk"):
        flags = [
            *("train", "--model.name", str(tmp_path / "large"), "--model.offload", offload),
            *("--model.lora.r", "2", "--data.train", reviews, "--data.max-length", "16"),
            *("--task.labels", "negative", "bad", "positive", "good", "--privacy.epsilon", "4"),
            *("--method.steps", "2", "--method.directions", "2", "--method.batch", "2"),
            *("--method.micro-batch-tokens", "32", "--output", str(tmp_path / offload), "--json"),
        ]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *flags], capture_output=True, text=True, check=True
        )
        peak[offload] = int(done.stdout.splitlines()[-1])
    assert weights > 180
    assert peak["none"] - peak["disk"] > 0.8 * weights
