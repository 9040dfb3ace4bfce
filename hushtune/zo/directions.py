"""Public directions of zeroth-order optimisation: ±1 or normal numbers, the same on every device.

A direction is never stored. Any entry of any direction can be computed alone, from a public seed
and its coordinates, and gives the same bits on every machine. That is what lets a run be replayed
from its ledger. Nothing here is secret, and nothing secret may be drawn here.

This is the whole definition. Integers are little-endian, and bit 0 is the least significant.

Key of a parameter
    A parameter has one 64-bit key for each purpose. It is the first 8 bytes of the SHA-256 of five
    fields, each preceded by its length in bytes as a 64-bit integer: the text
    ``hushtune public randomness 1``; ``int`` or ``str``, the seed's type; the seed, an int in
    decimal; the purpose; the parameter's name. Text is in UTF-8. Purposes are ``direction``,
    ``initialise`` and ``round``.
Random words
    Philox 4x32-10 (Salmon et al., SC 2011) with the key's low half as first key word. The counter's
    words are: block, direction, charge mod 2^32, charge // 2^32. One call gives four 32-bit words.
    Purpose ``round`` has direction 0; ``initialise`` has direction 0 and charge 0.
``rademacher``
    Entry o of the flattened parameter (row-major) is bit o % 32 of word (o % 128) // 32 of block
    o // 128. Bit 1 stands for +1 and bit 0 for -1.
``normal``
    Entry o is half o % 2 (0 is the low one) of word (o % 8) // 2 of block o // 8: an index i of the
    table round(4096 * Φ⁻¹((i + 0.5) / 65536)). That integer divided by 4096 is z, exact in float32.
``sphere``
    The same integers n, times the float32 nearest to the float64 sqrt(d / S). Here d counts the
    entries of all moving parameters, S is the exact sum of n² over them, d / S and its root are
    each rounded to nearest, and z is one float32 product. All z of a direction have norm sqrt(d)
    but for float32 rounding. Where S is 0, as it can be for very few entries, z is 0.
Perturbing
    tensor + scale * z. The product is one of two float32 numbers. The sum is rounded once to
    float32 or float64; bfloat16 and float16 are summed in float32, then rounded to nearest even.
Combining
    Starting from 0, float32(c_k) * z_k is added for k = 0, 1, ...; every product and every sum is
    rounded to float32. There is no fused multiply-add anywhere.
Stochastic rounding
    Entry o takes 16 bits, found like an index of ``normal``. To bfloat16, they are added to the
    float32's pattern, whose upper half is the result. To float16, the distance from the next
    smaller magnitude, in units of 2^-16 of the gap and rounded down, plus the bits, reaches 65536
    if and only if the magnitude is rounded up. A finite number stays finite.
Initialising
    Normal: float32(std) * z of ``normal``. Uniform: float32(bound) times the float32
    (2w + 1 - 2^24) / 2^24, where w is the upper 24 bits of word o % 4 of block o // 4.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from hushtune.zo import kernels
from hushtune.zo.kernels import Stream, parameter_key

DISTRIBUTIONS = ("rademacher", "normal", "sphere")
MAX_ENTRIES = 1 << 34  # of one parameter; keeps block numbers and sums of squares within range

_NORMAL_UNIT = np.float32(1 / 4096)
_CHUNK = 1 << 18  # entries worked on at a time where a kernel takes scratch memory
_KEPT_UNITS = 4096  # norms of directions that are remembered
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_ROUNDED = (torch.float32, torch.bfloat16, torch.float16)
_CPU = torch.device("cpu")


class Directions:
    """The directions of one run, for the parameters that move.

    Directions are addressed by `charge`, the number of the charged step (0 to 2^64 - 1), and
    `direction` within it (0 to 2^32 - 1). Results are on the CPU, except where a tensor was given:
    then they are on its device. Methods record no gradients.

    Args:
      seed: Any int or text. It is public.
      shapes: Name and shape of every parameter that moves. Their order does not matter.
      distribution: "rademacher" (entries are +1 or -1), "normal", or "sphere" (jointly uniform on
        the sphere of radius sqrt(d), up to the table's resolution).
    """

    def __init__(
        self,
        seed: int | str,
        shapes: Mapping[str, torch.Size | tuple[int, ...]],
        distribution: str = "rademacher",
    ) -> None:
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"Expected {distribution=} to be one of {', '.join(DISTRIBUTIONS)}.")
        self.seed: int | str = seed if isinstance(seed, str) else _integer("seed", seed)
        self.shapes: dict[str, torch.Size] = {
            name: torch.Size(shape) for name, shape in shapes.items()
        }
        self.distribution = distribution
        for name, shape in self.shapes.items():
            if shape.numel() > MAX_ENTRIES:
                raise ValueError(
                    f"Expected the shape of {name!r}, {tuple(shape)}, to hold <= 2^34."
                )
        self._entries = sum(shape.numel() for shape in self.shapes.values())
        self._units: dict[tuple[int, int], np.float32] = {}

    def perturbed(
        self,
        name: str,
        tensor: torch.Tensor,
        *,
        charge: int,
        direction: int,
        scale: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns ``tensor + scale * z``, of the tensor's shape, dtype and device.

        Args:
          name: A moving parameter.
          tensor: Its value: float32, float64, bfloat16 or float16, contiguous or not.
          charge: The charged step.
          direction: The direction within the step.
          scale: Rounded to float32 before use; negative for the other side.
          out: Where to write the result; may be `tensor` itself, and must not overlap it otherwise.
            It is written without autograd's knowledge.

        Raises:
          KeyError: If no parameter of that name moves.
          ValueError: If a shape, a dtype, or the scale is not as described.
        """
        self._check(name, tensor, "tensor")
        where = {"charge": charge, "direction": direction, "scale": scale}
        return self._perturb(name, tensor.detach(), 0, out, **where)

    def perturbed_between(
        self,
        name: str,
        tensor: torch.Tensor,
        start: int,
        stop: int,
        *,
        charge: int,
        direction: int,
        scale: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns ``perturbed(name, tensor, ...)[start:stop]`` without computing anything else.

        Args:
          name: A moving parameter of one dimension or more.
          tensor: Its value, as in `perturbed`.
          start: The first row.
          stop: The row after the last, at most as many as there are.
          charge: The charged step.
          direction: The direction within the step.
          scale: As in `perturbed`.
          out: As in `perturbed`, of as many rows.

        Raises:
          KeyError: If no parameter of that name moves.
          ValueError: As in `perturbed`, or if there are no such rows.
        """
        self._check(name, tensor, "tensor")
        if tensor.dim() < 1 or not 0 <= start <= stop <= tensor.shape[0]:
            raise ValueError(
                f"Expected {start=}, {stop=} to be rows of {name!r}, of shape "
                f"{tuple(tensor.shape)}."
            )
        first = start * math.prod(tensor.shape[1:])
        where = {"charge": charge, "direction": direction, "scale": scale}
        return self._perturb(name, tensor.detach()[start:stop], first, out, **where)

    def perturbed_rows(
        self,
        name: str,
        tensor: torch.Tensor,
        rows: torch.Tensor,
        *,
        charge: int,
        direction: int,
        scale: float,
    ) -> torch.Tensor:
        """Returns ``perturbed(name, tensor, ...)[rows]`` without computing any other row.

        Args:
          name: A moving parameter of two dimensions, such as an embedding.
          tensor: Its value, as in `perturbed`.
          rows: Row numbers, int64 or int32 of shape (n,), in any order, with repetitions or not.
          charge: The charged step.
          direction: The direction within the step.
          scale: As in `perturbed`.

        Returns:
          A tensor of shape (n, width).

        Raises:
          IndexError: If the parameter has no such row; on CUDA, an assertion of torch's.
          KeyError, ValueError: As in `perturbed`, or if dimensions or dtypes are not as described.
        """
        self._check(name, tensor, "tensor")
        if tensor.dim() != 2 or rows.dim() != 1 or rows.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"Expected rows of shape {tuple(rows.shape)} and dtype {rows.dtype} to be integers "
                f"of shape (n,), and tensor {name!r} of shape {tuple(tensor.shape)} a matrix."
            )
        stream = self._stream(name, charge, direction)
        unit = self._unit(charge, direction, tensor.device)
        home = kernels.home(tensor.device)
        implementation = kernels.implementation(home)
        result = tensor.detach().index_select(0, rows.to(tensor.device)).to(home)
        numbers = implementation.array(rows.to(home, torch.int64).contiguous())
        array = implementation.array(result)
        implementation.perturb_rows(array, numbers, stream, _float32("scale", scale), unit)
        return result.to(tensor.device)

    def move(
        self, name: str, tensor: torch.Tensor, coefficients: Sequence[float], *, charge: int
    ) -> torch.Tensor:
        """Adds ``combination(name, coefficients, charge=charge)`` to `tensor`, in place.

        The sum is one of float32 numbers; to bfloat16 and float16 it is rounded by
        `stochastic_round` with the same charge. So a charge must move a parameter once only. All
        directions are added in one pass over memory, without autograd's knowledge.

        Args:
          name: A moving parameter.
          tensor: Its value: float32, bfloat16 or float16, contiguous or not.
          coefficients: One a direction, as in `combination`.
          charge: The charged step.

        Returns:
          `tensor`.

        Raises:
          KeyError: If no parameter of that name moves.
          ValueError: If the shape, the dtype, or a coefficient is not as described.
        """
        self._check(name, tensor, "tensor", _ROUNDED)
        rounded = np.array([_float32("coefficients", c) for c in coefficients], dtype=np.float32)
        units = self._units_of(charge, 0, len(rounded), tensor.device)
        streams = self._stream(name, charge, 0), self._stream(name, charge, 0, "round")
        home = kernels.home(tensor.device)
        implementation = kernels.implementation(home)
        flat = _flat(tensor, home)
        implementation.move(implementation.array(flat), streams[0], 0, rounded, units, streams[1])
        if flat.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(flat.reshape(tensor.shape))
        return tensor

    def combination(self, name: str, coefficients: Sequence[float], *, charge: int) -> torch.Tensor:
        """Returns the sum over k of ``coefficients[k] * z_k``, float32, of the parameter's shape.

        Coefficients are rounded to float32 first; the k-th belongs to direction k of the charge.
        """
        rounded = np.array([_float32("coefficients", c) for c in coefficients], dtype=np.float32)
        result = torch.empty(self._shape(name), dtype=torch.float32, device="cpu")
        self._combine(result.reshape(-1), name, 0, rounded, charge, 0)
        return result

    def slice(
        self, name: str, start: int, stop: int, *, charge: int, direction: int
    ) -> torch.Tensor:
        """Returns entries start to stop of the flattened z, float32, without computing others."""
        entries = self._shape(name).numel()
        if not 0 <= start <= stop <= entries:
            raise ValueError(f"Expected {start=}, {stop=} to be 0 <= start <= stop <= {entries}.")
        result = torch.empty(stop - start, dtype=torch.float32, device="cpu")
        self._combine(result, name, start, np.ones(1, np.float32), charge, direction)
        return result

    def stochastic_round(
        self, name: str, value_float32: torch.Tensor, dtype: torch.dtype, *, charge: int
    ) -> torch.Tensor:
        """Rounds up or down at random, so that the mean over charges is the value.

        The mean is exact within dtype's range, except below 2^-14 in float16, where it may be up to
        2^-40 too small in magnitude. Finite numbers stay finite, infinities and NaN stay what they
        are. float32 returns the argument itself. Charges use independent bits; one charge must
        round a parameter once only.

        Raises:
          KeyError: If no parameter of that name moves.
          ValueError: If the value is not float32 or of another shape, or dtype is another.
        """
        if dtype not in _ROUNDED:
            raise ValueError(f"Expected {dtype=} to be one of {', '.join(map(str, _ROUNDED))}.")
        self._check(name, value_float32, "value_float32", (torch.float32,))
        stream = self._stream(name, charge, 0, "round")
        if dtype == torch.float32:
            return value_float32
        home = kernels.home(value_float32.device)
        implementation = kernels.implementation(home)
        source = _flat(value_float32, home)
        result = torch.empty_like(source, dtype=dtype)
        bfloat16 = dtype == torch.bfloat16
        convert = implementation.round_bfloat16 if bfloat16 else implementation.round_float16
        convert(implementation.array(result), implementation.array(source), stream, 0)
        return result.reshape(value_float32.shape).to(value_float32.device)

    def initial_normal(
        self, name: str, shape: torch.Size | tuple[int, ...], std: float
    ) -> torch.Tensor:
        """Returns normal numbers, float32, for a tensor (moving or not) that no checkpoint holds.

        Their standard deviation is `std`, and none exceeds 4.33 of them.
        """
        result = torch.empty(shape, dtype=torch.float32, device="cpu")
        coefficients = np.array([_float32("std", std)], dtype=np.float32)
        stream = Stream(parameter_key(self.seed, "initialise", name), 0, 0)
        units = np.array([_NORMAL_UNIT], dtype=np.float32)
        implementation = kernels.implementation(_CPU)
        flat = implementation.array(result.reshape(-1))
        implementation.combine(flat, stream, 0, coefficients, units)
        return result

    def initial_uniform(
        self, name: str, shape: torch.Size | tuple[int, ...], bound: float
    ) -> torch.Tensor:
        """Returns numbers uniform on (-bound, bound), float32, as `initial_normal` does normals."""
        result = torch.empty(shape, dtype=torch.float32, device="cpu")
        bound32 = _float32("bound", bound)
        stream = Stream(parameter_key(self.seed, "initialise", name), 0, 0)
        implementation = kernels.implementation(_CPU)
        flat = result.reshape(-1)
        for first in range(0, flat.numel(), _CHUNK):
            piece = implementation.array(flat[first : first + _CHUNK])
            implementation.uniform(piece, stream, first, bound32)
        return result

    def _perturb(self, name, tensor, first, out, *, charge, direction, scale) -> torch.Tensor:
        """What `perturbed` returns; `tensor` holds the parameter's entries from `first` on."""
        stream = self._stream(name, charge, direction)
        unit = self._unit(charge, direction, tensor.device)
        scale32 = _float32("scale", scale)
        if out is not None and (out.shape != tensor.shape or out.dtype != tensor.dtype):
            raise ValueError(
                f"Expected out of shape {tuple(out.shape)} and dtype {out.dtype} to be like "
                f"tensor, {tuple(tensor.shape)} and {tensor.dtype}."
            )
        home = kernels.home(tensor.device)
        implementation = kernels.implementation(home)
        source = _flat(tensor, home)
        if out is not None and out.device == home and out.is_contiguous():
            target, direct = out.detach().reshape(-1), True
        else:
            target, direct = torch.empty_like(source), False
        array = implementation.array
        implementation.perturb(array(target), array(source), stream, first, scale32, unit)
        if out is None:
            return target.reshape(tensor.shape).to(tensor.device)
        if not direct:
            out.detach().copy_(target.reshape(tensor.shape))
        return out

    def _combine(self, flat, name, first, coefficients, charge, direction) -> None:
        units = self._units_of(charge, direction, len(coefficients), _CPU)
        stream = self._stream(name, charge, direction)
        implementation = kernels.implementation(_CPU)
        implementation.combine(implementation.array(flat), stream, first, coefficients, units)

    def _stream(self, name: str, charge: int, direction: int, purpose: str = "direction") -> Stream:
        charge, direction = _integer("charge", charge, 64), _integer("direction", direction, 32)
        return Stream(parameter_key(self.seed, purpose, name), charge, direction)

    def _units_of(self, charge, direction, count, device) -> np.ndarray | None:
        units = [self._unit(charge, direction + k, device) for k in range(count)]
        return None if self.distribution == "rademacher" else np.array(units, dtype=np.float32)

    def _unit(self, charge: int, direction: int, device: torch.device) -> np.float32 | None:
        """What an integer of the normal table is multiplied by; None for signs."""
        if self.distribution == "rademacher":
            return None
        if self.distribution == "normal":
            return _NORMAL_UNIT
        if (charge, direction) not in self._units:
            home = kernels.home(device)
            squares_of = kernels.implementation(home).sum_of_squares
            squares = sum(
                squares_of(self._stream(name, charge, direction), shape.numel(), home)
                for name, shape in self.shapes.items()
            )
            if len(self._units) >= _KEPT_UNITS:
                self._units.clear()
            unit = np.float32(math.sqrt(self._entries / squares)) if squares else np.float32(0)
            self._units[charge, direction] = unit
        return self._units[charge, direction]

    def _shape(self, name: str) -> torch.Size:
        if name not in self.shapes:
            raise KeyError(f"Expected {name=} to be one of the {len(self.shapes)} that move.")
        return self.shapes[name]

    def _check(self, name: str, tensor: torch.Tensor, argument: str, dtypes=_DTYPES) -> None:
        shape = self._shape(name)
        if tensor.shape != shape:
            raise ValueError(
                f"Expected {argument} for {name!r} of shape {tuple(tensor.shape)} to be of shape "
                f"{tuple(shape)}."
            )
        if tensor.dtype not in dtypes:
            raise ValueError(
                f"Expected {argument} for {name!r} of dtype {tensor.dtype} to be one of "
                f"{', '.join(map(str, dtypes))}."
            )


def _flat(tensor: torch.Tensor, home: torch.device) -> torch.Tensor:
    """The entries in row-major order on `home`: the tensor's own memory where that is possible."""
    return tensor.detach().to(home).contiguous().reshape(-1)


def _float32(name: str, value: float) -> np.float32:
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if not np.isfinite(rounded):
        raise ValueError(f"Expected {name}={value} to be finite in float32.")
    return rounded


def _integer(name: str, value: int, bits: int | None = None) -> int:
    try:
        integer = operator.index(value)
    except TypeError:
        integer = None
    if integer is None or isinstance(value, bool):
        raise TypeError(f"Expected {name}={value!r} to be an int{' or text' * (bits is None)}.")
    if bits is not None and not 0 <= integer < 1 << bits:
        raise ValueError(f"Expected {name}={value} to be in [0, 2^{bits}).")
    return integer
