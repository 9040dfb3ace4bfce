"""Public directions on a CUDA device: Triton, compiled at first use.

Functions are described in `hushtune.zo.kernels`; arrays are flat, contiguous tensors of one device.
Random bits and 16-bit formats are computed in integers, and launches forbid fused multiply-add, so
the bits are those of the reference.
"""

# Triton's decorator turns functions into kernels that are launched by indexing.
# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportInvalidTypeForm=false

from __future__ import annotations

import contextlib
import functools

import numpy as np
import torch
import triton
import triton.language as tl

from hushtune.zo.kernels import SIGNS_PER_BLOCK, normal_table

# Entries of one program: enough that few threads generate the same bits, and they fit registers.
_ENTRIES = 4096

# Numbers that change from call to call must not each compile a kernel of their own.
_CHANGING = ("count", "first", "key", "charge", "direction", "many", "round_key", "round_charge")
_kernel = triton.jit(do_not_specialize=_CHANGING)


@triton.jit
def _fields(start, key, charge, direction, WIDTH: tl.constexpr, ENTRIES: tl.constexpr):
    """Fields of `WIDTH` bits of the entries from `start`, which begins a block: uint32."""
    PER_WORD: tl.constexpr = 32 // WIDTH
    BLOCKS: tl.constexpr = ENTRIES // (4 * PER_WORD)
    block = (start // (4 * PER_WORD) + tl.arange(0, BLOCKS)).to(tl.uint32)
    same = tl.zeros_like(block)
    w0, w1, w2, w3 = tl.philox_impl(
        block,
        same + direction.to(tl.uint32),
        same + charge.to(tl.uint32),
        same + (charge.to(tl.uint64) >> 32).to(tl.uint32),
        key.to(tl.uint32),
        (key.to(tl.uint64) >> 32).to(tl.uint32),
    )
    # Each join adds a last dimension, so that the words come in order.
    words = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (BLOCKS, 4))
    shifts = (tl.arange(0, PER_WORD) * WIDTH).to(tl.uint32)
    fields = (words[:, :, None] >> shifts[None, None, :]) & ((1 << WIDTH) - 1)
    return tl.reshape(fields, (ENTRIES,))


@triton.jit
def _step(
    start, key, charge, direction, scale, unit, table, NORMAL: tl.constexpr, ENTRIES: tl.constexpr
):
    """scale * z of the entries from `start`, float32."""
    if NORMAL:
        integers = tl.load(table + _fields(start, key, charge, direction, 16, ENTRIES))
        return scale * (integers.to(tl.float32) * unit)
    else:
        return tl.where(_fields(start, key, charge, direction, 1, ENTRIES) != 0, scale, -scale)


@triton.jit
def _widen(values):
    """To what is summed: bfloat16 patterns (uint16) and float16 to float32."""
    if values.dtype == tl.uint16:
        return (values.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    elif values.dtype == tl.float16:
        return values.to(tl.float32)
    else:
        return values


@triton.jit
def _nearest_bfloat16(values):
    bits = values.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(values != values, 0x7FC0, rounded).to(tl.uint16)


@triton.jit
def _random_bfloat16(values, bits):
    pattern = values.to(tl.uint32, bitcast=True)
    special = (pattern & 0x7F800000) == 0x7F800000
    rounded = (tl.where(special, 0, pattern) + bits) >> 16
    # A finite number never becomes infinite.
    rounded -= ((rounded & 0x7F80) == 0x7F80).to(tl.uint32)
    kept = tl.where(values != values, 0x7FC0, pattern >> 16)
    return tl.where(special, kept, rounded).to(tl.uint16)


@triton.jit
def _random_float16(values, bits):
    pattern = values.to(tl.uint32, bitcast=True)
    magnitude = pattern & 0x7FFFFFFF
    exponent = tl.maximum(magnitude >> 23, 1)
    whole = tl.where(magnitude >= 0x00800000, 0x800000, 0) + (magnitude & 0x7FFFFF)
    # The magnitude is `whole` / 2^16 gaps of float16 after this shift, to the left or to the right.
    base = tl.maximum(exponent, 113)
    left = tl.where(exponent >= 113, 3, tl.maximum(exponent, 110) - 110)
    right = tl.minimum(110 - tl.minimum(exponent, 110), 31)
    steps = (((whole << left) >> right) + bits) >> 16
    # Past 1023 steps the exponent counts on; 0x7BFF is the largest finite number.
    finite = tl.minimum(((base - 113) << 10) + steps, 0x7BFF)
    special = tl.where(values != values, 0x7E00, 0x7C00)
    rounded = tl.where(magnitude >= 0x7F800000, special, finite) | ((pattern >> 16) & 0x8000)
    return rounded.to(tl.uint16).to(tl.float16, bitcast=True)


@_kernel
def _perturb(
    out,
    tensor,
    rows,
    table,
    count: tl.int64,
    first: tl.int64,
    key: tl.uint64,
    charge: tl.uint64,
    direction: tl.int64,
    scale: tl.float32,
    unit: tl.float32,
    NORMAL: tl.constexpr,
    ROWS: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    place = tl.program_id(1).to(tl.int64) * count
    first = first.to(tl.int64)
    if ROWS:
        first = tl.load(rows + tl.program_id(1)) * count
    start = first // 128 * 128 + tl.program_id(0).to(tl.int64) * ENTRIES
    entry = start - first + tl.arange(0, ENTRIES)
    within = (entry >= 0) & (entry < count)
    value = _widen(tl.load(tensor + place + entry, mask=within, other=0))
    scale = tl.full((1,), scale, tl.float32)
    step = _step(start, key, charge, direction, scale, unit, table, NORMAL, ENTRIES)
    total = value + step.to(value.dtype)
    if out.dtype.element_ty == tl.uint16:
        total = _nearest_bfloat16(total)
    tl.store(out + place + entry, total.to(out.dtype.element_ty), mask=within)


@_kernel
def _move(
    out,
    tensor,
    coefficients,
    units,
    table,
    count: tl.int64,
    first: tl.int64,
    key: tl.uint64,
    charge: tl.uint64,
    direction: tl.int64,
    many: tl.int32,
    round_key: tl.uint64,
    round_charge: tl.uint64,
    NORMAL: tl.constexpr,
    MOVES: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    start = first.to(tl.int64) // 128 * 128 + tl.program_id(0).to(tl.int64) * ENTRIES
    entry = start - first + tl.arange(0, ENTRIES)
    within = (entry >= 0) & (entry < count)
    value = _widen(tl.load(tensor + entry, mask=within, other=0))
    if MOVES:
        total = tl.zeros((ENTRIES,), tl.float32)
        for k in range(many):
            scale, unit = tl.load(coefficients + k), tl.load(units + k)
            of_k = direction.to(tl.int64) + k
            total += _step(start, key, charge, of_k, scale, unit, table, NORMAL, ENTRIES)
        value += total
    if out.dtype.element_ty != tl.float32:
        bits = _fields(start, round_key, round_charge, tl.to_tensor(0), 16, ENTRIES)
        if out.dtype.element_ty == tl.uint16:
            value = _random_bfloat16(value, bits)
        else:
            value = _random_float16(value, bits)
    tl.store(out + entry, value, mask=within)


@_kernel
def _squares(
    sums, table, count: tl.int64, key: tl.uint64, charge: tl.uint64, direction: tl.int64,
    ENTRIES: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * ENTRIES
    integers = tl.load(table + _fields(start, key, charge, direction, 16, ENTRIES)).to(tl.int64)
    within = start + tl.arange(0, ENTRIES) < count
    total = tl.sum(tl.where(within, integers * integers, 0))
    tl.store(sums + tl.program_id(0), total)


def array(flat: torch.Tensor) -> torch.Tensor:
    return flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat


def perturb(out, tensor, stream, first, scale, unit) -> None:
    _launch_perturb(out, tensor, None, 1, out.numel(), stream, first, scale, unit)


def perturb_rows(out, rows, stream, scale, unit) -> None:
    many, width = out.shape
    # A launch's second dimension is below 2^16.
    for low in range(0, many, 1 << 15):
        some, where = out[low : low + (1 << 15)], rows[low : low + (1 << 15)]
        _launch_perturb(some, some, where, len(where), width, stream, 0, scale, unit)


def move(tensor, stream, first, coefficients, units, rounding) -> None:
    _launch_move(tensor, tensor, stream, first, coefficients, units, rounding)


def combine(out, stream, first, coefficients, units) -> None:
    # Sums that start from 0 are never -0, so that adding them to 0 changes nothing.
    move(out.zero_(), stream, first, coefficients, units, stream)


def sum_of_squares(stream, count, device: torch.device) -> int:
    programs = triton.cdiv(count, _ENTRIES)
    sums = torch.zeros(programs, dtype=torch.int64, device=device)
    if count:
        with _current(sums):
            _squares[programs,](sums, _table(device), count, *stream, ENTRIES=_ENTRIES)
    return int(sums.sum())


def round_bfloat16(out, values, stream, first) -> None:
    _launch_move(out, values, stream, first, None, None, stream)


round_float16 = round_bfloat16


def _launch_perturb(out, tensor, rows, many, count, stream, first, scale, unit) -> None:
    if not out.numel():
        return
    grid = triton.cdiv(count + SIGNS_PER_BLOCK - 1, _ENTRIES), many
    with _current(out):
        _perturb[grid](
            out,
            tensor,
            out if rows is None else rows,
            _table(out.device),
            count,
            first,
            *stream,
            float(scale),
            0.0 if unit is None else float(unit),
            NORMAL=unit is not None,
            ROWS=rows is not None,
            ENTRIES=_ENTRIES,
            enable_fp_fusion=False,
        )


def _launch_move(out, tensor, stream, first, coefficients, units, rounding) -> None:
    if not out.numel():
        return
    moves = coefficients is not None
    factors = _on(out.device, coefficients) if moves else out
    grid = (triton.cdiv(out.numel() + SIGNS_PER_BLOCK - 1, _ENTRIES),)
    with _current(out):
        _move[grid](
            out,
            tensor,
            factors,
            factors if units is None else _on(out.device, units),
            _table(out.device),
            out.numel(),
            first,
            *stream,
            len(coefficients) if moves else 0,
            rounding.key,
            rounding.charge,
            NORMAL=units is not None,
            MOVES=moves,
            ENTRIES=_ENTRIES,
            enable_fp_fusion=False,
        )


def _on(device: torch.device, values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


@functools.cache
def _table(device: torch.device) -> torch.Tensor:
    return torch.from_numpy(normal_table().copy()).to(device)


def _current(tensor: torch.Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device, whatever the tensors' is."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else contextlib.nullcontext()
