"""A codec is accepted if it keeps as much of an update as a seeded projection, and only then."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hushtune.federated.codecs import (
    IdentityCodec,
    Layer,
    LinearCodec,
    Prior,
    cosine_on_draws,
    require_accepted,
    train,
)
from hushtune.federated.codecs.acceptance import projection_cosine
from hushtune.federated.codecs.randomness import generator

LAYERS = (Layer("a", 1000), Layer("b", 2000), Layer("c", 1096))
DIMENSION = 4096
PRIORS = {
    "equal": Prior(LAYERS, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "unequal": Prior(LAYERS, (0.0, 0.0, 0.0), (1.0, 0.1, 0.01)),
    "means": Prior(LAYERS, (3.0, -3.0, 0.5), (1.0, 0.5, 0.1)),
}


class OnlyTheMean(LinearCodec):
    """Decodes every code to the mean of the prior, and next to nothing that is no news."""

    def decode(self, code: np.ndarray, noise: float) -> np.ndarray:
        return self.prior.mean + 1e-3 * (-1.0) ** np.arange(self.dimension)


@pytest.mark.parametrize("name", PRIORS)
def test_identity_and_linear_are_accepted(name: str) -> None:
    prior = PRIORS[name]
    require_accepted(IdentityCodec(DIMENSION), prior)
    for ratio in (8, 64):
        require_accepted(LinearCodec(prior, DIMENSION // ratio, seed=1), prior)


@pytest.mark.parametrize("name", PRIORS)
def test_the_auto_encoder_at_one_64th_is_refused_with_both_numbers_in_one_line(name: str) -> None:
    prior = PRIORS[name]
    with pytest.raises(
        ValueError, match=r"64 numbers for 4096 .* 0\.1245, .* it reached -?0\.0"
    ) as refusal:
        require_accepted(train(prior, 1 / 64, 0, steps=20), prior, count=50)
    assert "\n" not in str(refusal.value)


def test_a_decoder_that_ignores_the_code_is_refused_though_the_mean_is_most_of_an_update() -> None:
    prior = PRIORS["means"]
    codec = OnlyTheMean(prior, 64, seed=1)
    assert cosine_on_draws(codec, prior, np.random.default_rng(0), 20).mean() > 0.9
    with pytest.raises(ValueError, match="less the prior's mean"):
        require_accepted(codec, prior)


@pytest.mark.parametrize("size", [8, 64, 500])
def test_the_bound_is_the_mean_cosine_of_a_projection_about_the_root_of_m_over_d(size: int) -> None:
    prior = Prior((Layer("a", 1000),), (0.0,), (1.0,))
    cosines = cosine_on_draws(
        LinearCodec(prior, size, seed=1), prior, np.random.default_rng(0), 400
    )
    bound = projection_cosine(size, 1000)
    # Five standard errors; at m = 8 √(m/d) is as far off as two.
    assert abs(cosines.mean() - bound) < 5 * cosines.std() / math.sqrt(400)
    assert bound == pytest.approx(math.sqrt(size / 1000), rel=1 / (2 * size))
    logs = [math.lgamma(x / 2) for x in (size + 1, 1000, size, 1001)]
    assert bound == pytest.approx(
        math.exp(logs[0] + logs[1] - logs[2] - logs[3]), rel=0.1 / size**2
    )


def test_held_out_updates_are_none_that_a_training_of_the_same_seed_has_seen() -> None:
    names = ("training of the auto-encoder", "acceptance of a codec")
    one, other = (generator(0, name).standard_normal(1000) for name in names)
    assert abs(one @ other) < 6 * math.sqrt(1000)
