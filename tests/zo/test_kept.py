"""What frozen layers return is computed once per example, and nobody can tell from the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from moved_losses import make_setting
from torch import Tensor, nn

from hushtune.config import ModelConfig, from_values
from hushtune.probe import can_keep
from hushtune.session import begin
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import read_labelled_text
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move
from hushtune.zo.kept import KeptOutputs, NotByExample
from hushtune.zo.losses import MovedLosses
from hushtune.zo.prefix import FrozenPrefix, find_frozen_prefix
from hushtune.zo.probe import keeps_exactly

MOVES = [Move(0, 0.0), *(Move(k, sign * 1e-2) for k in range(2) for sign in (1, -1))]
SHAPES = [Shape(4, 16), Shape(2, 32)]
TEXTS = [
    *(" ".join(["food", "was", "good", "very", "it"][: 1 + k % 5]) for k in range(9)),
    *("the film was awful and the plot never was so " * 2 + "bad " * k for k in range(1, 4)),
]
ROWS = np.arange(len(TEXTS))

ATTENTIONS = ("attention", "attn", "self_attn", "layer.0.SelfAttention")

#: Rows of a step: none, one, some in any order, all.
STEPS = [np.array(rows, dtype=int) for rows in ([], [9], [4, 11, 2, 0, 7], [10, 3, 9, 8])]
STEPS.append(ROWS[::-1])

LAST = ("lora", "1.self_attn.q_proj")
CASES = [
    ("encoder", ("last-1",), tiny_models.SINGLE, {}, 1),
    ("encoder", ("lora", "layer.1.attention.self.query"), tiny_models.SINGLE, {}, 1),
    ("bert", ("last-1",), tiny_models.SINGLE, {}, 1),
    ("bert", ("head",), tiny_models.SINGLE, {"readout": "head"}, 2),
    ("gpt2", ("last-1",), tiny_models.SINGLE, {}, 1),
    ("gpt2", ("last-1",), tiny_models.SEVERAL, {}, 1),
    ("opt", LAST, tiny_models.SEVERAL, {}, 1),
    ("llama", ("last-1",), tiny_models.SEVERAL, {}, 1),
    ("t5", ("last-1",), tiny_models.SEVERAL, {}, 1),
    ("t5", ("head",), tiny_models.SINGLE, {"readout": "head"}, 4),
]


def _losses(folder: str, tune: tuple[str, ...], words: tuple[str, str], task: dict[str, str]):
    setting = make_setting(ModelConfig(name=folder), tune, TEXTS, SHAPES, words, **task)
    return setting.losses(FrozenPrefix([])), setting.losses(), setting.loaded.readout


@contextmanager
def _counted(losses: MovedLosses) -> Iterator[list[int]]:
    """Notes the number of sequences whenever one of the frozen layers computes anything."""
    sequences: list[int] = []

    def note(_module: nn.Module, _args: object, _kwargs: object, output: Any) -> None:
        sequences.append(len(output[0] if isinstance(output, tuple) else output))

    # Inside the layers: where a layer returns what was kept, nothing inside it runs.
    hooks = [
        module.register_forward_hook(note, with_kwargs=True)
        for layers in losses._prefix._stacks
        for layer in layers
        for name, module in layer.named_modules()
        if name in ATTENTIONS
    ]
    assert len(hooks) == losses.frozen_layers
    try:
        yield sequences
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(("family", "tune", "words", "task", "depth"), CASES)
def test_frozen_layers_run_once_per_example_and_no_bit_changes(
    family, tune, words, task, depth, tiny
):
    plain, losses, readout = _losses(tiny(family), tune, words, task)
    expected = [plain.at(rows, MOVES, charge=charge) for charge, rows in enumerate(STEPS)]
    assert losses.frozen_layers == depth
    assert can_keep(losses, readout, SHAPES, 1e-2)
    with _counted(losses) as sequences:
        losses.keep(ROWS, limit=1 << 30)
        batches = list(losses._task.micro_batches(ROWS))
        assert len(sequences) == depth * len(batches)
        assert len({inputs["input_ids"].shape[1] for _, inputs in batches}) == 2
        sequences.clear()
        for charge, rows in enumerate(STEPS):
            values = losses.at(rows, MOVES, charge=charge)
            assert np.array_equal(values, expected[charge])
            assert not len(rows) or len(np.unique(values)) > len(rows)
        assert not sequences


def test_what_there_is_no_room_for_is_computed_in_every_step(tiny):
    plain, losses, _ = _losses(tiny("bert"), ("last-1",), tiny_models.SINGLE, {})
    losses.keep(ROWS, limit=5 * 16 * 32 * 4)  # five short texts, float32, width 32
    assert losses.kept.bytes == 5 * 16 * 32 * 4
    assert list(np.flatnonzero(losses.kept.holds(ROWS))) == [0, 1, 2, 3, 4]
    rows = np.array([8, 0, 5, 1, 6, 2, 7, 3])
    expected = plain.at(rows, MOVES, charge=0)
    with _counted(losses) as sequences:
        assert np.array_equal(losses.at(rows, MOVES, charge=0), expected)
        assert sequences == [4]  # rows that are kept stand together in the other micro-batch


def test_what_is_kept_of_a_micro_batch_is_one_piece_of_memory():
    kept_outputs = KeptOutputs(limit=3 * 5 * 4)
    kept_outputs.add(np.array([7, 3, 5, 1]), [torch.arange(6 * 5.0).view(6, 5)], 6)
    assert list(kept_outputs.holds(np.array([7, 3, 5, 1]))) == [True, True, True, False]
    pieces = {row: each.part[0].untyped_storage() for row, each in kept_outputs._rows.items()}
    assert len({piece.data_ptr() for piece in pieces.values()}) == 1
    assert pieces[7].nbytes() == kept_outputs.bytes == 3 * 5 * 4


def test_outputs_of_another_micro_batch_are_put_together_again():
    kept_outputs = KeptOutputs(limit=1 << 20)
    values = torch.arange(3 * 2 * 5.0).view(6, 5)  # two sequences an example
    kept_outputs.add(np.array([7, 3]), [[(values, None, [values + 100])]], 3)
    assert kept_outputs.outputs(np.array([3, 5])) is None
    (((whole, nothing, (other,)),),) = kept_outputs.outputs(np.array([3]))
    assert torch.equal(whole, torch.cat([values[2:4], torch.zeros(4, 5)]))
    assert torch.equal(other, torch.cat([values[2:4] + 100, torch.zeros(4, 5)]))
    assert nothing is None
    assert kept_outputs.bytes == 2 * 2 * (2 * 5 * 4)


def test_what_is_common_to_all_examples_is_kept_once():
    kept_outputs = KeptOutputs(limit=1 << 20)
    for rows in ([0, 1], [2]):
        bias = torch.arange(12.0).view(1, 3, 4).transpose(1, 2)
        kept_outputs.add(np.array(rows), [[(torch.ones(2, 5), bias)]], 2)
    assert kept_outputs.bytes == 3 * 5 * 4 + 12 * 4
    (((whole, common),),) = kept_outputs.outputs(np.array([2, 0]))
    assert whole.shape == (2, 5)
    assert torch.equal(common, bias)
    assert common.stride() == bias.stride()


@pytest.mark.parametrize("output", [torch.zeros(5, 2), torch.tensor(1.0), {"hidden": 1}])
def test_outputs_that_are_not_by_example_are_refused(output):
    with pytest.raises(NotByExample):
        KeptOutputs(limit=1 << 20).add(np.array([0]), [[output]], 2)


class _Bottom(nn.Module):
    """Returns a row per example and a table that is no row per example, but as long."""

    def __init__(self, rows: int, table: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self._table = torch.arange(rows * 3.0).view(rows, 3) if table else torch.zeros(rows, 3)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return hidden * self.weight, self._table


class _Top(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return ((both[0] + both[1].sin()) * self.weight).sum(dim=1)


@pytest.mark.parametrize("table", [False, True])
def test_the_probe_sees_what_only_looks_like_a_row_per_example(table):
    model = nn.Module()
    model.layers = nn.ModuleList([_Bottom(4, table), _Top()])

    class Task:
        def losses(self, inputs: dict[str, Tensor]) -> Tensor:
            return model.layers[1](model.layers[0](inputs["x"]))

    def collate(numbers: Sequence[int]) -> dict[str, Tensor]:
        return {"x": torch.tensor([[number, 1.0, 2.0] for number in numbers]).sin()}

    moving = {"top": model.layers[1].weight}
    prefix = find_frozen_prefix(model, moving, lambda: Task().losses(collate([1, 2, 3, 4])))
    assert prefix.depth == 1
    directions = Directions(0, {"top": (3,)}, "rademacher")
    losses = MovedLosses(Task(), moving, {"top": 1.0}, directions, prefix)
    assert keeps_exactly(losses, collate, 4, 1e-2) is not table


@pytest.mark.parametrize(("steps", "keeps"), [(4, False), (12, True)])
def test_a_run_keeps_outputs_where_rows_come_up_repeatedly(steps, keeps, encoder_folder, reviews):
    config = from_values(
        {
            "model": {"name": encoder_folder, "tune": "last-1"},
            "data": {"train": reviews, "max_length": 32},
            "task": {"labels": {"negative": "it was terrible", "positive": "it was great"}},
            "method": {"directions": 2, "steps": steps, "batch": 12.0},
            "privacy": {"epsilon": 4.0, "mechanism": "laplace"},
        }
    )
    data = read_labelled_text(reviews, config.data, config.task, with_units=True)
    session = begin(config, units=data.units)
    losses = session.losses(session.task(data))
    assert isinstance(losses, MovedLosses)
    assert set(losses.kept.holds(np.arange(60))) == {keeps}
