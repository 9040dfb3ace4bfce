"""Scratch is as small as the largest operation; embeddings are made row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hushtune.zo import perturbed
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move
from hushtune.zo.perturbed import Perturbed, Scratch

WORDS, WIDTH = 100, 64


class Small(nn.Module):
    """Every operation whose copies go through scratch, and a few whose do not."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 3 * WIDTH)
        self.narrow = nn.Linear(3 * WIDTH, WIDTH)
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.norm(self.embedding(numbers)) * self.gain
        x = self.narrow(torch.relu(self.wide(x)))
        y = torch.addmm(self.narrow.bias, x[0], self.wide.weight[:WIDTH])
        return functional.linear(y, self.embedding.weight) + x.mean()


class Counting(Directions):
    """Notes what was made."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(7, {name: each.shape for name, each in model.named_parameters()})
        self.made: list[str] = []

    def perturbed(self, name, tensor, **options):
        self.made.append(name)
        return super().perturbed(name, tensor, **options)


def at(model: nn.Module, scratch: Scratch, directions: Directions) -> Perturbed:
    parameters = dict(model.named_parameters())
    scales = dict.fromkeys(parameters, 1.0)
    return Perturbed(parameters, scales, directions, Move(2, 0.1), charge=3, scratch=scratch)


def really_moved(model: nn.Module, directions: Directions) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(directions.perturbed(name, parameter, charge=3, direction=2, scale=0.1))


@pytest.mark.parametrize("few", [True, False])
def test_what_operations_see_and_how_much_memory_it_takes(few):
    model = Small()
    scratch, directions = Scratch(), Counting(model)
    numbers = torch.randint(WORDS, (2, 8 if few else WORDS))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with torch.inference_mode(), at(model, scratch, directions):
        seen = [model(numbers), model(numbers)]
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    really_moved(model, directions)
    expected = model(numbers)
    assert torch.equal(seen[0], expected)
    assert torch.equal(seen[1], expected)
    # The largest operation reads a matrix and a bias, each of which starts on a cache line.
    assert scratch.bytes == 4 * (3 * WIDTH * WIDTH + 3 * WIDTH)


def test_an_embedding_is_made_whole_only_where_most_of_it_is_read():
    model = Small()
    for rows, made in ((8, 1), (WORDS, 2)):
        directions = Counting(model)
        with torch.inference_mode(), at(model, Scratch(), directions):
            model(torch.randint(WORDS, (1, rows)))
        # The last operation reads all of it in any case.
        assert directions.made.count("embedding.weight") == made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (0, 5)])
def test_a_large_matrix_is_never_there_at_once(monkeypatch, shape, bias, dtype):
    monkeypatch.setitem(perturbed._BLOCK, "cpu", 64)
    model = nn.Linear(5, 100, bias=bias, dtype=dtype)
    scratch, directions = Scratch(), Counting(model)
    numbers = torch.randn(shape, dtype=dtype)
    with torch.inference_mode(), at(model, scratch, directions):
        seen = model(numbers)
    assert directions.made == ["bias"] * bias
    # Twelve rows of five, and the bias; copies start on cache lines.
    assert scratch.bytes == dtype.itemsize * (64 + 128 * bias)
    really_moved(model, directions)
    torch.testing.assert_close(seen, model(numbers).detach())


def test_a_matrix_is_whole_where_a_block_would_not_do(monkeypatch):
    monkeypatch.setitem(perturbed._BLOCK, "cpu", 64)
    model = nn.Linear(5, 100)
    directions = Counting(model)
    with torch.enable_grad(), at(model, Scratch(), directions):
        model(torch.randn(3, 5, requires_grad=True)).sum().backward()
    with torch.no_grad(), at(model, Scratch(), directions), torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(3, 5)).dtype == torch.bfloat16
    assert directions.made.count("weight") == 2


def test_an_embedding_that_normalises_is_left_to_torch():
    weight = nn.Parameter(torch.randn(WORDS, WIDTH))
    directions = Directions(7, {"weight": weight.shape})
    numbers = torch.arange(4)
    moved = directions.perturbed("weight", weight, charge=3, direction=2, scale=0.1)
    mode = Perturbed(
        {"weight": weight}, {"weight": 1.0}, directions, Move(2, 0.1), charge=3, scratch=Scratch()
    )
    with torch.no_grad(), mode:
        seen = functional.embedding(numbers, weight, max_norm=1.0)
    assert torch.equal(seen, functional.embedding(numbers, moved, max_norm=1.0))
