"""Leak 1: the text of a sent update, from the span of its first layer's gradient.

The gradient of a linear layer is δᵀx: each of its rows combines the layer's inputs, one a position,
which are among finitely many known vectors (`hushtune.federated.leaks.atoms`). DAGER (Petrov et al.
2024, arXiv 2405.15586) takes the tokens that lie in the rows' span. That asks for as many rows as
positions, and LoRA has few. Finding the few known vectors that a handful of combinations is made
of is sparse recovery with several measurements; rank-aware order-recursive matching pursuit (Davies
and Eldar 2012, IEEE Transactions on Information Theory 58(2)) takes them one by one, each time the
one nearest to the span after all that were taken are projected out. While positions are fewer than
rows its first step is DAGER's span check; beyond, it goes on.

The attacker knows the model, its adapters, the update, the lengths of the texts it was computed on
and the tokens that surround every text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hushtune.federated.leaks.atoms import Atoms, View

#: Candidates kept for each position after the first look at the whole vocabulary.
_KEPT = 200

#: Singular values below this share of the largest one are rounding.
_ROUNDING = 1e-9

#: A vector shorter than this was projected out already.
_NOTHING = 1e-6


@dataclass(frozen=True)
class Sent:
    """An update, as an attacker sees it.

    Attributes:
        views: what it says of the first layer's inputs.
        lengths: of the texts that it was computed on, in tokens, the surrounding ones included.
    """

    views: list[View]
    lengths: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The most dimensions that inputs can span; further ones are rounding."""
        return sum(self.lengths)

    def slots(self, position: int) -> int:
        """How many of the texts have an unknown token at a position."""
        return sum(0 < position < length - 1 for length in self.lengths)


def recover(atoms: Atoms, updates: Sequence[Sent], first: int, last: int) -> list[list[int]]:
    """The tokens of each update's texts between the first and the last one, by position.

    Which of several texts a token is from is not told.

    Args:
        atoms: of the model.
        updates: with as many views each.
        first, last: tokens that begin and end every text.
    """
    spans = [[_basis(view.rows, sent.rank) for view in sent.views] for sent in updates]
    kept: list[dict[int, Tensor]] = [{} for _ in updates]
    for position in range(1, max(max(sent.lengths) for sent in updates) - 1):
        asked = [place for place, sent in enumerate(updates) if sent.slots(position)]
        vectors = atoms.at(position)
        shares = torch.zeros(len(vectors), len(asked))
        for view in range(len(updates[0].views)):
            seen = updates[0].views[view].seen(vectors)
            shares += _explained(seen, [spans[place][view] for place in asked])
        best = shares.topk(min(_KEPT, atoms.tokens), dim=0).indices
        for place, tokens in zip(asked, best.T, strict=True):
            kept[place][position] = tokens
    return [
        _pursue(atoms, sent, tokens, first, last)
        for sent, tokens in zip(updates, kept, strict=True)
    ]


def token_recall(recovered: Sequence[int], text: Sequence[int]) -> float:
    """The share of a text's tokens that were recovered, in any order; each as often as it is there.

    Lenient: a right token at a wrong position counts.
    """
    left = list(recovered)
    right = 0
    for token in text:
        if token in left:
            left.remove(token)
            right += 1
    return right / len(text)


def most_alike(code: np.ndarray, candidates: np.ndarray) -> int:
    """Which of (n, m) candidates' codes has the largest cosine with a code that was seen.

    Not an inversion: the attacker has the candidates' texts, and asks which was sent.
    """
    lengths = np.linalg.norm(candidates, axis=1)
    return int((candidates @ code / np.where(lengths > 0, lengths, 1.0)).argmax())


@dataclass
class _Residual:
    """What is left of one view when the vectors that were taken are projected out.

    Attributes:
        atoms: (candidates, w).
        rows: (k, w).
        rank: how many of the vectors that rows combine are still to be found.
    """

    atoms: Tensor
    rows: Tensor
    rank: int

    def take(self, vector: Tensor) -> None:
        """Project a vector out; one of which nothing is left changes nothing."""
        self.rank -= 1
        norm = vector.norm()
        if norm > _NOTHING:
            unit = vector / norm
            self.atoms = self.atoms - torch.outer(self.atoms @ unit, unit)
            self.rows = self.rows - torch.outer(self.rows @ unit, unit)

    def explained(self) -> Tensor:
        """(candidates,) the share of each one's squared length within the rows' span."""
        return _explained(self.atoms, [_basis(self.rows, self.rank)])[:, 0]


def _pursue(atoms: Atoms, sent: Sent, kept: dict[int, Tensor], first: int, last: int) -> list[int]:
    tokens = torch.cat(list(kept.values()))
    positions = torch.cat([torch.full_like(some, place) for place, some in kept.items()])
    ends = {(0, first), *((length - 1, last) for length in sent.lengths)}
    known = [atoms.at(place, torch.tensor([token])) for place, token in ends]
    unknown = [atoms.at(place, some) for place, some in kept.items()]
    vectors = torch.cat(known + unknown).double()
    left = [_Residual(view.seen(vectors), view.rows, sent.rank) for view in sent.views]
    for each in left:
        for place in range(len(known)):
            each.take(each.atoms[place])
        each.atoms = each.atoms[len(known) :]
    slots = {place: sent.slots(place) for place in kept}
    open_ = torch.ones(len(tokens), dtype=torch.bool)
    found: list[tuple[int, int]] = []
    for _ in range(sum(slots.values())):
        shares = torch.stack([each.explained() for each in left]).sum(dim=0)
        best = int(torch.where(open_, shares, -1.0).argmax())
        place = int(positions[best])
        found.append((place, int(tokens[best])))
        slots[place] -= 1
        open_[best] = False
        if not slots[place]:
            open_ &= positions != place
        for each in left:
            each.take(each.atoms[best])
    return [token for _, token in sorted(found)]


def _explained(vectors: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """(n, spans) the share of the squared length of (n, w) vectors in each span."""
    squares = vectors.square().sum(dim=1, keepdim=True)
    within = [(vectors @ basis.T.to(vectors.dtype)).square().sum(dim=1) for basis in bases]
    # A vector of which nothing is left is explained by what was taken.
    return torch.stack(within, dim=1) / torch.where(squares > _NOTHING**2, squares, torch.inf)


def _basis(rows: Tensor, rank: int) -> Tensor:
    """(at most rank, w) orthonormal rows of the same span, the largest singular values'."""
    _, values, basis = torch.linalg.svd(rows, full_matrices=False)
    return basis[values > _ROUNDING * values.max()][: max(rank, 0)]
