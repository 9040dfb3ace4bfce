"""What moves is what was asked for, and what no checkpoint holds."""

from __future__ import annotations

import pytest
import torch

from hushtune.config import ConfigError, DataConfig, LoraConfig, ModelConfig, TaskConfig
from hushtune.models.load import LoadedModel, load_model
from hushtune.models.moving import add_adapters, moving_parameters


def _load(folder: str, readout: str = "auto", seed: int = 0, dtype: str = "float32") -> LoadedModel:
    task = TaskConfig(labels={"negative": "terrible", "positive": "great"}, readout=readout)
    return load_model(
        ModelConfig(name=folder, dtype=dtype), task, DataConfig(max_length=32), seed=seed
    )


@pytest.mark.parametrize(("family", "head"), [
    ("bert", "classifier"), ("roberta", "classifier"), ("opt", "score"), ("gpt2", "score"),
    ("t5", "classification_head"),
])  # fmt: skip
def test_the_head_is_what_comes_after_the_base_model(family, head, tiny):
    loaded = _load(tiny(family), "head")
    moving = moving_parameters(loaded, "head")
    assert {name.split(".")[0] for name in moving} - {"bert"} == {head}


@pytest.mark.parametrize("tune", ["bias", "last-1", "head", "lora", "full"])
def test_what_no_checkpoint_holds_moves_whatever_is_tuned(tune, tiny):
    loaded = _load(tiny("bert"), "head")
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= set(loaded.new_parameters)
    if tune == "lora":
        add_adapters(loaded, "lora", LoraConfig(), seed=0)
    moving = "".join(moving_parameters(loaded, tune))
    for module in ("classifier", "pooler.dense"):
        assert f"{module}.modules_to_save.default.weight" in moving or f"{module}.weight" in moving


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_new_parameters_come_from_the_public_seed_alone(family, tiny):
    def start(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        loaded = _load(tiny(family), "head", seed=seed)
        add_adapters(loaded, "lora", LoraConfig(), seed=seed)
        return dict(moving_parameters(loaded, "lora"))

    one, same, other = start(0, 0), start(0, 1), start(1, 0)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[n], other[n]) for n in one if ".lora_A." in n)
    assert all(one[name].count_nonzero() == 0 for name in one if ".lora_B." in name)


def test_adapters_of_a_16_bit_model_are_kept_in_32_bits(tiny):
    loaded = _load(tiny("llama"), dtype="bfloat16")
    add_adapters(loaded, "lora", LoraConfig(), seed=0)
    assert {p.dtype for p in moving_parameters(loaded, "lora").values()} == {torch.float32}


def test_last_layers_are_counted_from_the_top_of_every_stack(tiny):
    moving = moving_parameters(_load(tiny("t5")), "last-1")
    assert {tuple(name.split(".")[:3]) for name in moving} == {
        ("encoder", "block", "1"),
        ("decoder", "block", "1"),
    }
    with pytest.raises(ConfigError, match=r"last-3 is not accepted; .* has 2 layers"):
        moving_parameters(_load(tiny("bert")), "last-3")


def test_layers_that_do_not_exist_get_no_adapters(tiny):
    loaded = _load(tiny("opt"))
    with pytest.raises(ConfigError, match=r"model\.lora\.target_modules"):
        add_adapters(loaded, "lora", LoraConfig(target_modules=("nonsense",)), seed=0)


def test_a_model_without_biases_refuses_to_tune_them(tiny):
    with pytest.raises(ConfigError, match=r"model\.tune: bias is not accepted"):
        moving_parameters(_load(tiny("llama")), "bias")
