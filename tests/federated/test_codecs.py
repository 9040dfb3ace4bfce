"""What holds of every codec, and that the linear one is what its formulas say."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from hushtune.federated.codecs import (
    Codec,
    IdentityCodec,
    Layer,
    LinearCodec,
    Prior,
    train,
)
from hushtune.federated.codecs.randomness import permutation, signs
from hushtune.federated.codecs.shares import split

LAYERS = (Layer("a", 37), Layer("b", 64), Layer("c", 1), Layer("d", 26))
PRIOR = Prior(LAYERS, (0.5, 0.0, -1.0, 0.25), (1.0, 0.125, 2.0, 0.5))
DIMENSION = 128

CODECS = ("identity", "linear", "full linear", "autoencoder")


@functools.cache
def codec_of(name: str) -> Codec:
    if name == "identity":
        return IdentityCodec(DIMENSION)
    if name == "autoencoder":
        return train(PRIOR, 1 / 8, seed=1, steps=2)
    return LinearCodec(PRIOR, 16 if name == "linear" else DIMENSION, seed=1)


def matrix(codec: Codec) -> np.ndarray:
    """(m, d) of a linear codec."""
    return codec.encode(np.eye(codec.dimension)).T


@pytest.mark.parametrize("name", CODECS)
def test_the_code_of_a_row_is_the_same_bits_whatever_stands_beside_it(name: str) -> None:
    codec = codec_of(name)
    rows = np.random.default_rng(0).standard_normal((6, DIMENSION))
    alone = np.array([codec.encode(row) for row in rows])
    assert alone.shape == (6, codec.size)
    assert alone.dtype == np.float64

    beside = np.insert(rows, [0, 2, 5], [[np.nan], [np.inf], [1e308]], axis=0)
    assert np.array_equal(codec.encode(beside)[[1, 2, 4, 5, 6, 8]], alone)
    assert np.array_equal(codec.encode(np.asfortranarray(rows)), alone)
    assert np.array_equal(codec.encode(rows[::-1].reshape(2, 3, -1)).reshape(6, -1)[::-1], alone)
    assert codec.encode(rows[:0]).shape == (0, codec.size)


@pytest.mark.parametrize("name", CODECS)
def test_codecs_that_say_so_are_linear_and_only_they(name: str) -> None:
    codec = codec_of(name)
    one, other = np.random.default_rng(0).standard_normal((2, DIMENSION))
    of_sum = codec.encode(one + 2 * other)
    sum_of = codec.encode(one) + 2 * codec.encode(other)
    assert np.allclose(of_sum, sum_of, atol=1e-12) == codec.linear


@pytest.mark.parametrize("name", CODECS)
def test_what_is_refused_says_nothing_of_how_many_rows_there_are(name: str) -> None:
    codec = codec_of(name)
    with pytest.raises(ValueError, match=r"^Expected updates of shape \(\.\.\., 128\)\.$"):
        codec.encode(np.zeros((77, DIMENSION + 1)))
    for code, noise in ((np.zeros(codec.size + 1), 0.0), (np.full(codec.size, np.nan), 0.0)):
        with pytest.raises(ValueError, match="code"):
            codec.decode(code, noise)
    with pytest.raises(ValueError, match="noise"):
        codec.decode(np.zeros(codec.size), -1.0)


@pytest.mark.parametrize("size", [16, 128])
def test_a_layer_is_permuted_signed_transformed_and_cut_so_that_rows_stay_orthonormal(
    size: int,
) -> None:
    projection = matrix(LinearCodec(PRIOR, size, seed="public"))
    assert np.abs(projection @ projection.T - np.eye(size)).max() < 1e-14

    parts = []
    for layer, kept in zip(LAYERS, split(PRIOR, size), strict=True):
        powers = [2**bit for bit in range(7, -1, -1) if layer.size & 2**bit]
        blocks = [scipy.linalg.hadamard(power) / power**0.5 for power in powers]
        mixed = scipy.linalg.block_diag(*blocks) * signs("public", layer.name, layer.size)
        whole = np.empty_like(mixed)
        whole[:, permutation("public", layer.name, layer.size)] = mixed
        rows = permutation("public", f"kept: {layer.name}", layer.size)[:kept]
        parts.append(whole[np.sort(rows)])
    assert np.allclose(projection, scipy.linalg.block_diag(*parts), atol=1e-14)


def test_permutations_and_signs_of_other_seeds_and_names_are_others() -> None:
    drawn = [permutation(seed, name, 999) for seed, name in ((1, "a"), (1, "b"), ("1", "a"))]
    for order in drawn:
        assert np.array_equal(np.sort(order), np.arange(999))
    fixed = [(one == other).sum() for one, other in ((drawn[0], drawn[1]), (drawn[0], drawn[2]))]
    assert max(fixed) < 20  # Poisson of mean 1: never, with probability 1 − 1e-18
    assert set(signs(1, "a", 999)) == {-1.0, 1.0}
    assert abs(signs(1, "a", 999) @ signs(1, "b", 999)) < 300


@pytest.mark.parametrize("updates", [1.0, 50.0])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_linear_decoder_is_the_estimate_of_least_mean_square_error(
    noise: float, updates: float
) -> None:
    codec = LinearCodec(PRIOR, 40, seed=1, updates=updates)
    code = np.random.default_rng(0).standard_normal(40)
    projection, covariance = matrix(codec), np.diag(PRIOR.deviation**2) / updates
    of_code = projection @ covariance @ projection.T + noise**2 * np.eye(40)
    gain = covariance @ projection.T @ np.linalg.inv(of_code)
    expected = PRIOR.mean + gain @ (code - projection @ PRIOR.mean)
    assert np.allclose(codec.decode(code, noise), expected, atol=1e-12)


def test_what_a_code_decodes_to_is_the_same_bits_on_every_machine() -> None:
    layers = (Layer("model.layers.0.lora_A", 3000), Layer("model.layers.0.lora_B", 1111))
    codec = LinearCodec(Prior(layers, (0.1, -0.3), (0.7, 0.01)), 500, seed=7)
    code = np.arange(-250, 250) / 64
    decoded = codec.decode(code, 0.2).astype("<f8").tobytes()
    assert hashlib.sha256(decoded).hexdigest() == (
        "48b437f39d37783a6d878e5ad8a476e9c1c69c23c8546111d6acf38b0994b6aa"
    )


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(1e-6, 1e6)), min_size=1, max_size=12),
    st.data(),
)
def test_a_split_is_exact_within_bounds_and_in_proportion_to_size_and_deviation(
    drawn: list[tuple[int, float]], data: st.DataObject
) -> None:
    layers = tuple(Layer(str(place), size) for place, (size, _) in enumerate(drawn))
    prior = Prior(layers, (0.0,) * len(layers), tuple(deviation for _, deviation in drawn))
    size = data.draw(st.integers(len(layers), prior.dimension))
    numbers = split(prior, size)
    assert sum(numbers) == size
    assert all(1 <= m <= layer.size for m, layer in zip(numbers, layers, strict=True))
    weights = [layer.size * deviation for layer, (_, deviation) in zip(layers, drawn, strict=True)]
    each = list(zip(numbers, weights, layers, strict=True))
    # Apart from the first number and one for rounding, nobody is ahead of one who has room left.
    behind = min((m / weight for m, weight, layer in each if m < layer.size), default=np.inf)
    assert max((m - 2) / weight for m, weight, _ in each) <= behind * (1 + 1e-9)


def test_a_split_in_proportion_to_size_and_deviation_retains_more_than_an_even_one() -> None:
    layers = (Layer("large", 1000), Layer("small", 1000), Layer("still", 1000))
    prior = Prior(layers, (0.0,) * 3, (1.0, 0.25, 1e-9))
    numbers = split(prior, 303)
    assert numbers == (241, 61, 1)
    even = sum(deviation**2 * 101 for deviation in prior.deviations)
    assert sum(s**2 * m for s, m in zip(prior.deviations, numbers, strict=True)) > 2 * even
