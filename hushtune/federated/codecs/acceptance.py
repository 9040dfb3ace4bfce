"""No codec is used that loses more of an update than a seeded orthonormal projection does.

A projection onto m of d coordinates keeps the share m/d of the squared length of whatever it is
given, so that the cosine between an update and its reconstruction is √(m/d). For normal numbers the
mean cosine is Γ((m+1)/2)·Γ(d/2) / (Γ(m/2)·Γ((d+1)/2)), which is √((m − ½)/(d − ½)) to second
order; this is the bound, 1 where m = d.

Where means dominate, a decoder that returns the prior's mean and ignores the code has a cosine of
nearly 1. No data would ever be learned from. So what an update has beyond the prior's mean must
reach the bound as well.

The linear codec reaches it unless m is hardly more than the number of layers: then the one number
that each layer gets may be better spent on another.
"""

from __future__ import annotations

import math

import numpy as np

from hushtune.federated.codecs.base import Codec
from hushtune.federated.codecs.priors import Prior
from hushtune.federated.codecs.randomness import Seed, generator


def projection_cosine(size: int, dimension: int) -> float:
    """The mean cosine of a projection onto `size` of `dimension` coordinates, about √(m/d)."""
    return math.sqrt((size - 0.5) / (dimension - 0.5))


def cosine_on_draws(
    codec: Codec, prior: Prior, rng: np.random.Generator, count: int, *, centred: bool = False
) -> np.ndarray:
    """(count,) float64 cosines between synthetic updates and what their codes decode to.

    Args:
        codec: works without noise here.
        prior: what the updates are drawn from.
        rng: public; one that gave no update to the codec's training.
        count: how many updates.
        centred: whether the prior's mean is taken off both.
    """
    cosines = np.empty(count, dtype=np.float64)
    origin = prior.mean if centred else 0.0
    for place in range(count):
        update = prior.draw(rng, 1)[0]
        cosines[place] = cosine(update - origin, codec.decode(codec.encode(update), 0.0) - origin)
    return cosines


def require_accepted(codec: Codec, prior: Prior, *, seed: Seed = 0, count: int = 100) -> None:
    """Refuse a codec that a seeded orthonormal projection of the same size would beat.

    Args:
        codec: any.
        prior: of the updates that it will encode.
        seed: public; the updates come from a generator of their own, which no training uses.
        count: synthetic updates, at least 2.

    Raises:
        ValueError: if the mean cosine is more than three standard errors below the bound, for
            updates or for what they have beyond the prior's mean.
    """
    bound = projection_cosine(codec.size, codec.dimension)
    for centred in (False, True):
        rng = generator(seed, "acceptance of a codec")
        cosines = cosine_on_draws(codec, prior, rng, count, centred=centred)
        mean = float(cosines.mean())
        margin = 3 * float(cosines.std(ddof=1)) / math.sqrt(count) + 1e-9  # and rounding
        if mean < bound - margin:
            what = "updates less the prior's mean" if centred else "updates"
            raise ValueError(
                f"Expected the {codec.kind} codec of {codec.size} numbers for {codec.dimension} to "
                f"reach a mean cosine of {bound:.4f}, which a seeded projection has, on {count} "
                f"synthetic {what}; it reached {mean:.4f}. Use the linear codec or longer codes."
            )


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """0 where one of them is zero; written so that no BLAS decides the last bits."""
    lengths = math.sqrt((one * one).sum()) * math.sqrt((other * other).sum())
    return float((one * other).sum()) / lengths if lengths > 0 else 0.0
