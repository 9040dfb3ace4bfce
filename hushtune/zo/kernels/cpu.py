"""Public directions on a CPU: the compiled kernels, on one thread or on all of torch's.

Functions are described in `hushtune.zo.kernels`.
"""

# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

from __future__ import annotations

import os
import threading

import numba
import numpy as np
import torch

from hushtune.zo.kernels import SHORTS_PER_BLOCK, SIGNS_PER_BLOCK, compiled, normal_table
from hushtune.zo.kernels.reference import uniform

__all__ = [
    "array",
    "combine",
    "move",
    "perturb",
    "perturb_rows",
    "round_bfloat16",
    "round_float16",
    "sum_of_squares",
    "uniform",
]

# Below this number of generated entries, waking other threads costs more than it saves.
_PARALLEL_FROM = 1 << 17

# Entries of float16 that are widened at a time.
_CHUNK = 1 << 18

# Numba's simplest threading layer, the only one on some systems, may not be entered twice at once.
_one_at_a_time = threading.Lock()

# OpenMP's threads do not exist in a forked child, which would wait for them forever.
_alone = threading.Event()
os.register_at_fork(after_in_child=_alone.set)

_NO_TABLE, _NO_UNITS = np.empty(0, np.int16), np.empty(0, np.float32)


def array(flat: torch.Tensor) -> np.ndarray:
    return (flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat).numpy()


def perturb(out, tensor, stream, first, scale, unit) -> None:
    if out.dtype == np.float16:
        for low in range(0, out.size, _CHUNK):
            # torch converts float16 several times faster than NumPy.
            wide = torch.from_numpy(tensor[low : low + _CHUNK]).float().numpy()
            perturb(wide, wide, stream, first + low, scale, unit)
            torch.from_numpy(out)[low : low + wide.size] = torch.from_numpy(wide)
        return
    units = None if unit is None else np.array([unit], dtype=np.float32)
    _add(out, tensor, stream, first, np.array([scale], dtype=np.float32), units)


def perturb_rows(out, rows, stream, scale, unit) -> None:
    if out.dtype == np.float16:
        wide = out.astype(np.float32)
        perturb_rows(wide, rows, stream, scale, unit)
        torch.from_numpy(out)[:] = torch.from_numpy(wide)
        return
    units = None if unit is None else np.array([unit], dtype=np.float32)
    arguments = (out, rows, _words(stream), np.array([scale], dtype=np.float32), *_table(units))
    _run(compiled.each_row, compiled.shared_each_row, 0, len(out), 1, out.size, *arguments)


def combine(out, stream, first, coefficients, units) -> None:
    out.fill(0)
    _add(out, out, stream, first, coefficients, units)


def move(tensor, stream, first, coefficients, units, rounding) -> None:
    arguments = (_patterns(tensor), _words(stream), first, coefficients, *_table(units))
    arguments += (_words(rounding),)
    work = tensor.size * len(coefficients)
    _run(compiled.move, compiled.shared_move, first, tensor.size, compiled.TILE, work, *arguments)


def sum_of_squares(stream, count, device: torch.device) -> int:
    del device
    arguments = (_words(stream), count, normal_table())
    kernels = compiled.squares, compiled.shared_squares
    return int(_run(*kernels, 0, count, SHORTS_PER_BLOCK, count, *arguments))


def round_bfloat16(out, values, stream, first) -> None:
    arguments = (_patterns(out), values, _words(stream), first)
    kernels = compiled.round_all, compiled.shared_round_all
    _run(*kernels, first, out.size, SHORTS_PER_BLOCK, out.size, *arguments)


round_float16 = round_bfloat16


def _add(out, tensor, stream, first, coefficients, units) -> None:
    work = out.size * len(coefficients)
    arguments = (out, tensor, _words(stream), first, coefficients)
    if units is None:
        kernels = compiled.signs, compiled.shared_signs
        _run(*kernels, first, out.size, SIGNS_PER_BLOCK, work, *arguments)
    else:
        kernels = compiled.normals, compiled.shared_normals
        _run(*kernels, first, out.size, SHORTS_PER_BLOCK, work, *arguments, *_table(units))


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


def _words(stream) -> np.ndarray:
    return np.array(stream, dtype=np.uint64)


def _table(units) -> tuple[np.ndarray, np.ndarray]:
    return (_NO_UNITS, _NO_TABLE) if units is None else (units, normal_table())


def _patterns(array: np.ndarray) -> np.ndarray:
    """float16 as the compiled kernels know it."""
    return array.view(np.int16) if array.dtype == np.float16 else array
