"""The arithmetic of public directions, once for each kind of machine.

`hushtune.zo.directions` says what the numbers are; an implementation here only computes them. All
implementations give the same bits, so which of them ran is not part of a run's description.

An implementation is a module with these functions. Arrays are flat, contiguous, hold entries
``first, first + 1, ...`` of a parameter, and are what `array` makes of a tensor: NumPy arrays on a
CPU, tensors on a CUDA device. bfloat16 travels as its bit pattern in uint16. ``unit`` is None for
Rademacher signs; otherwise entries are integers of the normal table, each multiplied by that
float32. ``coefficients`` and ``units`` are NumPy arrays of float32.

    array(flat)                                               a tensor's memory
    perturb(out, tensor, stream, first, scale, unit)          out = tensor + scale * z
    perturb_rows(out, rows, stream, scale, unit)              out[i] += scale * z[rows[i]], where
                                                              z has the width of out
    move(tensor, stream, first, coefficients, units, rounding)
                                                              tensor += sum of coefficients[k] * z_k
                                                              16-bit formats stochastically rounded
                                                              with the bits of stream `rounding`
    combine(out, stream, first, coefficients, units)          out = sum of coefficients[k] * z_k
    sum_of_squares(stream, count, device) -> int              of the table's integers, exact
    round_bfloat16(out, values, stream, first)                stochastic rounding of float32
    round_float16(out, values, stream, first)                 the same to float16
    uniform(out, stream, first, bound)                        uniform on (-bound, bound); not CUDA
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from statistics import NormalDist
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

SIGNS_PER_BLOCK = 128
"""Rademacher entries that one Philox block of 128 bits gives: one bit each."""

SHORTS_PER_BLOCK = 8
"""Normal entries, or bits for stochastic rounding, of one Philox block: 16 bits each."""

PURPOSES = ("direction", "initialise", "round")
"""What random bits are for. Different purposes share none."""

NORMAL_TABLE_SHA256 = "1ea009ce409dac97d6bd609266910f809c5fb912f78e16bd89145b08174d6fc5"
"""Hash of the normal table as little-endian int16."""


class Stream(NamedTuple):
    """Names one sequence of random bits: a Philox key, and two of its counter's coordinates."""

    key: int  # 64 bits
    charge: int  # 64 bits
    direction: int  # 32 bits


@functools.lru_cache(maxsize=1 << 16)
def parameter_key(seed: int | str, purpose: str, name: str) -> int:
    """Returns the 64-bit Philox key of a parameter for a purpose, one of `PURPOSES`."""
    if purpose not in PURPOSES:
        raise ValueError(f"Expected {purpose=} to be one of {', '.join(PURPOSES)}.")
    digest = hashlib.sha256()
    kind = "str" if isinstance(seed, str) else "int"
    for field in ("hushtune public randomness 1", kind, str(seed), purpose, name):
        encoded = field.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return int.from_bytes(digest.digest()[:8], "little")


@functools.cache
def normal_table() -> np.ndarray:
    """Returns 65536 equally likely int16 values of a standard normal in units of 1/4096.

    Entry i is ``round(4096 * Φ⁻¹((i + 0.5) / 65536))``; none is within 1e-5 of a tie, far more than
    the error of any platform's logarithm. The largest is 4.33 standard deviations, and the variance
    is within 3e-5 of one.

    Raises:
      RuntimeError: If this Python computes another table: its runs could not be replayed elsewhere.
    """
    inverse = NormalDist().inv_cdf
    table = np.array([round(4096 * inverse((i + 0.5) / 65536)) for i in range(65536)], dtype="<i2")
    found = hashlib.sha256(table.tobytes()).hexdigest()
    if found != NORMAL_TABLE_SHA256:
        raise RuntimeError(
            f"Expected the normal table's SHA-256 {found} to be {NORMAL_TABLE_SHA256}: "
            "this Python computes NormalDist().inv_cdf differently."
        )
    table = table.astype(np.int16)
    table.flags.writeable = False
    return table


def home(device: torch.device) -> torch.device:
    """Returns where numbers for tensors of `device` are computed: there, or on the CPU."""
    native = device.type == "cuda" and _has_triton()
    return device if native else torch.device("cpu")


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def implementation(home: torch.device) -> ModuleType:
    """Returns the implementation that works on `home`, a result of the function of that name.

    The module is imported at the first call and compiles each function at that function's first
    use.
    """
    name = "cuda" if home.type == "cuda" else "cpu"
    return importlib.import_module(f"hushtune.zo.kernels.{name}")
