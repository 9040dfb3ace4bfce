"""Implementations of public directions agree bit for bit with the one in plain NumPy.

Tests of "cuda" need a GPU. Without one, the last of this file runs them in Triton's interpreter.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hushtune.zo import kernels
from hushtune.zo.directions import DISTRIBUTIONS, Directions
from hushtune.zo.kernels import Stream, cpu, reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
HALF = np.float32(1 / 4096)
EDGES = [1, 2**31, 2**32 - 1, 2**32, 2**63]  # where a number changes its type on the way
SPECIAL = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 1e-40, 3.4e38], np.float32)

needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="needs the package triton")
everywhere = pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=needs_triton)])
streams = st.builds(
    Stream,
    st.integers(0, 2**64 - 1) | st.sampled_from(EDGES),
    st.integers(0, 2**64 - 1) | st.sampled_from(EDGES),
    st.integers(0, 2**32 - 8),
)
counts = st.one_of(st.integers(0, 1100), st.integers(4000, 4300))
offsets = st.one_of(st.integers(0, 700), st.integers(2**34 - 700, 2**34))
units = st.sampled_from([None, HALF, np.float32(0.0002443)])
some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Machine:
    """An implementation, and how arrays get there and back."""

    def __init__(self, name):
        if name == "cuda" and not INTERPRETED and not torch.cuda.is_available():
            pytest.skip("needs a CUDA device; runs in Triton's interpreter elsewhere")
        self.kernels = importlib.import_module(f"hushtune.zo.kernels.{name}")
        self.device = torch.device(name if name == "cuda" and not INTERPRETED else "cpu")
        self.takes_tensors = name == "cuda"

    def put(self, array):
        array = array.copy()
        return torch.from_numpy(array).to(self.device) if self.takes_tensors else array

    def get(self, array):
        return array.cpu().numpy() if self.takes_tensors else array


def floats(count, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(count) * scale).astype(np.float32)


def awkward(count, kind):
    """Numbers of all magnitudes with special ones among them: "f", "d", "b" or "e"."""
    exponents = np.random.default_rng(1).integers(-9, 4, count)
    values = floats(count, seed=count) * np.float32(10) ** exponents.astype(np.float32)
    values[::7] = SPECIAL[np.arange(values[::7].size) % SPECIAL.size]
    if kind == "b":
        return reference.narrow(values)
    with np.errstate(over="ignore"):
        return values.astype(kind) * (1.1 if kind == "d" else 1)


def assert_same(found, expected):
    """Equal bits; a NaN of a format with hardware arithmetic may be any NaN."""
    assert found.dtype == expected.dtype
    if expected.dtype.kind == "f":
        assert np.array_equal(np.isnan(found), np.isnan(expected))
        found, expected = found[~np.isnan(found)], expected[~np.isnan(expected)]
    assert found.tobytes() == expected.tobytes()


@everywhere
@some
@given(stream=streams, count=counts, first=offsets, unit=units, kind=st.sampled_from("fdbe"))
def test_perturb_is_the_same_everywhere(name, stream, count, first, unit, kind):
    machine, tensor = Machine(name), awkward(count, kind)
    expected = tensor.copy()
    there, found, in_place = (machine.put(tensor) for _ in range(3))
    with np.errstate(over="ignore", invalid="ignore"):
        # Half the gap of a bfloat16 in [1, 2) is 2^-8: ties.
        for scale in np.array([1e-3, -0.7, 2e37, 0, 2**-8], np.float32):
            reference.perturb(expected, tensor, stream, first, scale, unit)
            machine.kernels.perturb(found, there, stream, first, scale, unit)
            assert_same(machine.get(found), expected)
            in_place[:] = there
            machine.kernels.perturb(in_place, in_place, stream, first, scale, unit)
            assert_same(machine.get(in_place), expected)


@everywhere
@some
@given(
    stream=streams,
    width=st.integers(1, 300),
    rows=st.lists(st.integers(0, 2**25), max_size=6),
    unit=units,
    kind=st.sampled_from("fdbe"),
)
def test_rows_are_the_same_everywhere(name, stream, width, rows, unit, kind):
    machine, rows = Machine(name), np.array(rows, dtype=np.int64)
    tensor = awkward(len(rows) * width, kind).reshape(-1, width)
    expected, found = tensor.copy(), machine.put(tensor)
    with np.errstate(over="ignore", invalid="ignore"):
        reference.perturb_rows(expected, rows, stream, np.float32(-0.7), unit)
        machine.kernels.perturb_rows(found, machine.put(rows), stream, np.float32(-0.7), unit)
    assert_same(machine.get(found), expected)


@everywhere
@some
@given(stream=streams, count=counts, first=offsets, unit=units, many=st.integers(0, 7))
def test_combine_is_the_same_everywhere(name, stream, count, first, unit, many):
    machine, expected = Machine(name), np.empty(count, np.float32)
    found = machine.put(expected)
    factors = None if unit is None else unit * np.arange(1, many + 1, dtype=np.float32)
    reference.combine(expected, stream, first, floats(many), factors)
    machine.kernels.combine(found, stream, first, floats(many), factors)
    assert_same(machine.get(found), expected)


@everywhere
@some
@given(
    stream=streams,
    rounding=streams.map(lambda stream: stream._replace(direction=0)),
    count=counts,
    first=offsets,
    unit=units,
    many=st.integers(0, 7),
    kind=st.sampled_from("fbe"),
)
def test_move_is_the_same_everywhere(name, stream, rounding, count, first, unit, many, kind):
    machine, expected = Machine(name), awkward(count, kind)
    found = machine.put(expected)
    factors = None if unit is None else unit * np.arange(1, many + 1, dtype=np.float32)
    coefficients = floats(many, scale=1e-2)
    with np.errstate(over="ignore", invalid="ignore"):
        reference.move(expected, stream, first, coefficients, factors, rounding)
        machine.kernels.move(found, stream, first, coefficients, factors, rounding)
    assert_same(machine.get(found), expected)


@everywhere
@some
@given(stream=streams.map(lambda stream: stream._replace(direction=0)), count=counts, first=offsets)
def test_rounding_and_norms_are_the_same_everywhere(name, stream, count, first):
    machine, values = Machine(name), awkward(count, "f")
    for kind, method in ((np.uint16, "round_bfloat16"), (np.float16, "round_float16")):
        expected = np.zeros(count, kind)
        found = machine.put(expected)
        getattr(reference, method)(expected, values, stream, first)
        getattr(machine.kernels, method)(found, machine.put(values), stream, first)
        assert_same(machine.get(found), expected)
    squares = machine.kernels.sum_of_squares(stream, count, machine.device)
    assert squares == reference.sum_of_squares(stream, count)


@pytest.mark.parametrize("unit", [None, HALF])
@pytest.mark.parametrize("kind", ["f", "b", "e"])
def test_threads_do_not_change_bits(unit, kind):
    count, first, stream = 700_001, 77, Stream(5, 2**40, 9)
    factors = None if unit is None else np.array([unit, unit])
    start = reference.narrow(floats(count)) if kind == "b" else floats(count).astype(kind)
    rounding, before = Stream(5, 2**40, 0), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out, rounded = np.empty(count, np.float32), np.empty(count, np.uint16)
            cpu.perturb(out, floats(count), stream, first, np.float32(1e-3), unit)
            cpu.round_bfloat16(rounded, floats(count), rounding, first)
            combined, moved = np.empty(count, np.float32), start.copy()
            cpu.combine(combined, stream, first, floats(2), factors)
            cpu.move(moved, stream, first, floats(2), factors, rounding)
            squares = cpu.sum_of_squares(stream, count, torch.device("cpu"))
            arrays = (out, rounded, combined, moved)
            results.append([*(array.tobytes() for array in arrays), squares])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]
    expected = np.empty(count, np.float32)
    reference.perturb(expected, floats(count), stream, first, np.float32(1e-3), unit)
    assert expected.tobytes() == results[0][0]
    reference.move(start, stream, first, floats(2), factors, rounding)
    assert start.tobytes() == results[0][3]


@needs_triton
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_directions_are_the_same_on_cuda(monkeypatch, distribution, dtype):
    machine = Machine("cuda")
    shapes = {"w": (70, 131), "b": (70,)}
    tensor = torch.from_numpy(floats(70 * 131)).reshape(70, 131).to(dtype)
    rows = torch.tensor([69, 0, 3, 3])

    def results(tensor):
        directions = Directions(2, shapes, distribution)
        at = {"charge": 9, "direction": 3, "scale": -0.7}
        moved, scratch = tensor.clone(), torch.zeros_like(tensor)
        strided = tensor.t().contiguous().t()
        directions.perturbed("w", tensor, out=scratch, **at)
        found = [
            directions.perturbed("w", tensor, **at),
            scratch,
            directions.perturbed("w", strided, out=strided, **at),
            directions.perturbed_rows("w", tensor, rows, **at),
            directions.perturbed_between("w", tensor, 13, 29, **at),
            directions.move("w", moved, [0.1, -2e-3, 1e-5], charge=4),
            directions.stochastic_round("w", tensor.float() * 1.001, dtype, charge=5),
        ]
        assert all(result.device == tensor.device for result in found)
        return [result.cpu() for result in found]

    expected = results(tensor)
    if INTERPRETED:
        monkeypatch.setattr(kernels, "implementation", lambda home: machine.kernels)
    for found, wanted in zip(results(tensor.to(machine.device)), expected, strict=True):
        assert torch.equal(found, wanted)


def test_the_devices_that_have_an_implementation(monkeypatch):
    here, gpu, other = (torch.device(kind) for kind in ("cpu", "cuda:1", "mps"))
    for present in (True, False):
        monkeypatch.setattr(kernels, "_has_triton", lambda present=present: present)
        assert kernels.home(here) == kernels.home(other) == here
        assert kernels.home(gpu) == (gpu if present else here)
    assert kernels.implementation(here) is cpu


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
def test_triton_compiles_to_separate_roundings(monkeypatch, tmp_path):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from hushtune.zo.kernels import cuda

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pointers = {"table": "*i16", "rows": "*i64", "coefficients": "*fp32", "units": "*fp32"}

    def arithmetic(kernel, kind, fusion, **constants):
        types = {parameter.name: parameter.annotation_type for parameter in kernel.params}
        types.update({name: pointers[name] for name in types.keys() & pointers.keys()})
        types.update(dict.fromkeys(("out", "tensor"), kind))
        types.update(dict.fromkeys(constants, "constexpr"))
        assert all(types.values())  # no type is left to depend on a number's size
        where = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=types, constexprs=where)
        options = {"enable_fp_fusion": fusion}
        ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
        return set(re.findall(r"(?:fma|mad|mul|add|sub|div)[.a-z]*\.f(?:16|32|64)", ptx))

    # Without .rn, the assembler may still fuse; with .ftz, small numbers would become 0.
    allowed = {"add.rn.f32", "add.rn.f64", "mul.rn.f32"}
    at = {"NORMAL": True, "ENTRIES": 4096}
    for kind in ("*fp32", "*fp64", "*u16", "*fp16"):
        assert arithmetic(cuda._perturb, kind, False, ROWS=True, **at) <= allowed
    for kind in ("*fp32", "*u16", "*fp16"):
        assert arithmetic(cuda._move, kind, False, MOVES=True, **at) <= allowed
    # What forbidding it prevents.
    assert not arithmetic(cuda._move, "*fp32", True, MOVES=True, **at) <= allowed


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="runs in the interpreter already")
def test_triton_agrees_in_its_interpreter():
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pytest", __file__, "-k", "cuda", "-p", "no:cacheprovider"]
    found = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, timeout=500
    )
    assert found.returncode == 0, found.stdout + found.stderr
    # Five kernels, and three distributions in three formats; none of them skipped.
    assert re.search(r"^14 passed, \d+ deselected", found.stdout, re.MULTILINE), found.stdout
