"""Why Flower's secure aggregation carries no private integers here: its masks can be searched.

SecAgg+ of flwr 1.41 is to show a server the sum of its clients' integers and nothing else. A client
adds to its own a private mask, whose seed it later lets the server reconstruct, and for each
neighbour a pairwise mask, which the neighbour subtracts. All secrecy is in the pairwise masks.
`recover_integers` does to a round of two clients what its server can do without breaking the
protocol: from one client's upload and the private seed that it is given, it finds the pairwise mask
and with it the client's plain integers. The reasons, all in that release:

- A mask comes from NumPy's `RandomState` of a 32-bit number, the words of the seed xored together
  (`secaggplus_utils.pseudo_rand_gen`). A pairwise seed is base64 text, in which the top bit of
  every byte is 0, hence also in the number: there are 2^28 pairwise masks. Deriving the seed by
  ECDH and HKDF does not help. The generator, a Mersenne twister, is not a cryptographic one either.
- `randint(0, modulus − 1)` never gives the largest residue, so that masks are not uniform.
- A mask is recognised: the integers are far smaller than the modulus (2^22 of 2^32 by default),
  so that three or four numbers single out the right candidate. The first of them is the client's
  weight, and the number of examples that it is computed from goes to the server unmasked.
- With a second neighbour there are two unknown masks, and a table of all first numbers of one finds
  the other as soon as the weight is known (meet in the middle; not done here).

A server that does break the protocol needs no search. Clients get each other's public keys from
it, unsigned, so it can sit in the middle. And a client that is asked for its shares of the seeds
of active clients and of the keys of dropped ones does not check that no client is on both lists
(`secaggplus_mod._unmask`): asked for both, it gives both, which opens every mask.

Nor does it carry these integers as they are: quantisation passes through floats and int32, weights
through a float ratio, so that numbers of 2^31 and more have to be cut into limbs; and the workflow
takes Flower's legacy context only. hushtune therefore offers no secure aggregation in this release.
"""

# Numba's decorators change what a function accepts, which its types do not say.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

#: How many pairwise masks there are.
PAIRWISE_MASKS = 2**28

# So many numbers of a vector are looked at in the search; with as many again for draws that
# `randint` rejects, the generator's first 397 + 16 words are all that is computed of its state.
_LOOKED_AT = 8
_DRAWN = 2 * _LOOKED_AT
_FAR = 397
# Candidates that are tried together: enough for vectors.
_TOGETHER = 32

_u32 = np.uint32


@dataclass(frozen=True)
class Recovered:
    """What one candidate makes of an upload.

    Attributes:
        candidate: which pairwise mask, from 0 up to 2^28.
        integers: the client's integers without masks, arrays of the upload's shapes.
    """

    candidate: int
    integers: list[np.ndarray]


def seed_of(candidate: int) -> int:
    """The number that `RandomState` gets: four groups of 7 bits, each in a byte of its own."""
    return sum(((candidate >> 7 * place) & 0x7F) << 8 * place for place in range(4))


def candidate_of(pairwise_seed: bytes) -> int:
    """Which candidate a pairwise seed is: its words xored, without the top bits of bytes."""
    folded = np.bitwise_xor.reduce(np.frombuffer(pairwise_seed, dtype="<u4"))
    return sum(((int(folded) >> 8 * place) & 0x7F) << 7 * place for place in range(4))


def recover_integers(
    masked: Sequence[np.ndarray],
    private_seed: bytes,
    *,
    adds: bool,
    bound: int,
    modulus: int = 2**32,
    candidates: range = range(PAIRWISE_MASKS),
) -> list[Recovered]:
    """All that a client's upload may have been, in a round of two clients.

    Args:
        masked: the upload: int64 arrays of residues, the first holding the client's weight.
        private_seed: the seed of its private mask, which the server reconstructs from shares.
        adds: whether the client adds the pairwise mask: its node's number is the larger one.
        bound: what all its integers are below.
        modulus: a power of two, at most 2^32.
        candidates: which pairwise masks to try, consecutive ones.

    Returns:
        Each candidate that leaves only integers below `bound`. One, if `bound` is small against
        the modulus and there are a few numbers; none, if the right one was not tried.
    """
    shapes = [each.shape for each in masked]
    private = _mask(private_seed, modulus, shapes)
    upload = [(each - mask) % modulus for each, mask in zip(masked, private, strict=True)]
    seen = np.concatenate([each.ravel() for each in upload])[:_LOOKED_AT].astype(np.uint32)
    found = _search(
        seen,
        _u32(candidates.start),
        len(candidates),
        adds,
        _u32(bound - 1),
        _u32(modulus - 1),
    )
    recovered = []
    for candidate in candidates.start + found:
        mask = _mask(seed_of(int(candidate)).to_bytes(4, "little"), modulus, shapes)
        sign = -1 if adds else 1
        integers = [(each + sign * own) % modulus for each, own in zip(upload, mask, strict=True)]
        if all((each < bound).all() for each in integers):
            recovered.append(Recovered(int(candidate), integers))
    return recovered


def _mask(seed: bytes, modulus: int, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    return pseudo_rand_gen(seed, modulus, shapes)


@njit(nogil=True)
def _search(seen, start, count, adds, largest, residues):
    """Places, from 0 up to `count`, of candidates that leave `seen` at most `largest`.

    The generator's state is filled by its recurrence (Matsumoto and Nishimura's init_genrand), for
    several candidates at a time, and the first outputs are tempered from it. `residues` is one less
    than the modulus, and is the one residue that `randint` rejects.
    """
    found = []
    word = np.empty(_TOGETHER, np.uint32)
    near = np.empty((_DRAWN + 1, _TOGETHER), np.uint32)
    far = np.empty((_DRAWN, _TOGETHER), np.uint32)
    for first in range(0, count, _TOGETHER):
        for lane in range(_TOGETHER):
            number = start + _u32(first + lane)
            spread = number & _u32(0x7F)
            spread |= (number & _u32(0x7F << 7)) << _u32(1)
            spread |= (number & _u32(0x7F << 14)) << _u32(2)
            word[lane] = spread | (number & _u32(0x7F << 21)) << _u32(3)
        near[0] = word
        for place in range(1, _DRAWN + 1):
            _advance(word, place)
            near[place] = word
        for place in range(_DRAWN + 1, _FAR):
            _advance(word, place)
        for place in range(_DRAWN):
            _advance(word, _FAR + place)
            far[place] = word
        for lane in range(min(_TOGETHER, count - first)):
            if _fits(near[:, lane], far[:, lane], seen, adds, largest, residues):
                found.append(first + lane)
    return np.array(found, dtype=np.int64)


@njit(nogil=True, inline="always")
def _advance(word, place):
    for lane in range(_TOGETHER):
        before = word[lane]
        word[lane] = _u32(1812433253) * (before ^ (before >> _u32(30))) + _u32(place)


@njit(nogil=True)
def _fits(near, far, seen, adds, largest, residues):
    accepted = 0
    for draw in range(_DRAWN):
        joined = (near[draw] & _u32(0x80000000)) | (near[draw + 1] & _u32(0x7FFFFFFF))
        output = far[draw] ^ (joined >> _u32(1))
        if joined & _u32(1):
            output ^= _u32(0x9908B0DF)
        output ^= output >> _u32(11)
        output ^= (output << _u32(7)) & _u32(0x9D2C5680)
        output ^= (output << _u32(15)) & _u32(0xEFC60000)
        output ^= output >> _u32(18)
        mask = _u32(output & residues)
        if mask == residues:
            continue
        plain = seen[accepted] - mask if adds else seen[accepted] + mask
        if _u32(plain & residues) > largest:
            return False
        accepted += 1
        if accepted == len(seen):
            return True
    return True
