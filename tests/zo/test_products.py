"""Products that treat rows by their place are found, however few numbers show it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hushtune.zo import products
from hushtune.zo.products import products_are_isolated

ROWS, LENGTH, WIDTH = 6, 8, 32


@torch.library.custom_op("hushtune_tests::uneven", mutates_args=())
def uneven(rows: Tensor, weights: Tensor) -> Tensor:
    """A product whose last example is added up in double precision."""
    result = torch.matmul(rows, weights)
    result[-1] = torch.matmul(rows[-1].double(), weights.double()).float()
    return result


@pytest.fixture(autouse=True)
def _uneven_is_a_product(monkeypatch):
    monkeypatch.setitem(products._EXAMPLES, torch.ops.hushtune_tests.uneven.default, 0)


WEIGHTS = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("inference", [True, False])
def test_a_product_whose_last_row_is_added_up_differently_is_found(inference):
    # All numbers of this pass are zero: nothing of the difference is to be seen in them.
    rows = torch.zeros(ROWS, LENGTH, WIDTH)

    def evaluate():
        with torch.inference_mode(inference):
            return uneven(rows, WEIGHTS)

    result = evaluate()
    assert torch.equal(result, result[:1].expand_as(result))
    assert not products_are_isolated(evaluate, rows=ROWS, times=1)


def test_a_row_that_is_alone_has_no_place():
    rows = torch.zeros(1, LENGTH, WIDTH)
    assert products_are_isolated(lambda: uneven(rows, WEIGHTS), rows=1, times=1)


def test_products_that_hold_no_examples_may_do_as_they_like():
    weights = torch.zeros(ROWS * LENGTH + 1, WIDTH)
    assert products_are_isolated(lambda: uneven(weights, WEIGHTS), rows=ROWS, times=1)


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: torch.nn.functional.linear(x.double(), w.double(), w[0].double()),
        lambda x, w: x.double() @ w.double(),
        lambda x, w: torch.nn.functional.scaled_dot_product_attention(x, x, x),
        lambda x, w: torch.bmm(x.double(), x.double().transpose(1, 2)),
        lambda x, w: torch.nn.functional.conv1d(x.double(), w[:LENGTH, :LENGTH, None].double()),
    ],
)
def test_products_are_seen(product, inference, monkeypatch):
    """Of zeros nothing can be told; that a product was tried is told by the trial."""
    tried = []
    monkeypatch.setattr(products, "_is_isolated", lambda *seen: bool(tried.append(seen)) or True)
    rows = torch.zeros(ROWS, LENGTH, WIDTH)

    def evaluate():
        with torch.inference_mode(inference):
            return product(rows, WEIGHTS)

    assert products_are_isolated(evaluate, rows=ROWS, times=1)
    assert tried


def test_directions_of_a_pass_are_compared_each_with_itself():
    """Twice the same examples, of which the second are multiplied by other weights."""
    assert products._axis((2 * ROWS, LENGTH, WIDTH), ROWS, 2) == (0, 2)
    assert products._axis((2, ROWS * LENGTH, WIDTH), ROWS, 2) == (1, 1)
    assert products._axis((ROWS, LENGTH, WIDTH), ROWS, 2) == (0, 1)


def test_weights_are_not_copied(monkeypatch):
    """The largest tensors of a pass are its weights, of which a machine may have room for one."""
    made = []
    random = products._random
    monkeypatch.setattr(
        products, "_random", lambda tensor, *a: made.append(tensor.shape) or random(tensor, *a)
    )
    rows = torch.zeros(ROWS, LENGTH, WIDTH)
    head = torch.zeros(4096, WIDTH)
    assert products_are_isolated(lambda: torch.nn.functional.linear(rows, head), rows=ROWS, times=1)
    assert set(made) <= {rows.shape, (ROWS * LENGTH, WIDTH)}
    assert made
