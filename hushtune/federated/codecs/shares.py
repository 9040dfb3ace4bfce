"""How the m numbers of a code are split over the layers.

Of a layer's energy about its mean, d·σ², the share m/d is retained: Σσ²·m over the layers. A split
in proportion to d·σ retains at least what the even one does, which is in proportion to d, since
weights that rise with σ raise a mean of σ². Filling the layers of largest σ first would retain
most; but a layer without a number never moves, and the prior may be wrong about it.
"""

from __future__ import annotations

from fractions import Fraction

from hushtune.federated.codecs.priors import Prior


def split(prior: Prior, size: int) -> tuple[int, ...]:
    """One number for each layer, and the rest in proportion to d·σ, up to d; (L,), of sum `size`.

    What is not whole goes to the largest remainders, the first layers first where they are equal.
    `size` is from L up to the prior's dimension.
    """
    # Fractions are exact, so that every machine splits alike.
    weights = {
        place: layer.size * Fraction(deviation)
        for place, (layer, deviation) in enumerate(zip(prior.layers, prior.deviations, strict=True))
    }
    extra, left = [layer.size - 1 for layer in prior.layers], size - len(weights)
    quotas: dict[int, Fraction] = {}
    while weights:
        per_weight = left / sum(weights.values(), Fraction())
        quotas = {place: weight * per_weight for place, weight in weights.items()}
        full = [place for place, quota in quotas.items() if quota >= extra[place]]
        if not full:
            break
        for place in full:
            left -= extra[place]
            del weights[place], quotas[place]
    for place, quota in quotas.items():
        extra[place] = int(quota)
    unspent = size - len(extra) - sum(extra)
    for place in sorted(quotas, key=lambda place: int(quotas[place]) - quotas[place])[:unspent]:
        extra[place] += 1
    return tuple(1 + more for more in extra)
