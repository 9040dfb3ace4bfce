"""Models in which examples touch each other are refused, with the path of what couples them."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from conftest import write_reviews
from torch import nn

from hushtune import loading, probe
from hushtune import session as sessions
from hushtune.config import Config, ConfigError, DataConfig, from_values
from hushtune.models.isolation import CouplingError, refuse_coupling
from hushtune.models.load import load_model
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.steps import PrivateSteps
from hushtune.tasks.data import read_labelled_text
from hushtune.trainer import train
from hushtune.zo.probe import ProbeError, Slopes, _companies


def make_config(folder: str) -> Config:
    """A private run that moves all parameters."""
    return from_values(
        {
            "model": {"name": folder, "tune": "full"},
            "data": {"train": "unused", "max_length": 32},
            "task": {
                "labels": dict(zip(("negative", "positive"), tiny_models.SINGLE, strict=True))
            },
            "method": {"directions": 2, "steps": 3, "batch": 4.0, "micro_batch_tokens": 256},
            "privacy": {"epsilon": 4.0, "mechanism": "laplace"},
        }
    )


def named(name: str) -> nn.Module:
    """A module of a class of that name, as one of a package that is not installed here."""
    return type(name, (nn.Module,), {})()


COUPLING = [
    nn.BatchNorm1d(2),
    nn.BatchNorm3d(2, track_running_stats=False),
    nn.SyncBatchNorm(2),
    nn.LazyBatchNorm2d(),
    named("FrozenBatchNorm2d"),
    named("Linear8bitLt"),  # bitsandbytes' LLM.int8
]


@pytest.mark.parametrize("module", COUPLING, ids=lambda module: type(module).__name__)
def test_a_module_that_couples_examples_is_refused_by_its_path(module):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(module))
    with pytest.raises(CouplingError, match=rf"1\.0 is a {type(module).__name__} and couples"):
        refuse_coupling(model)


SEPARATE = [
    nn.LayerNorm((4, 3)),
    nn.RMSNorm(3),
    nn.GroupNorm(2, 4),
    nn.InstanceNorm1d(4),
    nn.InstanceNorm1d(4, track_running_stats=True),  # in evaluation mode they stand still
    nn.Dropout(0.5),
    nn.TransformerEncoderLayer(3, 1, 5, batch_first=True),
]


@pytest.mark.parametrize("module", SEPARATE, ids=lambda module: type(module).__name__)
def test_a_module_that_treats_rows_separately_is_accepted(module):
    refuse_coupling(nn.Sequential(module))
    rows = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    others = torch.cat([1000 * rows[:3], rows[3:]])
    with torch.inference_mode():
        assert torch.equal(module.eval()(rows)[3:], module(others)[3:])


def test_a_mixture_of_experts_is_refused_by_its_path(tiny):
    config = make_config(tiny("mixtral"))
    with pytest.raises(CouplingError, match=r"model\.layers\.0\.mlp is a MixtralSparseMoeBlock"):
        load_model(config.model, config.task, DataConfig(max_length=32), seed=0)


def experts() -> Iterator[tuple[str, set[str]]]:
    """Classes of transformers that call a part of theirs `experts`, and the classes of that part;
    and those that transformers runs on batches of tokens of one expert."""
    models = Path(transformers.__file__).parent / "models"
    for file in sorted(models.glob("*/modeling_*.py")):
        source = file.read_text()
        if "experts" not in source:
            continue
        for node in ast.parse(source).body:
            if not isinstance(node, ast.ClassDef):
                continue
            parts = {
                call.func.id
                for call in (part.value for part in ast.walk(node) if is_experts(part))
                if isinstance(call.func, ast.Name)
            }
            decorators = {getattr(each, "id", "") for each in node.decorator_list}
            if parts or "use_experts_implementation" in decorators:
                yield node.name, parts


def is_experts(node: ast.AST) -> bool:
    """Whether it is `self.experts = …(…)`."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and any(getattr(target, "attr", "") == "experts" for target in node.targets)
    )


def is_refused(name: str) -> bool:
    try:
        refuse_coupling(nn.Sequential(named(name)))
    except CouplingError:
        return True
    return False


def test_all_mixtures_of_experts_of_transformers_are_refused():
    found = dict(experts())
    assert len(found) > 50
    # The first holds parallel experts further down; the second is no text model.
    known = {"JetMoeAttention", "VitPoseBackboneMoeMLP"}
    accepted = [name for name, parts in found.items() if not any(map(is_refused, {name, *parts}))]
    assert not set(accepted) - known


def test_experts_of_limited_capacity_are_refused_by_their_path():
    config = transformers.SwitchTransformersConfig(
        vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_sparse_encoder_layers=1,
        num_decoder_layers=2, num_sparse_decoder_layers=1, num_heads=2, num_experts=2,
    )  # fmt: skip
    model = transformers.SwitchTransformersForConditionalGeneration(config)
    path = r"encoder\.block\.\d\.layer\.\d\.mlp is a SwitchTransformersSparseMLP"
    with pytest.raises(CouplingError, match=path):
        refuse_coupling(model)


def test_rotary_positions_that_remember_longer_texts_are_refused(tiny):
    config = make_config(tiny("llama"))
    loaded = load_model(config.model, config.task, DataConfig(max_length=32), seed=0)
    loaded.model.model.rotary_emb.rope_type = "dynamic"
    with pytest.raises(CouplingError, match=r"model\.rotary_emb has dynamic rotary positions"):
        refuse_coupling(loaded.model)


@pytest.mark.parametrize("rope_type", ["default", "linear", "yarn", "llama3"])
def test_rotary_positions_that_stand_still_are_accepted(rope_type, tiny):
    config = make_config(tiny("llama"))
    loaded = load_model(config.model, config.task, DataConfig(max_length=32), seed=0)
    loaded.model.model.rotary_emb.rope_type = rope_type
    refuse_coupling(loaded.model)


def test_rotary_positions_of_some_layers_that_remember_longer_texts_are_refused():
    rotary = {"factor": 2.0, "rope_theta": 10_000.0}
    config = transformers.Gemma3TextConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, head_dim=16, intermediate_size=16, max_position_embeddings=16,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "dynamic", **rotary},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    )  # fmt: skip
    model = transformers.Gemma3ForCausalLM(config).eval()
    with torch.inference_mode():
        before = model(torch.arange(18)[None]).logits
        model(torch.arange(40)[None])
        assert not torch.equal(model(torch.arange(18)[None]).logits, before)
    with pytest.raises(CouplingError, match=r"model\.rotary_emb has dynamic rotary positions"):
        refuse_coupling(model)


def couples(model: nn.Module) -> bool:
    """Whether a large row changes what the others give."""
    rows = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    others = torch.cat([rows[:3], 50 * rows[3:]])
    with torch.inference_mode():
        return not torch.equal(model(rows)[:3], model(others)[:3])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dynamic_quantisation_of_activations_is_refused_by_its_path():
    model = nn.Sequential(nn.Linear(64, 64))
    model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert couples(model)
    with pytest.raises(CouplingError, match=r"0 is a .*Linear and couples"):
        refuse_coupling(model)


def test_activation_scales_over_the_batch_are_refused_by_their_path():
    quantisation = pytest.importorskip("torchao.quantization", exc_type=ImportError)
    model = nn.Sequential(nn.Linear(64, 64))
    chosen = quantisation.Int8DynamicActivationInt8WeightConfig(
        granularity=quantisation.PerTensor()
    )
    quantisation.quantize_(model, chosen)
    assert couples(model)
    with pytest.raises(CouplingError, match=r"0 is a Linear and couples"):
        refuse_coupling(model)


def remembers(scores):
    """A running mean, whatever the micro-batch."""
    running = [torch.tensor(0.0)]

    def coupled(inputs):
        values = scores(inputs)
        running[0] = 0.9 * running[0] + 0.1 * values.detach().abs().mean()
        return values * (1 + 1e-3 * running[0])

    return coupled


def draws(scores):
    """A forward pass that draws random numbers, as hashed attention does."""

    def noisy(inputs):
        values = scores(inputs)
        return values + 1e-3 * torch.randn_like(values)

    return noisy


@pytest.mark.parametrize("fault", [remembers, draws])
def test_the_probe_refuses_a_model_whose_passes_depend_on_earlier_ones(fault, tiny, monkeypatch):
    config = make_config(tiny("bert"))
    load = loading.load_model

    def faulty(*arguments, **options):
        loaded = load(*arguments, **options)
        loaded.readout.scores = fault(loaded.readout.scores)
        return loaded

    monkeypatch.setattr(loading, "load_model", faulty)
    chosen = 1e-3, Slopes(typical=1.0, agreement=1.0)
    monkeypatch.setattr(probe, "choose_scale", lambda *_, **__: chosen)
    with pytest.raises(ProbeError):
        sessions.begin(config, units=12)


def at_most_the_largest(scores):
    """A loss that knows the largest score of its batch, a coupling that no order of rows shows."""

    def coupled(inputs):
        values = scores(inputs)
        return values - values.max()

    return lambda inputs: coupled(inputs).exp()


def test_the_probe_sees_a_coupling_that_is_the_same_for_all_rows(tiny, monkeypatch):
    config = make_config(tiny("bert"))
    load = loading.load_model

    def faulty(*arguments, **options):
        loaded = load(*arguments, **options)
        loaded.readout.scores = at_most_the_largest(loaded.readout.scores)
        return loaded

    assert max(shape.rows for shape in sessions.begin(config, units=12).shapes) > 1
    monkeypatch.setattr(loading, "load_model", faulty)
    assert {shape.rows for shape in sessions.begin(config, units=12).shapes} == {1}


def test_tokens_without_an_embedding_are_refused(tiny, tmp_path):
    """A text with such a token would end the run, whenever it is sampled."""
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match="'zebra', beyond the model's"):
        sessions.begin(make_config(str(folder)), units=12)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 64, 65])
def test_the_probe_sees_each_row_without_each_other_one(rows):
    kept = _companies(rows)
    assert (~kept.all(axis=1)).all()  # and a lone row after something else
    for row in range(rows):
        others = np.delete(np.arange(rows), row)
        assert (~kept[kept[:, row]][:, others]).any(axis=0).all()


def test_nothing_is_trained_where_isolation_was_not_tried(tiny, tmp_path):
    data = write_reviews(tmp_path / "data.jsonl", 12)
    session = sessions.begin(make_config(tiny("bert")), units=12, try_isolation=False)
    rows = read_labelled_text(data, session.config.data, session.config.task, with_units=True)
    with Ledger(tmp_path / "ledger.jsonl", session.header) as ledger:
        steps = PrivateSteps(ledger, units=rows.units)
        with pytest.raises(ValueError, match="whose isolation of examples was tried"):
            train(session, rows, steps)
        assert ledger.charges == 0
        session.require_isolation()
        train(session, rows, steps)
        assert ledger.charges == session.plan.steps


class _Forgetful:
    """A read-out whose scores change from pass to pass, in the shapes it is told to."""

    def __init__(self, readout, lengths: set[int]) -> None:
        self._readout = readout
        self._lengths = lengths
        self._passes = 0

    def __getattr__(self, name: str):
        return getattr(self._readout, name)

    def scores(self, inputs):
        self._passes += 1
        scores = self._readout.scores(inputs)
        changes = inputs["input_ids"].shape[1] in self._lengths
        return scores + self._passes if changes else scores


@pytest.mark.parametrize("rows", [1, 4])
def test_scores_that_change_from_pass_to_pass_are_refused_in_every_shape(rows, tiny):
    config = make_config(tiny("bert"))
    readout = load_model(config.model, config.task, config.data, seed=0).readout
    shapes = [probe.Shape(1, 16), probe.Shape(rows, 24)]
    assert [shape.length for shape in probe.isolated_shapes(readout, shapes)] == [16, 24]
    forgetful: Any = _Forgetful(readout, {24})
    with pytest.raises(ProbeError, match="change from one forward pass to the next"):
        probe.isolated_shapes(forgetful, shapes)
