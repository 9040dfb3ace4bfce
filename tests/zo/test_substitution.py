"""Operations see moved parameters; the parameters themselves stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor

from hushtune.config import DataConfig, LoraConfig, ModelConfig, TaskConfig
from hushtune.models.load import LoadedModel, load_model
from hushtune.models.moving import add_adapters, moving_parameters
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move
from hushtune.zo.perturbed import Perturbed, Scratch
from hushtune.zo.substitution import Substitution, parameters_reached

CASES = [
    ("bert", "full", {}),
    ("roberta", "full", {}),
    ("gpt2", "full", {}),
    ("opt", "full", {}),
    ("llama", "full", {}),
    ("qwen3", "full", {}),
    ("t5", "full", {}),
    ("encoder", "full", {}),
    ("t5", "full", {"readout": "head"}),
    ("bert", "bias", {}),
    ("bert", "lora", {"readout": "head"}),
    ("gpt2", "lora", {}),
    ("t5", "lora", {}),
    ("encoder", "lora", {}),
]


def _load(folder: str, tune: str, dtype: str = "float32", **task: str):
    labels = dict(zip(("negative", "positive"), tiny_models.SEVERAL[:2], strict=True))
    if task.get("readout") != "head" and "bert" in folder:
        labels = dict(zip(labels, tiny_models.SINGLE, strict=True))
    loaded = load_model(
        ModelConfig(name=folder, dtype=dtype),  # type: ignore[arg-type]
        TaskConfig(labels=labels, **task),  # type: ignore[arg-type]
        DataConfig(max_length=32),
        seed=0,
    )
    if tune == "lora":
        add_adapters(loaded, "lora", LoraConfig(r=2), seed=0)
    parameters = moving_parameters(loaded, tune)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if ".lora_B." in name:  # zero, which would hide A
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    return loaded, parameters


def _scores(loaded: LoadedModel) -> Tensor:
    readout = loaded.readout
    return readout.scores(readout.collate([readout.encode("good"), readout.encode("bad")], 32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("family", "tune", "task"), CASES)
def test_scores_are_those_of_really_moved_weights(family, tune, task, dtype, tiny):
    loaded, parameters = _load(tiny(family), tune, dtype, **task)
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    directions = Directions(3, shapes, "rademacher")
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    with torch.inference_mode():
        unmoved = _scores(loaded)

    def moved(name: str, parameter: Tensor) -> Tensor:
        return directions.perturbed(name, parameter, charge=5, direction=1, scale=0.03)

    with torch.inference_mode(), Substitution(parameters, moved):
        substituted = _scores(loaded)
    where = Move(1, 0.03)
    scales = dict.fromkeys(parameters, 1.0)
    perturbed = Perturbed(parameters, scales, directions, where, charge=5, scratch=Scratch())
    with torch.inference_mode(), perturbed:
        in_scratch = _scores(loaded)
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name

    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(moved(name, parameter))
        really_moved = _scores(loaded)
    assert torch.equal(substituted, really_moved)
    assert torch.equal(in_scratch, really_moved)
    assert not torch.equal(substituted, unmoved)


def test_tied_weights_move_once_in_one_direction(tiny):
    loaded, parameters = _load(tiny("gpt2"), "full")
    names = [name for name in parameters if "wte" in name or "lm_head" in name]
    assert names == ["transformer.wte.weight"]
    seen: list[np.ndarray] = []

    def note(name: str, parameter: Tensor) -> Tensor:
        if name in names:
            seen.append(parameter.detach().numpy())
        return parameter

    with Substitution(parameters, note):
        _scores(loaded)
    assert len(seen) == 2  # embedding and head


def test_questions_about_a_parameter_are_not_answered_with_a_moved_copy():
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    asked: list[str] = []

    def note(name: str, parameter: Tensor) -> Tensor:
        asked.append(name)
        return parameter

    with Substitution({"p": parameter}, note):
        _ = parameter.shape, parameter.size(0), parameter.dtype, parameter.dim(), parameter.device
        assert not asked
        for count, read in enumerate(
            (
                lambda: parameter + 1,
                lambda: parameter.T,
                lambda: parameter[0],
                lambda: parameter.data,
                lambda: torch.stack([parameter, torch.ones(2, 3)]),
                lambda: torch.nn.functional.linear(torch.ones(1, 3), weight=parameter),
            ),
            start=1,
        ):
            read()
            assert len(asked) == count


def test_parameters_that_do_not_change_the_scores_are_not_reached(tiny):
    loaded, parameters = _load(tiny("encoder"), "full")
    reached = parameters_reached(parameters, lambda: _scores(loaded))
    pooler = {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}
    assert parameters.keys() - reached == pooler


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_every_parameter_of_a_language_model_is_reached(family, tune, tiny):
    loaded, parameters = _load(tiny(family), tune)
    assert parameters_reached(parameters, lambda: _scores(loaded)) == set(parameters)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
