"""Exact integer noise differs from rounded noise, and the difference is charged."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from plain_terms import gaussian, laplace
from scipy import special

from hushtune.privacy.accounting import discretisation


@pytest.mark.parametrize("scale", [1, 3, 16, 64])
def test_distances_between_discrete_and_rounded_noise(scale):
    """The three constants that the charges rest on."""
    outputs = np.arange(-40 * scale, 40 * scale + 1)
    away = np.abs(outputs)
    discrete = np.exp(-0.5 * (outputs / scale) ** 2)
    discrete /= discrete.sum()
    rounded = special.ndtr(-(away - 0.5) / scale) - special.ndtr(-(away + 0.5) / scale)
    assert 0.5 * np.abs(discrete - rounded).sum() <= 0.0202 / scale**2
    seen = away <= 30 * scale
    ratio = np.abs(np.log(discrete[seen] / rounded[seen]))
    assert np.all(ratio <= ((away[seen] / scale) ** 2 + 1) / (24 * scale**2))

    discrete = np.exp(-away / scale) * math.tanh(0.5 / scale)
    rounded = np.exp(-away / scale) * math.sinh(0.5 / scale)
    rounded[away == 0] = -math.expm1(-0.5 / scale)
    assert 0.5 * np.abs(discrete - rounded).sum() <= 0.125 / scale**2
    assert np.abs(np.log(discrete / rounded)).max() <= 1 / (4 * scale)


@pytest.mark.parametrize("scale", [64, 512, 4096])
def test_charge_covers_the_discrete_gaussian(scale):
    """Against dp-accounting's distribution of the discrete Gaussian itself, for few steps."""
    steps, probability, delta = 4, 0.2, 1e-3
    exact = (
        privacy_loss_distribution.from_discrete_gaussian_mechanism(
            scale,
            sensitivity=scale // 2,
            sampling_prob=probability,
            value_discretization_interval=1e-4,
            use_connect_dots=True,
        )
        .self_compose(steps)
        .get_epsilon_for_delta(delta)
    )
    found = gaussian(2.0, probability, steps, delta, noise_scale_integer=scale)
    assert exact * (1 - 1e-4) <= found
    assert found <= exact * (1.003 + 1000 / scale**2)


@pytest.mark.parametrize(
    ("noise_multiplier", "probability", "steps"),
    [(2.0, 0.01, 10_000), (20.0, 0.01, 10**6), (0.3, 1.0, 4), (1.0, 1.0, 100)],
)
def test_charge_is_negligible_from_two_to_the_32(noise_multiplier, probability, steps):
    plain = gaussian(noise_multiplier, probability, steps)
    charged = gaussian(
        noise_multiplier, probability, steps, directions=256, noise_scale_integer=2**32
    )
    assert plain <= charged <= plain * (1 + 1e-6)


def test_charge_falls_with_the_scale_and_is_infinite_where_delta_cannot_pay():
    charged = [
        gaussian(2.0, 0.01, 1000, noise_scale_integer=2**bits) for bits in (2, 12, 16, 20, 32)
    ]
    assert charged == sorted(charged, reverse=True)
    assert charged[-1] == pytest.approx(gaussian(2.0, 0.01, 1000), rel=1e-6)
    assert laplace(4.0, 0.01, 1000, 1e-5, noise_scale_integer=2) <= laplace(4.0, 0.01, 1000)


def test_charges_are_what_the_hybrid_arguments_ask_for():
    def curve(delta):
        return -math.log(delta)

    # As δ: what is left of δ after (1 + e^ε)·distance must pay for ε.
    found = discretisation.charge_delta(curve, 0.1, 1e-4)
    assert curve(0.1 - 1e-4 * (1 + math.exp(found))) <= found <= curve(0.1) + 0.02
    assert discretisation.charge_delta(curve, 0.1, 1.0) == math.inf
    # As ε: both directions of the ratio, and e^ratio on δ.
    found = discretisation.charge_ratio(curve, 0.1, 0.05, -math.inf)
    assert found == pytest.approx(curve(0.1) + 0.05 + 2 * 0.05)
    assert discretisation.charge_ratio(curve, 0.1, 0.05, math.log(1e-3)) == math.inf
