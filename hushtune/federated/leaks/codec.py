"""Leak 2: which updates a codec was trained on, from the codec that everybody gets.

CG-FedLLM (arXiv 2405.13746) trains its auto-encoder on clients' updates; principal components are
the linear codec that fits updates best. Both reconstruct what they were trained on better than what
they were not, so that the error of a candidate's update tells whether it was there, as the loss of
a model does (Yeom et al. 2018, arXiv 1709.01604). Principal components of few updates are these
updates but for a rotation: what `hushtune.federated.leaks.inversion` does to an update it does to
them.

The attacker has candidates' texts, and so their updates, and the codec.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from hushtune.federated.codecs import AutoencoderCodec, Layer, Prior, moments, train
from hushtune.federated.codecs.images import whitened
from hushtune.federated.codecs.randomness import Seed

#: (n, d) updates as a codec decodes their codes.
Reconstruct = Callable[[np.ndarray], np.ndarray]


def plain_prior(updates: np.ndarray, layers: tuple[Layer, ...]) -> Prior:
    """The prior of (n, d) updates from their exact moments: not private."""
    longest = float(np.linalg.norm(updates, axis=1).max())
    return Prior.from_moments(moments(updates, longest, layers).mean(axis=0), longest, layers)


def principal_components(updates: np.ndarray, size: int) -> np.ndarray:
    """(m, d) float64 orthonormal: the linear codec with the least error on (n, d) updates."""
    _, values, basis = np.linalg.svd(updates, full_matrices=False)
    return basis[: min(size, int((values > 1e-9 * values[0]).sum()))]


def by_components(components: np.ndarray) -> Reconstruct:
    """Decoding what (m, d) orthonormal components encode."""
    return lambda updates: (updates @ components.T) @ components


def by_network(codec: AutoencoderCodec) -> Reconstruct:
    """Decoding what an auto-encoder encodes."""
    return lambda updates: np.stack([codec.decode(code, 0.0) for code in codec.encode(updates)])


def trained_on(
    updates: np.ndarray,
    prior: Prior,
    ratio: float,
    seed: Seed,
    steps: int,
    *,
    batch: int = 16,
    learning_rate: float = 3e-3,
) -> AutoencoderCodec:
    """The auto-encoder of `hushtune.federated.codecs`, trained on updates themselves.

    `train` cannot do that: it takes a prior. All else is as there.

    Args:
        updates: (n, d) of clients.
        prior: scales of the network's inputs.
        ratio, seed, steps, batch, learning_rate: as of `train`.
    """
    codec = train(prior, ratio, seed, steps=0)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.Adam(codec.network.parameters(), lr=learning_rate)
    for _ in range(steps):
        some = updates[rng.integers(len(updates), size=batch)]
        images = torch.as_tensor(whitened(some, prior, ratio)).float()
        difference = (codec.network(images) - images).reshape(batch, -1)[:, : prior.dimension]
        optimizer.zero_grad()
        difference.square().mean().backward()
        optimizer.step()
    return codec


def scores(reconstruct: Reconstruct, updates: np.ndarray, prior: Prior) -> np.ndarray:
    """(n,) float64, larger for updates that a codec was more likely trained on.

    The cosine between an update and its reconstruction, both whitened by the prior as training
    whitened them.
    """
    white = (updates - prior.mean) / prior.deviation
    again = (reconstruct(updates) - prior.mean) / prior.deviation
    lengths = np.linalg.norm(white, axis=1) * np.linalg.norm(again, axis=1)
    return (white * again).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)


def moment_scores(mean_moments: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """(n,) float64, larger for candidates whose moments are in a published mean.

    Where a mean of many numbers a person is published, the inner product of its difference from
    what is usual with a person's own difference tells members (Homer et al. 2008; Dwork et al.
    2015). What is usual is taken from the candidates; each number is divided by its deviation.

    Args:
        mean_moments: (2L,) the published mean.
        candidates: (n, 2L) their moments.
    """
    usual, deviation = candidates.mean(axis=0), candidates.std(axis=0)
    deviation = np.where(deviation > 0, deviation, np.inf)
    return ((candidates - usual) / deviation) @ ((mean_moments - usual) / deviation)
