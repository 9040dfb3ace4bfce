"""The auto-encoder is trained on a prior and public numbers, and is what its weights say it is."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch

from hushtune.federated.codecs import (
    AutoencoderCodec,
    Layer,
    Prior,
    cosine_on_draws,
    train,
)
from hushtune.federated.codecs.images import whitened
from hushtune.models.load import hash_tensors

PRIOR = Prior((Layer("a", 200), Layer("b", 50)), (0.5, 0.0), (1.0, 0.125))


def test_training_is_given_a_prior_and_plain_numbers_and_nothing_that_could_hold_an_update() -> (
    None
):
    accepted = typing.get_type_hints(train)
    assert accepted.pop("return") is AutoencoderCodec
    assert accepted.pop("prior") is Prior
    assert set(accepted.values()) <= {int, float, int | str}


def test_weights_come_from_the_public_seed_and_torchs_generator_has_no_part_in_them() -> None:
    with torch.random.fork_rng(devices=[]):
        hashes = []
        for place, (seed, steps) in enumerate([(1, 3), (1, 3), (2, 3), ("1", 3), (1, 0), (2, 0)]):
            before = torch.manual_seed(place).get_state()
            weights = train(PRIOR, 1 / 8, seed, steps).network.state_dict()
            hashes.append(hash_tensors(weights.items()))
            assert torch.equal(torch.random.get_rng_state(), before)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 5


def test_the_network_sees_whitened_updates_and_its_output_is_coloured_again() -> None:
    white = train(Prior(PRIOR.layers, (0.0, 0.0), (1.0, 1.0)), 1 / 8, seed=1, steps=0)
    coloured = train(PRIOR, 1 / 8, seed=1, steps=0)
    update = np.random.default_rng(0).standard_normal(250)
    code = white.encode(update)
    assert np.allclose(coloured.encode(PRIOR.mean + PRIOR.deviation * update), code, atol=1e-5)
    decoded = PRIOR.mean + PRIOR.deviation * white.decode(code, 0.0)
    assert np.allclose(coloured.decode(code, 0.0), decoded, atol=1e-5)


def test_training_reconstructs_what_untrained_weights_do_not() -> None:
    untrained, trained = (train(PRIOR, 1 / 2, 0, steps) for steps in (0, 400))
    rng = np.random.default_rng(0)
    before = cosine_on_draws(untrained, PRIOR, rng, 20, centred=True)
    after = cosine_on_draws(trained, PRIOR, rng, 20, centred=True)
    assert after.mean() > before.mean() + 0.3


@pytest.mark.parametrize(
    ("ratio", "dimension", "size"),
    [(1 / 8, 4096, 512), (1 / 64, 4096, 64), (1 / 8, 250, 32), (1 / 2, 1, 2)],
)
def test_a_code_has_the_ratios_share_of_the_padded_square(
    ratio: float, dimension: int, size: int
) -> None:
    codec = train(Prior((Layer("a", dimension),), (0.0,), (1.0,)), ratio, 0, steps=0)
    assert codec.size == size
    assert codec.encode(np.zeros(dimension)).shape == (size,)
    assert codec.decode(np.zeros(size), 0.0).shape == (dimension,)


def test_no_layer_couples_updates_or_bounds_what_they_can_say() -> None:
    kinds = {type(part).__name__ for part in train(PRIOR, 1 / 8, 0, 0).network.modules()}
    assert kinds == {"Network", "Sequential", "Conv2d", "ConvTranspose2d", "ReLU", "ResidualBlock"}


@pytest.mark.parametrize("ratio", [1.0, 0.3, 0.0, -0.5, 2.0])
def test_a_ratio_that_no_halving_gives_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="Expected ratio="):
        train(PRIOR, ratio, 0, 0)


@pytest.mark.parametrize("ratio", [1 / 2, 1 / 8])
def test_the_forward_pass_in_one_order_is_that_of_the_network(ratio):
    codec = train(PRIOR, ratio, 0, steps=5)
    update = PRIOR.draw(np.random.default_rng(0), 1)
    images = torch.from_numpy(whitened(update, PRIOR, ratio)).float()
    with torch.no_grad():
        code = codec.network.encoder(images)
        image = codec.network.decoder(code).reshape(-1)[: PRIOR.dimension].double().numpy()
    found = codec.encode(update[0])
    np.testing.assert_allclose(found, code.reshape(-1).numpy(), atol=1e-5)
    expected = PRIOR.mean + PRIOR.deviation * image
    np.testing.assert_allclose(codec.decode(found, 0.0), expected, atol=1e-5)
