"""Public directions on a CPU: Numba, compiled at first use and cached on disk where possible.

Functions are described in `hushtune.zo.kernels`. Without fastmath, LLVM neither reorders nor fuses
floating-point operations, so the bits are those of the reference.
"""

# Numba's decorators change what a function accepts, which its types do not say.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import functools
import os
import threading

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

from hushtune.zo.kernels import SHORTS_PER_BLOCK, SIGNS_PER_BLOCK, normal_table
from hushtune.zo.kernels.reference import round_float16, uniform

__all__ = ["combine", "perturb", "round_bfloat16", "round_float16", "sum_of_squares", "uniform"]

# Below this number of generated entries, waking other threads costs more than it saves.
_PARALLEL_FROM = 1 << 17

# Numba's simplest threading layer, the only one on some systems, may not be entered twice at once.
_one_at_a_time = threading.Lock()

# OpenMP's threads do not exist in a forked child, which would wait for them forever.
_alone = threading.Event()
os.register_at_fork(after_in_child=_alone.set)

# Blocks of 16-bit fields that are generated together: enough for vectors, and they stay in cache.
_TOGETHER = 64

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32
_LOW = _u64(0xFFFFFFFF)


def _compiled(function, *, parallel=False):
    options = {"nogil": True, "fastmath": False, "parallel": parallel}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # No folder for the cache is writable: compile in every process instead.
        return njit(**options)(function)


_shared = functools.partial(_compiled, parallel=True)


# All compiled code is in this file: Numba's cache notices changes of one file only.


@intrinsic
def _from_bits(_, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def _to_bits(_, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def _add_word(_, out, tensor, start, word, scale):
    """out[start : start + 32] = tensor[start : start + 32] ± scale, one bit of `word` a sign.

    Written as vectors of 32, since LLVM makes vectors of a loop only where it can show that `out`
    and `tensor` do not overlap, which is not so in place. Checks no bounds.
    """

    def generate(context, builder, signature, arguments):
        out, tensor, start, word, scale = arguments
        word_type, float_type = ir.IntType(32), ir.FloatType()
        element = context.get_data_type(signature.args[0].dtype)
        alignment = signature.args[0].dtype.bitwidth // 8

        def lanes(kind):
            return ir.VectorType(kind, 32)

        def constant(number):
            return ir.Constant(lanes(word_type), [number] * 32)

        def repeated(scalar):
            lane = ir.Constant(lanes(float_type), ir.Undefined)
            lane = builder.insert_element(lane, scalar, ir.Constant(word_type, 0))
            return builder.shuffle_vector(lane, lane, constant(0))

        def pointer(kind, array):
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [start]), lanes(element).as_pointer())

        signs = builder.bitcast(word, lanes(ir.IntType(1)))
        step = builder.select(signs, repeated(scale), repeated(builder.fneg(scale)))
        value = builder.load(pointer(signature.args[1], tensor), align=alignment)
        if element == ir.IntType(16):
            wide = builder.shl(builder.zext(value, lanes(word_type)), constant(16))
            total = builder.fadd(builder.bitcast(wide, lanes(float_type)), step)
            bits = builder.bitcast(total, lanes(word_type))
            odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
            bits = builder.add(builder.add(bits, constant(0x7FFF)), odd)
            nan = builder.fcmp_unordered("uno", total, total)
            bits = builder.select(nan, constant(0x7FC00000), bits)
            total = builder.trunc(builder.lshr(bits, constant(16)), lanes(element))
        else:
            if element != float_type:
                step = builder.fpext(step, lanes(element))
            total = builder.fadd(value, step)
        builder.store(total, pointer(signature.args[0], out), align=alignment)
        return context.get_dummy_value()

    return types.void(out, tensor, types.int64, types.uint32, types.float32), generate


@_compiled
def _philox(key, charge, direction, block):
    c0, c1 = _u64(block) & _LOW, direction & _LOW
    c2, c3 = charge & _LOW, charge >> _u64(32)
    k0, k1 = key & _LOW, key >> _u64(32)
    for _ in range(10):
        product0, product1 = c0 * _u64(0xD2511F53), c2 * _u64(0xCD9E8D57)
        c0 = (product1 >> _u64(32)) ^ c1 ^ k0
        c1 = product1 & _LOW
        c2 = (product0 >> _u64(32)) ^ c3 ^ k1
        c3 = product0 & _LOW
        k0, k1 = (k0 + _u64(0x9E3779B9)) & _LOW, (k1 + _u64(0xBB67AE85)) & _LOW
    return _u32(c0), _u32(c1), _u32(c2), _u32(c3)


@_compiled
def _shorts(fields, words, stream, k, block):
    """Fills `fields` (8 a block) with the 16-bit fields of consecutive blocks."""
    key, charge, direction = stream[0], stream[1], stream[2] + _u64(k)
    for b in range(_TOGETHER):
        w0, w1, w2, w3 = _philox(key, charge, direction, block + b)
        words[4 * b], words[4 * b + 1], words[4 * b + 2], words[4 * b + 3] = w0, w1, w2, w3
    for i in range(4 * _TOGETHER):
        fields[2 * i] = words[i] & _u32(0xFFFF)
        fields[2 * i + 1] = words[i] >> _u32(16)


def _plus(value, step):
    """The sum in the array's own way: bfloat16 patterns (uint16) are added as float32."""


@overload(_plus)
def _choose_plus(value, step):
    def bfloat16(value, step):
        total = _from_bits(_u32(_u32(value) << _u32(16))) + step
        bits = _to_bits(total)
        rounded = (bits + _u32(0x7FFF) + ((bits >> _u32(16)) & _u32(1))) >> _u32(16)
        return np.uint16(0x7FC0) if total != total else np.uint16(rounded)

    return bfloat16 if isinstance(value, types.Integer) else lambda value, step: value + step


@_compiled
def _add_signs(out, tensor, words, scale, start):
    """Adds one block whose first entry is at `start`, which may lie before or end after `out`."""
    if start >= 0 and start + 128 <= out.size:
        _add_word(out, tensor, start, words[0], scale)
        _add_word(out, tensor, start + 32, words[1], scale)
        _add_word(out, tensor, start + 64, words[2], scale)
        _add_word(out, tensor, start + 96, words[3], scale)
    else:
        for i in range(max(start, 0), min(start + 128, out.size)):
            j = i - start
            step = scale if (words[j >> 5] >> _u32(j & 31)) & _u32(1) else -scale
            out[i] = _plus(tensor[i], step)


@_compiled
def _add_normals(out, tensor, fields, table, scale, unit):
    for i in range(out.size):
        out[i] = _plus(tensor[i], scale * (_f32(table[fields[i]]) * unit))


# Serial kernels: blocks low to high of one array. Those below them share the blocks among threads.


@_compiled
def _signs(low, high, out, tensor, stream, first, coefficients):
    for block in range(low, high):
        for k in range(coefficients.size):
            words = _philox(stream[0], stream[1], stream[2] + _u64(k), block)
            source = tensor if k == 0 else out
            _add_signs(out, source, words, coefficients[k], block * 128 - first)


@_compiled
def _normals(low, high, out, tensor, stream, first, coefficients, units, table):
    fields, words = np.empty(8 * _TOGETHER, np.uint16), np.empty(4 * _TOGETHER, np.uint32)
    for block in range(low, high, _TOGETHER):
        start = block * 8 - first
        a, b = max(start, 0), min(min(block + _TOGETHER, high) * 8 - first, out.size)
        for k in range(coefficients.size):
            _shorts(fields, words, stream, k, block)
            source = tensor if k == 0 else out
            of_k = fields[a - start :]
            _add_normals(out[a:b], source[a:b], of_k, table, coefficients[k], units[k])


@_compiled
def _squares(low, high, stream, count, table):
    fields, words = np.empty(8 * _TOGETHER, np.uint16), np.empty(4 * _TOGETHER, np.uint32)
    total = np.int64(0)
    for block in range(low, high, _TOGETHER):
        _shorts(fields, words, stream, 0, block)
        for i in range(min(min(block + _TOGETHER, high) * 8, count) - block * 8):
            integer = np.int64(table[fields[i]])
            total += integer * integer
    return total


@_compiled
def _round_together(out, values, fields):
    for i in range(out.size):
        pattern = _u64(_to_bits(values[i]))
        rounded = (pattern + _u64(fields[i])) >> _u64(16)
        # A finite number never becomes infinite.
        rounded -= _u64((rounded & _u64(0x7F80)) == _u64(0x7F80))
        special = _u64(0x7FC0) if values[i] != values[i] else pattern >> _u64(16)
        is_special = (pattern & _u64(0x7F800000)) == _u64(0x7F800000)
        out[i] = np.uint16(special if is_special else rounded)


@_compiled
def _round(low, high, out, values, stream, first):
    fields, words = np.empty(8 * _TOGETHER, np.uint16), np.empty(4 * _TOGETHER, np.uint32)
    for block in range(low, high, _TOGETHER):
        _shorts(fields, words, stream, 0, block)
        start = block * 8 - first
        a, b = max(start, 0), min(min(block + _TOGETHER, high) * 8 - first, out.size)
        _round_together(out[a:b], values[a:b], fields[a - start :])


@_shared
def _shared_signs(low, high, pieces, out, tensor, stream, first, coefficients):
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        _signs(a, b, out, tensor, stream, first, coefficients)


@_shared
def _shared_normals(low, high, pieces, out, tensor, stream, first, coefficients, units, table):
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        _normals(a, b, out, tensor, stream, first, coefficients, units, table)


@_shared
def _shared_squares(low, high, pieces, stream, count, table):
    total = 0
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        total += _squares(a, b, stream, count, table)
    return total


@_shared
def _shared_round(low, high, pieces, out, values, stream, first):
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        _round(a, b, out, values, stream, first)


def _run(serial, shared, first, count, per_block, work, *arguments):
    """Runs a kernel over the blocks of entries first to first + count, alone or on all threads."""
    low, high = first // per_block, -(-(first + count) // per_block)
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    if threads == 1 or work < _PARALLEL_FROM or _alone.is_set():
        return serial(low, high, *arguments)
    with _one_at_a_time:
        numba.set_num_threads(threads)
        # More pieces than threads, so that a thread that is held up holds up less.
        return shared(low, high, 8 * threads, *arguments)


def _add(out, tensor, stream, first, coefficients, units):
    words = np.array(stream, dtype=np.uint64)
    work = out.size * len(coefficients)
    arguments = (out, tensor, words, first, coefficients)
    if units is None:
        _run(_signs, _shared_signs, first, out.size, SIGNS_PER_BLOCK, work, *arguments)
    else:
        arguments += (units, normal_table())
        _run(_normals, _shared_normals, first, out.size, SHORTS_PER_BLOCK, work, *arguments)


def perturb(out, tensor, stream, first, scale, unit) -> None:
    units = None if unit is None else np.array([unit], dtype=np.float32)
    _add(out, tensor, stream, first, np.array([scale], dtype=np.float32), units)


def combine(out, stream, first, coefficients, units) -> None:
    out.fill(0)
    _add(out, out, stream, first, coefficients, units)


def sum_of_squares(stream, count) -> int:
    arguments = (np.array(stream, dtype=np.uint64), count, normal_table())
    return int(_run(_squares, _shared_squares, 0, count, SHORTS_PER_BLOCK, count, *arguments))


def round_bfloat16(out, values, stream, first) -> None:
    arguments = (out, values, np.array(stream, dtype=np.uint64), first)
    _run(_round, _shared_round, first, out.size, SHORTS_PER_BLOCK, out.size, *arguments)
