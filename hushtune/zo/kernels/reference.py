"""Public directions in plain NumPy: the definition to check other implementations against.

Slow, and takes memory in proportion to the entries asked for. Functions are described in
`hushtune.zo.kernels`.
"""

from __future__ import annotations

import numpy as np

from hushtune.zo.kernels import SHORTS_PER_BLOCK, SIGNS_PER_BLOCK, Stream, normal_table

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(counter: np.ndarray, key: int) -> np.ndarray:
    """Philox 4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Args:
      counter: Counters, an array of shape (n, 4) whose entries are below 2^32.
      key: 64 bits; the low half is the first word of the key.

    Returns:
      Random words, uint32 of shape (n, 4).
    """
    c0, c1, c2, c3 = np.asarray(counter, dtype=np.uint64).T
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        # Products of two 32-bit words fit 64 bits; their halves are what the round mixes.
        product0, product1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product1 >> _32) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _32) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def _fields(stream: Stream, first: int, count: int, width: int) -> np.ndarray:
    """Entries first to first + count of the stream cut into fields of `width` bits, low bits first.

    Returns uint32 of shape (count,).
    """
    per_word = 32 // width
    per_block = 4 * per_word
    low, high = first // per_block, -(-(first + count) // per_block)
    counter = np.empty((high - low, 4), dtype=np.uint64)
    counter[:, 0] = np.arange(low, high, dtype=np.uint64)
    counter[:, 1] = stream.direction
    counter[:, 2] = stream.charge & 0xFFFFFFFF
    counter[:, 3] = stream.charge >> 32
    words = philox(counter, stream.key).reshape(-1, 1).astype(np.uint64)
    shifts = np.arange(per_word, dtype=np.uint64) * np.uint64(width)
    fields = (words >> shifts) & np.uint64(2**width - 1)
    start = first - low * per_block
    return fields.reshape(-1)[start : start + count].astype(np.uint32)


def _shorts(stream: Stream, first: int, count: int) -> np.ndarray:
    return _fields(stream, first, count, 128 // SHORTS_PER_BLOCK)


def _entries(stream: Stream, first: int, count: int, unit: np.float32 | None) -> np.ndarray:
    """Entries of z as float32 of shape (count,)."""
    if unit is None:
        bits = _fields(stream, first, count, 128 // SIGNS_PER_BLOCK)
        return bits.astype(np.float32) * np.float32(2) - np.float32(1)
    return normal_table()[_shorts(stream, first, count)].astype(np.float32) * unit


def widen(bfloat16: np.ndarray) -> np.ndarray:
    """Turns bfloat16 bit patterns (uint16) into the float32 numbers they stand for."""
    return (bfloat16.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """Rounds float32 to bfloat16 bit patterns (uint16), ties to even, any NaN to 0x7FC0."""
    bits = values.view(np.uint32).astype(np.uint64)
    odd = (bits >> np.uint64(16)) & np.uint64(1)
    rounded = ((bits + np.uint64(0x7FFF) + odd) >> np.uint64(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def perturb(out, tensor, stream, first, scale, unit) -> None:
    step = scale * _entries(stream, first, out.size, unit)
    if out.dtype == np.uint16:
        out[:] = narrow(widen(tensor) + step)
    else:
        out[:] = tensor + step


def combine(out, stream, first, coefficients, units) -> None:
    out[:] = 0
    for k, coefficient in enumerate(coefficients):
        unit = None if units is None else units[k]
        of_direction = stream._replace(direction=stream.direction + k)
        out += coefficient * _entries(of_direction, first, out.size, unit)


def perturb_rows(out, rows, stream, scale, unit) -> None:
    for row, values in zip(rows, out, strict=True):
        perturb(values, values, stream, int(row) * out.shape[1], scale, unit)


def move(tensor, stream, first, coefficients, units, rounding) -> None:
    total = np.empty(tensor.size, np.float32)
    combine(total, stream, first, coefficients, units)
    if tensor.dtype == np.uint16:
        round_bfloat16(tensor, widen(tensor) + total, rounding, first)
    elif tensor.dtype == np.float16:
        round_float16(tensor, tensor + total, rounding, first)
    else:
        tensor += total


def sum_of_squares(stream, count, device=None) -> int:
    del device
    integers = normal_table()[_shorts(stream, 0, count)].astype(np.int64)
    return int((integers * integers).sum())


def round_bfloat16(out, values, stream, first) -> None:
    pattern = values.view(np.uint32).astype(np.uint64)
    rounded = (pattern + _shorts(stream, first, out.size)) >> np.uint64(16)
    # A finite number never becomes infinite: infinity would be wrong by any measure of bias.
    overflows = (rounded & np.uint64(0x7F80)) == np.uint64(0x7F80)
    finite = rounded - overflows
    infinite = np.where(np.isnan(values), np.uint64(0x7FC0), pattern >> np.uint64(16))
    out[:] = np.where(np.isfinite(values), finite, infinite)


def round_float16(out, values, stream, first) -> None:
    finite = np.isfinite(values)
    magnitude = np.abs(np.where(finite, values, 0)).astype(np.float64)
    # Numbers in [2^e, 2^(e+1)) are 2^(e-10) apart in float16, and below 2^-14 all are 2^-24 apart.
    spacing = np.ldexp(1.0, np.maximum(np.frexp(magnitude)[1] - 1, -14) - 10)
    steps = np.floor(magnitude / spacing)
    remainder = np.floor((magnitude / spacing - steps) * 65536)
    steps += remainder + _shorts(stream, first, out.size) >= 65536
    rounded = np.copysign(np.minimum(steps * spacing, 65504.0), values)
    with np.errstate(invalid="ignore"):
        out[:] = np.where(finite, rounded, values).astype(np.float16)


def uniform(out, stream, first, bound) -> None:
    # The odd integers between -2^24 and 2^24: exact in float32, symmetric, and never the bound.
    odd = 2 * (_fields(stream, first, out.size, 32) >> np.uint32(8)).astype(np.int64) + 1 - 2**24
    out[:] = bound * (odd.astype(np.float32) * np.float32(2**-24))
