"""Moments are bounded whatever the update; a prior of them is usable whatever the noise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hushtune.federated.codecs import Layer, LinearCodec, Prior, moments

LAYERS = (Layer("a", 5), Layer("b", 1), Layer("c", 10))
DIMENSION, CLIP_NORM = 16, 0.75

any_float = st.floats(width=64)  # infinities and NaN too


@given(arrays(np.float64, DIMENSION, elements=any_float), st.floats(2.0**-512, 2.0**512))
@example(np.full(DIMENSION, 1.7e308), 2.0**-512)
@example(np.full(DIMENSION, 5e-324), 2.0**-512)
def test_moments_are_no_longer_than_the_root_of_two_whatever_the_update(
    update: np.ndarray, clip_norm: float
) -> None:
    found = moments(update, clip_norm, LAYERS)
    assert np.isfinite(found).all()
    assert math.hypot(*found) <= math.sqrt(2) * (1 + 1e-12)


def test_an_update_of_equal_numbers_in_one_layer_attains_that_bound() -> None:
    update = np.zeros(DIMENSION)
    update[6:] = CLIP_NORM / math.sqrt(10)
    found = moments(update, CLIP_NORM, LAYERS)
    assert np.allclose(found, [0, 0, 1, 0, 0, 1], atol=1e-12)


def test_moments_are_those_of_the_formula_and_of_one_row_at_a_time() -> None:
    rows = 0.05 * np.random.default_rng(0).standard_normal((3, DIMENSION))
    rows[2] *= 100  # to be clipped
    found = moments(rows, CLIP_NORM, LAYERS)
    beside = np.array([np.full(DIMENSION, np.nan), *rows])
    assert np.array_equal(moments(beside, CLIP_NORM, LAYERS)[1:], found)

    rows[2] *= CLIP_NORM / np.linalg.norm(rows[2])
    for place, (start, stop) in enumerate(((0, 5), (5, 6), (6, 16))):
        part = rows[:, start:stop]
        first = part.sum(axis=1) / (math.sqrt(stop - start) * CLIP_NORM)
        second = (part**2).sum(axis=1) / CLIP_NORM**2
        assert np.allclose(found[:, [place, 3 + place]], np.stack([first, second], axis=1))


def test_the_prior_of_many_draws_is_the_prior_that_they_came_from() -> None:
    layers = (Layer("a", 400), Layer("b", 100))
    prior = Prior(layers, (0.02, -0.01), (0.01, 0.05))
    draws = prior.draw(np.random.default_rng(0), 2000)
    made = Prior.from_moments(moments(draws, 2.0, layers).mean(axis=0), 2.0, layers)
    assert np.allclose(made.means, prior.means, rtol=0.05)
    assert np.allclose(made.deviations, prior.deviations, rtol=0.05)


def test_noise_makes_neither_squared_means_nor_the_whole_energy_larger_on_average() -> None:
    layers, rng = tuple(Layer(str(place), 100) for place in range(20)), np.random.default_rng(0)
    first, second, of_first, of_second = 0.08, 0.04, 0.04, 0.03
    squares, energies = [], []
    for _ in range(1000):
        noised = first + of_first * rng.standard_normal(20), np.full(20, second)
        prior = Prior.from_moments(np.concatenate(noised), 1.0, layers, of_first)
        squares.append(100 * np.square(prior.means).mean())
        noised = np.zeros(20), second + of_second * rng.standard_normal(20)
        prior = Prior.from_moments(np.concatenate(noised), 1.0, layers, of_second)
        energies.append(100 * np.square(prior.deviations).sum())
    # Taken as they come, squares would be 25 % too large, and energies, where positive, 4 %.
    assert np.mean(squares) == pytest.approx(first**2, rel=0.05)
    assert np.mean(energies) == pytest.approx(20 * second, rel=0.02)


@given(
    arrays(np.float64, 6, elements=any_float),
    st.floats(2.0**-512, 2.0**512),
    st.floats(0, 1.7e308),
)
@example(np.zeros(6), CLIP_NORM, 0.0)
@example(np.full(6, -1.7e308), CLIP_NORM, 0.5)
@example(np.array([1e-200] * 6), 2.0**-512, 0.0)
def test_a_prior_of_any_moments_makes_a_codec_that_draws_and_decodes_finite_numbers(
    mean_moments: np.ndarray, clip_norm: float, noise: float
) -> None:
    prior = Prior.from_moments(mean_moments, clip_norm, LAYERS, noise)
    draw = prior.draw(np.random.default_rng(0), 2)
    codec = LinearCodec(prior, 4, seed=0)
    code = codec.encode(draw)[0]
    assert np.isfinite(draw).all()
    assert np.isfinite(codec.decode(code, noise)).all()
    # No layer is held still: each has about a tenth of the root mean square, or more.
    assert min(prior.deviations) >= 0.099 * _root_mean_square(prior)


def _root_mean_square(prior: Prior) -> float:
    largest = max(map(abs, prior.means + prior.deviations))
    sizes = [layer.size for layer in prior.layers]
    squares = [
        size * ((mean / largest) ** 2 + (deviation / largest) ** 2)
        for size, mean, deviation in zip(sizes, prior.means, prior.deviations, strict=True)
    ]
    return largest * math.sqrt(sum(squares) / sum(sizes))


def test_a_prior_survives_json_to_the_last_bit() -> None:
    prior = Prior(LAYERS, (0.1, -1 / 3, 0.0), (1e-17, 2 / 3, 5.0))
    assert Prior.from_json(json.loads(json.dumps(prior.to_json()))) == prior


def test_draws_have_the_means_and_deviations_of_their_layers_and_no_correlation() -> None:
    prior = Prior(LAYERS, (0.5, -2.0, 0.0), (1.0, 3.0, 0.25))
    draws = prior.draw(np.random.default_rng(0), 20_000)
    assert draws.shape == (20_000, DIMENSION)
    standard = (draws - np.repeat(prior.means, [5, 1, 10])) / np.repeat(
        prior.deviations, [5, 1, 10]
    )
    # Six standard errors, 1/√n of each entry; those of variances are √2 of that.
    assert np.abs(standard.mean(axis=0)).max() < 6 / math.sqrt(20_000)
    covariance = standard.T @ standard / 20_000
    assert np.abs(covariance - np.eye(DIMENSION)).max() < 6 * math.sqrt(2 / 20_000)


@pytest.mark.parametrize(
    ("layers", "means", "deviations", "named"),
    [
        ((), (), (), "layers"),
        ((Layer("a", 1), Layer("a", 2)), (0.0, 0.0), (1.0, 1.0), "layers"),
        ((Layer("a", 0),), (0.0,), (1.0,), "size of 'a'"),
        ((Layer("a", 1),), (0.0, 0.0), (1.0,), "means"),
        ((Layer("a", 1),), (math.nan,), (1.0,), "means"),
        ((Layer("a", 1),), (0.0,), (0.0,), "deviations"),
        ((Layer("a", 1),), (0.0,), (math.inf,), "deviations"),
    ],
)
def test_a_prior_that_describes_nothing_is_refused_by_name(
    layers: tuple, means: tuple, deviations: tuple, named: str
) -> None:
    with pytest.raises(ValueError, match=f"Expected {named}="):
        Prior(layers, means, deviations)
