"""Examples of different lengths: fixed shapes, each example in the bucket of its own length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hushtune.core.bucketed import Bucketed, Example
from hushtune.tasks.batches import Shape

SHAPES = [Shape(4, 8), Shape(2, 16), Shape(2, 24)]


def example(length: int, label: int = 0) -> Example:
    return {"ids": torch.full((length,), length), "label": torch.tensor(label)}


def bucketed(data: list[Example], public: list[Example], shapes: list[Shape] = SHAPES) -> Bucketed:
    def losses(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return batch["ids"].clamp(min=0).sum(dim=1)

    order = np.arange(len(data))[::-1]
    return Bucketed(nn.Linear(1, 1), losses, data, public, order, fills={"ids": -1}, shapes=shapes)


def made_up() -> list[Example]:
    return [example(length) for length in (2, 3, 7, 12, 15, 20, 23)]


def test_an_example_is_in_the_shortest_bucket_that_has_a_column_to_spare():
    lengths = [3, 7, 8, 15, 16, 23, 3, 3]
    examples = bucketed([example(length, label=length) for length in lengths], made_up())
    found: dict[int, int] = {}
    for places, inputs in examples.micro_batches(np.arange(8)):
        rows, width = inputs["ids"].shape
        assert Shape(rows, width) in SHAPES
        for row, place in enumerate(places):
            ids = inputs["ids"][row]
            length = lengths[7 - place]  # the order is the reverse
            assert (ids[:length] == length).all()
            assert (ids[length:] == -1).all()
            assert inputs["label"][row] == length
            found[length] = width
        for ids in inputs["ids"][len(places) :]:
            assert (ids >= 0).sum() == 2  # the shortest public example fills
    assert found == {3: 8, 7: 8, 8: 16, 15: 16, 16: 24, 23: 24}


def test_shapes_in_which_nothing_public_can_be_tried_are_left_out():
    examples = bucketed([example(3)], [example(length) for length in (9, 10, 12, 20)])
    assert examples.shapes == SHAPES[1:]
    [(_, inputs)] = examples.micro_batches(np.arange(1))
    assert inputs["ids"].shape == (2, 16)
    with pytest.raises(ValueError, match="at least 3 public"):
        bucketed([example(3)], [example(3), example(4)])
    with pytest.raises(ValueError, match="no longer than the longest shape"):
        bucketed([example(3)], [example(30)] * 3)
    with pytest.raises(ValueError, match="fit into the longest shape"):
        bucketed([example(24)], made_up())


def test_a_filler_is_never_one_of_those_that_isolation_is_tried_on():
    examples = bucketed([example(3)], made_up())
    for shape in SHAPES:
        inputs = examples.of_public(shape, [0, 1, 2, 3, 4, 5, 6, 7])
        lengths = (inputs["ids"] >= 0).sum(dim=1)
        assert lengths[0] == 2
        assert (lengths[1:] > 2).all()
        assert lengths[1] == shape.length - 1  # the longest first


def test_rows_of_shapes_that_couple_are_put_apart():
    examples = bucketed([example(3), example(4), example(12)], made_up())
    examples.separate([SHAPES[0]])
    assert examples.described() == {"micro_batches": [[1, 8], [2, 16], [2, 24]]}
    shapes = [tuple(inputs["ids"].shape) for _, inputs in examples.micro_batches(np.arange(3))]
    assert shapes == [(1, 8), (1, 8), (2, 16)]
