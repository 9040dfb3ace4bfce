"""What Numba compiles for a CPU: at first use, and cached on disk where possible.

Without fastmath, LLVM neither reorders nor fuses floating-point operations, so the bits are those
of the reference. Arrays of uint16 are bfloat16 patterns and arrays of int16 float16 patterns: their
arithmetic is done in integers here. An empty `table` stands for Rademacher signs.
"""

# Numba's decorators change what a function accepts, which its types do not say.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

# Blocks of 16-bit fields that are generated together: enough for vectors, and they stay in cache.
_TOGETHER = 64

# Entries that are worked on at a time, and stay in the first-level cache meanwhile.
TILE = 4096

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32
_LOW = _u64(0xFFFFFFFF)


def _compiled(function, **chosen):
    options = {"nogil": True, "fastmath": False, **chosen}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # No folder for the cache is writable: compile in every process instead.
        return njit(**options)(function)


_shared = functools.partial(_compiled, parallel=True)


# All compiled code of the kernels is in this file: Numba's cache notices changes of one file only.


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


# Inlined before LLVM sees it, which then finds vectors in loops over blocks.
@functools.partial(_compiled, inline="always")
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
    return c0, c1, c2, c3


@_compiled
def _shorts(fields, words, stream, k, block):
    """Fills `fields` (8 a block) with the 16-bit fields of consecutive blocks."""
    key, charge, direction = stream[0], stream[1], stream[2] + _u64(k)
    # Consecutive stores, so that LLVM computes several blocks at once in vectors.
    for b in range(_TOGETHER):
        w0, w1, w2, w3 = _philox(key, charge, direction, block + b)
        words[b], words[_TOGETHER + b] = w0 | w1 << _u64(32), w2 | w3 << _u64(32)
    for b in range(_TOGETHER):
        for i in range(4):
            fields[8 * b + i] = words[b] >> _u64(16 * i)
            fields[8 * b + 4 + i] = words[_TOGETHER + b] >> _u64(16 * i)


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


def _widen(value):
    """The float32 that a pattern stands for."""


@overload(_widen)
def _choose_widen(value):
    def bfloat16(value):
        return _from_bits(_u32(value) << _u32(16))

    def float16(value):
        magnitude, sign = _u32(value) & _u32(0x7FFF), (_u32(value) & _u32(0x8000)) << _u32(16)
        bits = (magnitude << _u32(13)) + _u32(112 << 23)
        if magnitude < _u32(0x0400):
            bits = _to_bits(_f32(magnitude) * _f32(2**-24))
        if magnitude >= _u32(0x7C00):
            bits = (magnitude << _u32(13)) | _u32(0x7F800000)
        return _from_bits(bits | sign)

    return float16 if value.signed else bfloat16


def _randomly(pattern, value, field):
    """`value` rounded to the format of `pattern`, which is not read, with 16 random bits."""


@overload(_randomly)
def _choose_randomly(pattern, value, field):
    def bfloat16(pattern, value, field):
        bits = _to_bits(value)
        magnitude = bits & _u32(0x7FFFFFFF)
        # Numba widens sums to 64 bits; narrowed again, they fill vectors of twice the length.
        rounded = _u32(bits + field) >> _u32(16)
        # A finite number never becomes infinite.
        overflows = (rounded & _u32(0x7F80)) == _u32(0x7F80)
        rounded = _u32(rounded - _u32(1)) if overflows else _u32(rounded)
        rounded = _u32(bits >> _u32(16)) if magnitude == _u32(0x7F800000) else rounded
        return np.uint16(_u32(0x7FC0) if magnitude > _u32(0x7F800000) else rounded)

    def float16(pattern, value, field):
        bits = _to_bits(value)
        magnitude = bits & _u32(0x7FFFFFFF)
        exponent = max(magnitude >> _u32(23), _u32(1))
        whole = magnitude & _u32(0x7FFFFF)
        whole += _u32(0x800000) if magnitude >= _u32(0x800000) else _u32(0)
        # The magnitude is `whole` / 2^16 gaps of float16 after a shift to the left or right.
        left = min(max(exponent, _u32(110)) - _u32(110), _u32(3))
        right = min(_u32(110) - min(exponent, _u32(110)), _u32(31))
        steps = (((whole << left) >> right) + _u32(field)) >> _u32(16)
        # Past 1023 steps the exponent counts on; 0x7BFF is the largest finite number.
        base = max(exponent, _u32(113)) - _u32(113)
        rounded = min((base << _u32(10)) + steps, _u32(0x7BFF))
        special = _u32(0x7E00) if value != value else _u32(0x7C00)
        rounded = special if magnitude >= _u32(0x7F800000) else rounded
        return np.int16(rounded | ((bits >> _u32(16)) & _u32(0x8000)))

    return float16 if pattern.signed else bfloat16


@_compiled
def _add_signs(out, tensor, words, scale, start):
    """Adds one block whose first entry is at `start`, which may lie before or end after `out`."""
    if start >= 0 and start + 128 <= out.size:
        _add_word(out, tensor, start, _u32(words[0]), scale)
        _add_word(out, tensor, start + 32, _u32(words[1]), scale)
        _add_word(out, tensor, start + 64, _u32(words[2]), scale)
        _add_word(out, tensor, start + 96, _u32(words[3]), scale)
    else:
        for i in range(max(start, 0), min(start + 128, out.size)):
            j = i - start
            step = scale if (words[j >> 5] >> _u64(j & 31)) & _u64(1) else -scale
            out[i] = _plus(tensor[i], step)


@_compiled
def _add_normals(out, tensor, fields, table, scale, unit):
    for i in range(out.size):
        out[i] = _plus(tensor[i], scale * (_f32(table[fields[i]]) * unit))


# Serial kernels: blocks low to high of one array. Those below them share the blocks among threads.


@_compiled
def _words(words, stream, k, block):
    """Fills `words` with those of consecutive blocks: all the first ones, then the second, …"""
    key, charge, direction = stream[0], stream[1], stream[2] + _u64(k)
    # Consecutive stores, so that LLVM computes several blocks at once in vectors.
    for b in range(TILE // 128):
        w0, w1, w2, w3 = _philox(key, charge, direction, block + b)
        words[0, b], words[1, b], words[2, b], words[3, b] = w0, w1, w2, w3


@_compiled
def _few_signs(low, high, out, tensor, stream, first, coefficients):
    for block in range(low, high):
        for k in range(coefficients.size):
            words = _philox(stream[0], stream[1], stream[2] + _u64(k), block)
            source = tensor if k == 0 else out
            _add_signs(out, source, words, coefficients[k], block * 128 - first)


@_compiled
def signs(low, high, out, tensor, stream, first, coefficients):
    if high - low < 8:  # such as a row of an embedding
        _few_signs(low, high, out, tensor, stream, first, coefficients)
        return
    words = np.empty((4, TILE // 128), np.uint64)
    for group in range(low, high, TILE // 128):
        for k in range(coefficients.size):
            _words(words, stream, k, group)
            source = tensor if k == 0 else out
            for b in range(min(TILE // 128, high - group)):
                of_block = words[0, b], words[1, b], words[2, b], words[3, b]
                _add_signs(out, source, of_block, coefficients[k], (group + b) * 128 - first)


@_compiled
def normals(low, high, out, tensor, stream, first, coefficients, units, table):
    fields, words = np.empty(8 * _TOGETHER, np.uint16), np.empty(2 * _TOGETHER, np.uint64)
    for block in range(low, high, _TOGETHER):
        start = block * 8 - first
        a, b = max(start, 0), min(min(block + _TOGETHER, high) * 8 - first, out.size)
        for k in range(coefficients.size):
            _shorts(fields, words, stream, k, block)
            source = tensor if k == 0 else out
            of_k = fields[a - start :]
            _add_normals(out[a:b], source[a:b], of_k, table, coefficients[k], units[k])


@_compiled
def squares(low, high, stream, count, table):
    fields, words = np.empty(8 * _TOGETHER, np.uint16), np.empty(2 * _TOGETHER, np.uint64)
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
        out[i] = _randomly(out[i], values[i], fields[i])


@_compiled
def round_all(low, high, out, values, stream, first):
    fields, words = np.empty(8 * _TOGETHER, np.uint16), np.empty(2 * _TOGETHER, np.uint64)
    for block in range(low, high, _TOGETHER):
        _shorts(fields, words, stream, 0, block)
        start = block * 8 - first
        a, b = max(start, 0), min(min(block + _TOGETHER, high) * 8 - first, out.size)
        _round_together(out[a:b], values[a:b], fields[a - start :])


@_compiled
def _z(out, tensor, stream, first, coefficients, units, table):
    """Signs or normals over all of `out`."""
    end = first + out.size
    if table.size:
        args = coefficients, units, table
        normals(first // 8, -(-end // 8), out, tensor, stream, first, *args)
    else:
        signs(first // 128, -(-end // 128), out, tensor, stream, first, coefficients)


def _apply(out, total, rounding, first):
    """Adds `total`, which may be overwritten."""


@overload(_apply)
def _choose_apply(out, total, rounding, first):
    def plain(out, total, rounding, first):
        for i in range(out.size):
            out[i] += total[i]

    def rounded(out, total, rounding, first):
        for i in range(out.size):
            total[i] = _widen(out[i]) + total[i]
        round_all(first // 8, -(-(first + out.size) // 8), out, total, rounding, first)

    return rounded if isinstance(out.dtype, types.Integer) else plain


@_compiled
def move(low, high, out, stream, first, coefficients, units, table, rounding):
    total = np.empty(TILE, np.float32)
    for tile in range(low, high):
        a, b = max(tile * TILE - first, 0), min((tile + 1) * TILE - first, out.size)
        part = total[: b - a]
        part[:] = 0
        _z(part, part, stream, first + a, coefficients, units, table)
        _apply(out[a:b], part, rounding, first + a)


@_compiled
def each_row(low, high, out, rows, stream, coefficients, units, table):
    for i in range(low, high):
        _z(out[i], out[i], stream, rows[i] * out.shape[1], coefficients, units, table)


@_shared
def shared_signs(low, high, pieces, out, tensor, stream, first, coefficients):
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        signs(a, b, out, tensor, stream, first, coefficients)


@_shared
def shared_normals(low, high, pieces, out, tensor, stream, first, coefficients, units, table):
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        normals(a, b, out, tensor, stream, first, coefficients, units, table)


@_shared
def shared_squares(low, high, pieces, stream, count, table):
    total = 0
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        total += squares(a, b, stream, count, table)
    return total


@_shared
def shared_round_all(low, high, pieces, out, values, stream, first):
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        round_all(a, b, out, values, stream, first)


@_shared
def shared_move(low, high, pieces, out, stream, first, coefficients, units, table, rounding):
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        move(a, b, out, stream, first, coefficients, units, table, rounding)


@_shared
def shared_each_row(low, high, pieces, out, rows, stream, coefficients, units, table):
    for i in prange(pieces):
        a, b = low + (high - low) * i // pieces, low + (high - low) * (i + 1) // pieces
        each_row(a, b, out, rows, stream, coefficients, units, table)
