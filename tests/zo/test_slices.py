"""Several directions in one forward pass: the same losses, fewer passes, no row sees another."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
import torch
from moved_losses import make_setting
from torch import Tensor, nn
from torch.nn import functional

from hushtune import together as several_directions
from hushtune.config import ModelConfig, from_values
from hushtune.session import begin, resume
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.task import TextTask
from hushtune.together import few_move, filled, pays
from hushtune.zo import losses as zo_losses
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import moves
from hushtune.zo.losses import MovedLosses, Together
from hushtune.zo.prefix import FrozenPrefix
from hushtune.zo.probe import is_isolated
from hushtune.zo.slices import SlicedSubstitution

TEXTS = ["good", "a bad film", "very very good", "it was not so bad", "food", "the plot was awful"]
ROWS = np.arange(len(TEXTS))
CASES = [
    ("encoder", ("lora",), tiny_models.SINGLE, {}),
    ("bert", ("lora",), tiny_models.SINGLE, {}),
    ("bert", ("lora",), tiny_models.SINGLE, {"readout": "head"}),
    ("bert", ("bias",), tiny_models.SINGLE, {}),
    ("bert", ("full",), tiny_models.SINGLE, {}),
    ("gpt2", ("lora",), tiny_models.SEVERAL, {}),
    ("gpt2", ("lora", "wte", "c_attn"), tiny_models.SINGLE, {}),
    ("llama", ("lora",), tiny_models.SEVERAL, {}),
    ("opt", ("lora", "1.self_attn.q_proj"), tiny_models.SEVERAL, {}),
    ("qwen3", ("full",), tiny_models.SINGLE, {}),
    ("t5", ("lora",), tiny_models.SEVERAL, {}),
    ("t5", ("full",), tiny_models.SINGLE, {"readout": "head"}),
    ("llama", ("head",), tiny_models.SINGLE, {"kind": "language-modelling"}),
    ("qwen3", ("full",), tiny_models.SINGLE, {"kind": "completion"}),
    ("opt", ("lora",), tiny_models.SINGLE, {"kind": "multiple-choice"}),
    ("t5", ("lora",), tiny_models.SINGLE, {"kind": "completion"}),
    ("bert", ("prefix",), tiny_models.SINGLE, {"readout": "head"}),
    ("gpt2", ("prefix",), tiny_models.SEVERAL, {}),
    ("llama", ("prefix",), tiny_models.SINGLE, {"kind": "completion"}),
    ("t5", ("prefix",), tiny_models.SEVERAL, {}),
]


def _losses(folder: str, tune: tuple[str, ...], words: tuple[str, str], task: dict[str, str]):
    setting = make_setting(ModelConfig(name=folder), tune, TEXTS, [Shape(3, 32)], words, **task)

    def make(directions_a_pass: int, prefix: FrozenPrefix | None = None) -> MovedLosses:
        return setting.losses(prefix, [Shape(3, 32, directions_a_pass)])

    return make, setting.task


@pytest.mark.parametrize(("family", "tune", "words", "task"), CASES)
def test_losses_are_those_of_one_direction_at_a_time(family, tune, words, task, tiny, monkeypatch):
    make, task = _losses(tiny(family), tune, words, task)
    passes = moves("one-sided", 4, 1e-2)
    expected = make(1, FrozenPrefix([])).at(ROWS, passes, charge=3)
    calls: list[int] = []
    losses = TextTask.losses

    def noted(self, inputs):
        calls.append(len(inputs["labels"]))
        return losses(self, inputs)

    monkeypatch.setattr(TextTask, "losses", noted)
    several = make(4)
    values = several.at(ROWS, passes, charge=3)
    # Two micro-batches of three; the unmoved parameters have a pass of their own.
    assert calls == [3, 12, 3, 12]
    slopes, wanted = values[:, 1:] - values[:, :1], expected[:, 1:] - expected[:, :1]
    # Not always the same bits: a larger product may round differently (6e-6 at most here).
    assert np.abs(slopes - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.abs(np.corrcoef(wanted.T) - np.eye(4)).max() < 1  # the directions differ
    if several.frozen_layers:
        several.keep(ROWS, limit=1 << 30)
        assert np.array_equal(several.at(ROWS, passes, charge=3), values)


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_copies_that_are_kept_while_a_step_lasts_are_those_of_every_pass(room, tiny, monkeypatch):
    """Several groups of directions, two micro-batches, and steps between which parameters move."""
    make, task = _losses(tiny("bert"), ("lora",), tiny_models.SINGLE, {})
    passes, losses = moves("one-sided", 4, 1e-2), make(2)
    made: list[tuple[str, int, int]] = []
    perturbed = Directions.perturbed

    def noted(self, name, tensor, *, charge, direction, **where):
        made.append((name, charge, direction))
        return perturbed(self, name, tensor, charge=charge, direction=direction, **where)

    monkeypatch.setattr(Directions, "perturbed", noted)
    monkeypatch.setattr(zo_losses, "_KEPT_COPIES", room)
    for charge in (3, 4, 4):
        made.clear()
        found = losses.at(ROWS, passes, charge=charge)
        names = {name for name, _, _ in made if ".lora_" in name}
        of_lora = [each for each in made if each[0] in names]
        wanted = {(name, charge, direction) for name in names for direction in range(4)}
        assert len(names) > 2
        assert sorted(of_lora) == sorted([*wanted] * (1 if room else 2))
        # A micro-batch at a time, nothing that was made for another one is at hand.
        each = [
            losses.of_inputs(inputs, passes, charge=charge)[: len(places)]
            for places, inputs in task.micro_batches(ROWS)
        ]
        order = np.concatenate([places for places, _ in task.micro_batches(ROWS)])
        assert np.array_equal(found[order], np.concatenate(each))
        with torch.no_grad():
            for parameter in losses._parameters.values():
                parameter += 0.01


def _sliced(func, *, slices: int = 2, rows: int = 4, frozen: tuple[Tensor, ...] = ()):
    """`func` of a moving parameter of ones, to which slice k adds k."""
    parameter = nn.Parameter(torch.ones(3, 3))
    replace = [lambda _, old, k=k: old.detach() + k for k in range(slices)]
    with torch.no_grad(), SlicedSubstitution({"p": parameter}, list(frozen), replace, rows):
        return func(parameter)


def test_every_slice_of_rows_sees_its_own_parameters():
    rows = torch.arange(12.0).view(4, 3)
    own = torch.cat([torch.ones(2, 3, 3), 2 * torch.ones(2, 3, 3)])
    expected = torch.einsum("ri,roi->ro", rows, own)
    for product in (
        lambda p: functional.linear(rows, p),
        lambda p: functional.linear(rows, weight=p),
        lambda p: functional.linear(rows, p, torch.zeros(3)),
        lambda p: rows @ p.T,
        lambda p: torch.addmm(torch.zeros(3), rows, (p * 1).transpose(0, 1)),
    ):
        assert torch.equal(_sliced(product), expected)
    assert torch.equal(_sliced(lambda p: rows * p[0]), rows * own[:, 0])
    assert torch.equal(_sliced(lambda p: p[0] + rows), rows + own[:, 0])
    assert torch.equal(_sliced(lambda p: torch.cat([rows, p[:1].expand(2, 3)])).sum(),
                       rows.sum() + 2 * 3 + 2 * 6)  # fmt: skip
    means = _sliced(lambda p: torch.max(rows * p[0], dim=1).values)
    assert torch.equal(means, (rows * own[:, 0]).max(dim=1).values)


def test_rows_of_several_axes_and_sequences_are_cut_alike():
    rows = torch.arange(48.0).view(8, 2, 3)  # two sequences for each of two examples and slices
    values = _sliced(lambda p: functional.linear(rows, p))
    assert torch.equal(values, torch.cat([rows[:4].sum(-1), 2 * rows[4:].sum(-1)]).unsqueeze(-1)
                       .expand(8, 2, 3))  # fmt: skip


def test_frozen_tensors_as_long_as_the_rows_are_not_cut():
    rows, bias = torch.ones(3, 3), torch.arange(3.0)
    args = {"slices": 3, "rows": 3}
    values = _sliced(lambda p: functional.linear(rows, p, bias), frozen=(bias,), **args)
    assert torch.equal(values, torch.stack([3.0 * (k + 1) + bias for k in range(3)]))


def test_operations_on_what_does_not_move_see_all_rows_at_once():
    seen: list[int] = []

    class Note(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            seen.append(len(rows))
            return rows + 1

    _sliced(lambda p: Note()(functional.linear(torch.ones(4, 3), p)))
    assert seen == [4]


class _ManyTouch:
    """Rows that touch each other where there are more than four of them."""

    def losses(self, inputs: dict[str, Tensor]) -> Tensor:
        values = (inputs["x"] * WEIGHT).sum(dim=1)
        return values + values.mean() if len(values) > 4 else values


WEIGHT = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(("directions", "isolated"), [(1, True), (2, False)])
def test_isolation_is_tried_with_as_many_rows_as_a_pass_has(directions, isolated):
    losses = MovedLosses(
        _ManyTouch(),
        {"w": WEIGHT},
        {"w": 1.0},
        Directions(0, {"w": (3,)}, "rademacher"),
        FrozenPrefix([]),
        Together(lambda _: directions, []),
    )

    def collate(numbers):
        return {"x": torch.tensor([[number, 1.0, 2.0] for number in numbers]).sin()}

    assert is_isolated(losses, collate, 4, 1e-2, directions) is isolated


def test_directions_fill_a_pass_and_divide_those_of_a_step():
    shapes = [Shape(1, 16), Shape(3, 32), Shape(1, 128), Shape(8, 128)]
    found = filled(shapes, tokens=1024, sequences=1, directions=24)
    assert found == [Shape(1, 16, 24), Shape(3, 32, 8), Shape(1, 128, 8), Shape(8, 128, 1)]
    assert [each.directions for each in filled(shapes, tokens=1024, sequences=5, directions=7)] == [
        7, 1, 1, 1
    ]  # fmt: skip


def test_few_move_where_all_copies_are_less_than_the_model():
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 1, bias=False))
    moving = {"1.weight": model[1].weight}
    assert few_move(model, moving, 10)
    assert not few_move(model, moving, 11)


@pytest.mark.parametrize(("seconds", "worth"), [((2.0, 1.0), True), ((1.0, 2.0), False)])
def test_several_directions_must_be_faster(seconds, worth, tiny, monkeypatch):
    make, task = _losses(tiny("encoder"), ("lora",), tiny_models.SINGLE, {})
    one, several = make(1), make(4)
    times = {id(one): seconds[0], id(several): seconds[1]}
    monkeypatch.setattr(several_directions, "_seconds", lambda losses, *_: times[id(losses)])
    assert pays(one, several, task, [Shape(3, 32, 4)], 1e-2) is worth
    assert not pays(one, several, task, [Shape(3, 32, 1)], 1e-2)


def test_several_directions_must_have_the_same_slopes(tiny, monkeypatch):
    make, task = _losses(tiny("encoder"), ("lora",), tiny_models.SINGLE, {})
    one, several = make(1), make(4)
    times = {id(one): 2.0, id(several): 1.0}
    monkeypatch.setattr(several_directions, "_seconds", lambda losses, *_: times[id(losses)])
    # Rows that are not recognised as such are seen by the first slice's parameters alone.
    monkeypatch.setattr(SlicedSubstitution, "_has_rows", lambda *_: False)
    assert not pays(one, several, task, [Shape(3, 32, 4)], 1e-2)


def test_the_choice_is_recorded_and_rows_do_not_touch_each_other(
    encoder_folder, reviews, monkeypatch
):
    monkeypatch.setattr("hushtune.probe.pays", lambda *_: True)
    config = from_values(
        {
            "model": {"name": encoder_folder, "tune": "lora", "lora": {"r": 1}},
            "data": {"train": reviews, "max_length": 32},
            "task": {"labels": {"negative": "it was terrible", "positive": "it was great"}},
            "method": {"directions": 4, "steps": 4, "batch": 3.0, "micro_batch_tokens": 192},
            "privacy": {"epsilon": 4.0, "mechanism": "laplace"},
        }
    )
    session = begin(config, units=60)
    assert session.shapes == [Shape(2, 16, 4), Shape(2, 24, 4), Shape(1, 32, 4)]
    again = resume(session.header)
    assert again.shapes == session.shapes
    again.require_isolation()
    data = LabelledText(TEXTS, ROWS % 2, ROWS)
    passes = moves("two-sided", 4, 1e-3)
    together, alone = session.losses(session.task(data)), again.losses(again.task(data))
    values = together.at(ROWS, passes, charge=1)
    for row in ROWS:
        assert np.array_equal(alone.at(ROWS[row : row + 1], passes, charge=1), values[[row]])
