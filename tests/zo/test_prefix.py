"""Frozen lower layers run once per micro-batch, and nobody can tell from the numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tiny_models
import torch

from hushtune.config import VIRTUAL, DataConfig, LoraConfig, ModelConfig, TaskConfig
from hushtune.models.load import load_model
from hushtune.models.moving import add_adapters, moving_parameters
from hushtune.models.prompts import add_virtual_tokens
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move
from hushtune.zo.losses import MovedLosses
from hushtune.zo.prefix import FrozenPrefix, find_frozen_prefix

MOVES = [Move(0, 0.0), *(Move(k, sign * 1e-2) for k in range(3) for sign in (1, -1))]


class _Task:
    """Two examples; their losses are their first scores."""

    def __init__(self, readout) -> None:
        self.model = readout.model
        self.inputs = readout.collate([readout.encode("good"), readout.encode("bad film")], 32)
        self.losses = lambda inputs: readout.scores(inputs)[:, 0]

    def micro_batches(self, rows):
        raise NotImplementedError


def _task(folder: str, tune: str, **task: str):
    labels = dict(zip(("negative", "positive"), tiny_models.SINGLE, strict=True))
    task = TaskConfig(labels=labels, **task)
    loaded = load_model(ModelConfig(name=folder), task, DataConfig(max_length=32), seed=0)
    if tune == "upper-lora":
        add_adapters(
            loaded, "lora", LoraConfig(r=2, target_modules=("1.self_attn.q_proj",)), seed=0
        )
        tune = "lora"
    if tune in VIRTUAL:
        add_virtual_tokens(loaded, ModelConfig(name=folder, tune=tune), seed=0)
    parameters = moving_parameters(loaded, tune)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if ".lora_B." in name:
                parameter.add_(0.1)
    return _Task(loaded.readout), parameters


@pytest.mark.parametrize(("family", "tune", "task", "depth"), [
    ("bert", "last-1", {}, 1),
    ("bert", "head", {"readout": "head"}, 2),
    ("roberta", "last-1", {}, 1),
    ("gpt2", "last-1", {}, 1),
    ("gpt2", "head", {"readout": "head"}, 2),
    ("opt", "upper-lora", {}, 1),
    ("llama", "head", {}, 2),
    ("llama", "last-1", {}, 1),
    ("qwen3", "last-1", {}, 1),
    ("t5", "last-1", {}, 1),
    ("t5", "head", {"readout": "head"}, 4),
    ("encoder", "last-1", {}, 1),
    ("bert", "full", {}, 0),
    ("opt", "bias", {}, 0),
    ("gpt2", "prefix", {}, 0),
    ("bert", "prompt", {}, 0),
    ("t5", "prompt", {}, 0),
    ("t5", "prefix", {}, 2),
])  # fmt: skip
def test_sharing_saves_passes_and_changes_no_bit(family, tune, task, depth, tiny):
    task, parameters = _task(tiny(family), tune, **task)
    directions = Directions(0, {name: p.shape for name, p in parameters.items()}, "rademacher")
    scales = dict.fromkeys(parameters, 1.0)
    prefix = find_frozen_prefix(task.model, parameters, lambda: task.losses(dict(task.inputs)))
    assert prefix.depth == depth

    def evaluate(shared: FrozenPrefix) -> tuple[np.ndarray, Counter[int]]:
        losses = MovedLosses(task, parameters, scales, directions, shared)
        runs: Counter[int] = Counter()
        attentions = [
            m
            for n, m in task.model.named_modules()
            if n.rsplit(".", 1)[-1] in ("attention", "attn", "self_attn", "SelfAttention")
        ]
        hooks = [m.register_forward_hook(lambda m, *_: runs.update([id(m)])) for m in attentions]
        try:
            return losses.of_inputs(dict(task.inputs), MOVES, charge=1), runs
        finally:
            for hook in hooks:
                hook.remove()

    plain, plain_runs = evaluate(FrozenPrefix([]))
    shared, shared_runs = evaluate(prefix)
    assert np.array_equal(plain, shared)
    assert len(np.unique(plain[0])) > 1
    assert set(plain_runs.values()) == {len(MOVES)}
    assert Counter(shared_runs.values()) == Counter(
        {1: depth, len(MOVES): len(plain_runs) - depth} if depth else {len(MOVES): len(plain_runs)}
    ) - Counter({len(MOVES): 0})
    again, _ = evaluate(prefix)
    assert np.array_equal(plain, again)
    assert all("forward" not in vars(module) for module in task.model.modules())
