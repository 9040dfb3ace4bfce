"""Per-layer moments of updates: what the prior is estimated from, bounded so that noise hides one.

Of an update g, with C the clip norm and g_l the d_l numbers of layer l,

    m_l = Σ g_l / √d_l        q_l = ‖g_l‖²        released: the mean of (m/C, q/C²), with noise

Raw statistics of updates are as private as updates are; DR-Encoder (arXiv 2412.17053) sends them in
its first stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hushtune.federated.codecs.base import by_row
from hushtune.federated.codecs.layers import Layer, require_layers, slices_of
from hushtune.privacy.plan import require, require_clip_norm

#: No layer's variance is taken for less than this share of the mean one. A layer that did not move
#: when moments were taken (LoRA's A while B is zero) may move later, and a decoder that believed
#: the moment would hold it still.
SMALLEST_VARIANCE = 1e-2

#: In units of C²: an energy below it is none at all.
_NO_ENERGY = 1e-30


def moments(updates: np.ndarray, clip_norm: float, layers: Sequence[Layer]) -> np.ndarray:
    """(..., 2L) float64 of (..., d): m_l / C of all layers, then q_l / C² of all layers.

    What is not finite counts as 0, and an update longer than C is scaled to length C, before
    moments are taken. A row's moments depend on that row alone.

    Formal guarantee: no row is longer than √2 in L2 norm, but for rounding. By Cauchy and Schwarz
    m_l² ≤ ‖g_l‖², hence Σ m_l² ≤ C²; and Σ q_l² ≤ (Σ q_l)² ≤ C⁴. The bound is attained: all of the
    length in one layer of equal numbers. It guides the choice of a clip norm, which is what
    privacy rests on.

    Raises:
        ValueError: if updates are of another length or the clip norm is out of range.
    """
    require_layers(layers)
    require_clip_norm(clip_norm)
    places = slices_of(layers)

    def of_row(update: np.ndarray) -> np.ndarray:
        scaled = _scaled(update, clip_norm)
        parts = [scaled[place] for place in places]
        first = [part.sum() / math.sqrt(part.size) for part in parts]
        return np.array(first + [(part * part).sum() for part in parts])

    return by_row(of_row, updates, places[-1].stop, 2 * len(layers))


def _scaled(update: np.ndarray, clip_norm: float) -> np.ndarray:
    """g / C, of length at most 1."""
    finite = np.where(np.isfinite(update), update, 0.0)
    largest = np.abs(finite).max()
    if largest == 0:
        return finite
    direction = finite / largest  # squares of these do not overflow
    norm = math.sqrt((direction * direction).sum())
    return direction * min(largest / clip_norm, 1.0 / norm)


def estimate(
    mean_moments: np.ndarray, clip_norm: float, layers: Sequence[Layer], noise: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The means μ and standard deviations σ, (L,) each, that noised moments speak for.

    Noise adds its variance to the expectation of m², which is taken off again, and nothing to that
    of q. Whatever the noise did, the means are finite and the deviations positive:

    - The energies q of all layers are moved above their smallest value and then scaled to their
      unbiased sum, which is taken for at least its own noise and at most C²; where there is no
      energy at all, for C².
    - A squared mean is between 0 and its layer's energy; σ² is what it leaves of that, and at
      least `SMALLEST_VARIANCE` of the mean over all numbers.

    Raises:
        ValueError: if there are not 2L moments, or the clip norm or the noise is out of range.
    """
    require_layers(layers)
    require_clip_norm(clip_norm)
    require(math.isfinite(noise) and noise >= 0, "noise", noise, "at least 0 and finite")
    shape = np.shape(mean_moments)
    require(shape == (2 * len(layers),), "shape of mean_moments", shape, f"({2 * len(layers)},)")
    finite = np.nan_to_num(np.asarray(mean_moments, dtype=np.float64), posinf=0.0, neginf=0.0)
    first, second = np.split(np.clip(finite, -1.0, 1.0), 2)
    sizes = np.array([layer.size for layer in layers], dtype=np.float64)

    total = min(max(float(second.sum()), noise * math.sqrt(len(layers))), 1.0)
    total = total if total > _NO_ENERGY else 1.0
    smallest = SMALLEST_VARIANCE * total * sizes / sizes.sum()
    energies = np.maximum(second, smallest)
    energies *= total / energies.sum()
    squares = np.clip(first * first - min(noise, 1.0) ** 2, 0.0, energies)
    means = clip_norm * np.sign(first) * np.sqrt(squares / sizes)
    deviations = clip_norm * np.sqrt(np.maximum(energies - squares, smallest) / sizes)
    return tuple(means.tolist()), tuple(deviations.tolist())
