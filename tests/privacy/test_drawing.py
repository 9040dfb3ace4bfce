"""Secret draws of a search: exactly distributed, whatever the bits; and never from a seed."""

from __future__ import annotations

import itertools
from collections import Counter
from decimal import Decimal, getcontext

import pytest

from hushtune.privacy.accounting.stopping import NegativeBinomial, Poisson, Stopping
from hushtune.privacy.drawing import SecretDraws, runs_at

getcontext().prec = 60

STOPPINGS = [
    Poisson(0.5),
    Poisson(4.965114231744257),
    Poisson(60.0),
    NegativeBinomial(0.0, 0.0269),
    NegativeBinomial(0.5, 0.1),
    NegativeBinomial(1.0, 0.25),
    NegativeBinomial(2.5, 0.3),
]


class Bytes:
    """A source whose bytes are known, and that ends."""

    def __init__(self, content: bytes) -> None:
        self.left = content

    def __call__(self, count: int) -> bytes:
        drawn, self.left = self.left[:count], self.left[count:]
        assert len(drawn) == count, "more bytes were drawn than there are"
        return drawn


def at_most(stopping: Stopping, runs: int) -> Decimal:
    """Pr[K ≤ runs], from the closed forms of the probabilities."""
    if isinstance(stopping, Poisson):
        rate = Decimal(stopping.rate)
        weights, whole, weight = [], rate.exp() - 1, Decimal(1)
        for count in range(1, runs + 1):
            weight *= rate / count
            weights.append(weight)
        return sum(weights, Decimal(0)) / whole
    assert isinstance(stopping, NegativeBinomial)
    shape, gamma = Decimal(stopping.shape), Decimal(stopping.gamma)
    total = Decimal(0)
    for count in range(1, runs + 1):
        if shape == 0:
            total += (1 - gamma) ** count / (count * (1 / gamma).ln())
            continue
        product = Decimal(1)
        for place in range(count):
            product *= (place + shape) / (place + 1)
        total += (1 - gamma) ** count / (gamma**-shape - 1) * product
    return total


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
def test_the_number_of_runs_changes_exactly_where_the_distribution_function_does(stopping):
    for runs in (1, 2, 3, 7):
        border = int(at_most(stopping, runs) * 2**128)
        if border < 2**70 or border > 2**128 - 2**70:
            continue
        below, above = border - 2, border + 2
        assert runs_at(stopping, below, 128) == runs
        assert runs_at(stopping, above, 128) == runs + 1
        # 64 bits cannot tell, and more are drawn.
        assert runs_at(stopping, border >> 64, 64) is None
        for number, expected in ((below, runs), (above, runs + 1)):
            source = Bytes(number.to_bytes(16, "big"))
            assert SecretDraws(random_bytes=source).number_of_runs(stopping) == expected


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
def test_of_all_numbers_of_so_many_bits_each_count_has_its_share(stopping):
    """Of 256 equally likely beginnings, those that settle K are as many as they should be."""
    settled = Counter(runs_at(stopping, number, 8) for number in range(256))
    for runs in (1, 2, 3, 4, 5, 10):
        units = 256 * (at_most(stopping, runs) - at_most(stopping, runs - 1))
        assert settled[runs] <= units <= settled[runs] + 2, runs


def test_the_ends_are_settled():
    stopping = NegativeBinomial(0.0, 0.0269)
    assert runs_at(stopping, 0, 64) == 1
    # The last number of 64 bits is far out; with more bits it is told.
    assert runs_at(stopping, 2**64 - 1, 64) is None
    source = Bytes(b"\xff" * 8 + bytes(8))
    assert SecretDraws(random_bytes=source).number_of_runs(stopping) > 1000


def test_what_follows_the_last_weight_is_allowed_for():
    """One run has a little less than a half, by less than the weights that are left out."""
    stopping = NegativeBinomial(1.0, 0.5 - 2**-54)
    assert runs_at(stopping, 2**15 - 1, 16) is None
    assert runs_at(stopping, 2**15 - 2, 16) == 1
    assert runs_at(stopping, 2**15 + 1, 16) == 2


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 18, 255, 256])
def test_a_choice_is_uniform(bound):
    drawn = Counter()
    for first in range(256):
        # What is rejected takes the byte that follows, which is a zero.
        source = Bytes(bytes([first, 0]))
        draws = SecretDraws(random_bytes=source)
        value = draws.below(bound)
        if len(source.left) == 1:
            drawn[value] += 1
    assert set(drawn) == set(range(bound))
    assert len(set(drawn.values())) == 1


def test_a_choice_of_more_than_a_byte_reaches_all():
    source = Bytes(bytes(itertools.chain.from_iterable((high, 0x2B) for high in range(2))))
    draws = SecretDraws(random_bytes=source)
    assert [draws.below(300), draws.below(300)] == [0x2B, 0x12B]


def test_what_is_drawn_without_a_source_comes_from_the_system(monkeypatch):
    asked = []

    def urandom(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    monkeypatch.setattr("os.urandom", urandom)
    draws = SecretDraws()
    assert draws.number_of_runs(Poisson(5.0)) == 1
    assert draws.below(9) == 0
    assert asked == [8, 1]
