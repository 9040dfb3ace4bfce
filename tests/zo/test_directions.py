"""Public directions: their definition, their statistics, and what the methods promise."""

import hashlib
import itertools
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from hushtune.zo.directions import DISTRIBUTIONS, Directions
from hushtune.zo.kernels import Stream, compiled, cpu, normal_table, parameter_key, reference

SHAPES = {"a.weight": (37, 41), "a.bias": (37,), "scalar": (), "empty": (0, 3)}
PHILOX_ANSWERS = [  # Random123, kat_vectors: counter, key, output
    ([0, 0, 0, 0], 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        0x299F31D0A4093822,
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def floats(count, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(count) * scale).astype(np.float32)


def whole(directions, name, charge=0, direction=0):
    count = directions.shapes[name].numel()
    return directions.slice(name, 0, count, charge=charge, direction=direction)


# The definition


@pytest.mark.parametrize(("counter", "key", "output"), PHILOX_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, output):
    assert reference.philox(np.array([counter]), key).tolist() == [output]
    stream = Stream(key, counter[2] + (counter[3] << 32), counter[1])
    expected = [1.0 if output[o // 32] >> o % 32 & 1 else -1.0 for o in range(128)]
    for kernels in (reference, cpu):
        entries = np.empty(128, np.float32)
        kernels.combine(entries, stream, 128 * counter[0], np.ones(1, np.float32), None)
        assert entries.tolist() == expected


def test_normal_table_is_frozen():
    table = normal_table()
    assert hashlib.sha256(table.astype("<i2").tobytes()).hexdigest() == (
        "1ea009ce409dac97d6bd609266910f809c5fb912f78e16bd89145b08174d6fc5"
    )
    assert np.array_equal(table, -table[::-1])
    assert np.mean((table / 4096.0) ** 2) == pytest.approx(1, abs=3e-5)


def test_keys_are_frozen_and_as_defined():
    fields = [b"hushtune public randomness 1", b"int", b"7", b"direction", b"a.weight"]
    encoded = b"".join(len(field).to_bytes(8, "little") + field for field in fields)
    key = parameter_key(7, "direction", "a.weight")
    assert key == int.from_bytes(hashlib.sha256(encoded).digest()[:8], "little")
    assert key == 0xDC5064474A7983DB


def test_entries_are_frozen():
    directions = {kind: Directions(7, SHAPES, kind) for kind in DISTRIBUTIONS}
    found = {
        kind: hashlib.sha256(whole(d, "a.weight", 5, 3).numpy().tobytes()).hexdigest()[:16]
        for kind, d in directions.items()
    }
    assert found == {
        "rademacher": "789920e23d2ae87b",
        "normal": "eb7a617a248571b2",
        "sphere": "8b5a2e09d44e3673",
    }


def test_every_coordinate_gives_other_bits():
    def sample(seed=7, name="a", charge=0, direction=0):
        return whole(Directions(seed, {name: (4096,)}), name, charge, direction)

    samples = [
        sample(),
        sample(seed=8),
        sample(seed="7"),
        sample(seed=-7),
        sample(seed=7 + 2**64),
        sample(name="b"),
        sample(name=""),
        sample(charge=1),
        sample(charge=2**32),
        sample(charge=2**63),
        sample(direction=1),
        sample(direction=2**32 - 1),
    ]
    # A sum of 4096 independent signs passes 6 standard deviations with probability 2e-9.
    for one, two in itertools.combinations(samples, 2):
        assert abs(float((one * two).sum())) < 6 * 64


def test_purposes_are_unrelated():
    keys = {parameter_key(7, purpose, "a") for purpose in ("direction", "initialise", "round")}
    assert len(keys) == 3
    with pytest.raises(ValueError, match="Expected purpose='noise' to be one of direction"):
        parameter_key(7, "noise", "a")


# Directions on tensors


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_slices_agree_with_the_whole(distribution):
    directions = Directions("öffentlich", SHAPES, distribution)
    z = whole(directions, "a.weight", charge=3, direction=2)
    for start, stop in [(0, 0), (0, 1), (5, 5), (127, 129), (33, 1000), (1516, 1517), (0, 1517)]:
        piece = directions.slice("a.weight", start, stop, charge=3, direction=2)
        assert torch.equal(piece, z[start:stop])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_perturbed_combination_and_slice_agree(distribution):
    directions = Directions(1, SHAPES, distribution)
    for name, shape in SHAPES.items():
        zeros = torch.zeros(shape)
        z = [directions.perturbed(name, zeros, charge=4, direction=k, scale=1.0) for k in range(3)]
        assert torch.equal(z[1].reshape(-1), whole(directions, name, 4, 1))
        coefficients = [0.1, -2.5, 1e-9]
        expected = torch.zeros(shape)
        for coefficient, entry in zip(coefficients, z, strict=True):
            expected = expected + torch.tensor(coefficient) * entry
        found = directions.combination(name, coefficients, charge=4)
        assert torch.equal(found, expected)
        assert found.shape == torch.Size(shape)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_perturbed_is_one_sum_in_the_stated_precision(distribution, dtype):
    directions = Directions(2, {"w": (1300,)}, distribution)
    tensor = torch.from_numpy(floats(1300)).to(dtype)
    step = torch.tensor(-0.013) * whole(directions, "w", 9, 1)
    wide = tensor if dtype == torch.float64 else tensor.float()
    found = directions.perturbed("w", tensor, charge=9, direction=1, scale=-0.013)
    assert found.dtype == dtype
    assert torch.equal(found, (wide + step).to(dtype))
    in_place = tensor.clone()
    assert (
        directions.perturbed("w", in_place, charge=9, direction=1, scale=-0.013, out=in_place)
        is in_place
    )
    assert torch.equal(in_place, found)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_opposite_scales_are_symmetric(distribution):
    directions = Directions(3, SHAPES, distribution)
    at = {"charge": 1, "direction": 0}
    tensor = torch.from_numpy(floats(37 * 41)).reshape(37, 41)
    up = directions.perturbed("a.weight", tensor, scale=0.5, **at)
    assert torch.equal(up, -directions.perturbed("a.weight", -tensor, scale=-0.5, **at))
    assert not torch.equal(up, tensor)
    unmoved = directions.perturbed("a.weight", tensor, scale=0.0, **at)
    assert torch.equal(unmoved, tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_layout_does_not_matter(dtype):
    directions = Directions(4, {"w": (6, 50)})
    at = {"charge": 0, "direction": 0, "scale": 0.25}
    tensor = torch.from_numpy(floats(300)).reshape(6, 50).to(dtype)
    expected = directions.perturbed("w", tensor, **at)
    strided = torch.zeros(6, 100, dtype=dtype)[:, ::2].copy_(tensor)
    for other in (tensor.t().contiguous().t(), strided):
        assert not other.is_contiguous()
        assert torch.equal(directions.perturbed("w", other, **at), expected)
        assert directions.perturbed("w", other, out=other, **at) is other
        assert torch.equal(other, expected)
    expanded = directions.perturbed("w", tensor[:1].expand(6, 50), **at)
    assert torch.equal(expanded, directions.perturbed("w", tensor[:1].repeat(6, 1), **at))
    line = torch.zeros(600, dtype=dtype)[::2].copy_(tensor.reshape(-1))
    flat = Directions(4, {"w": (300,)})
    assert torch.equal(flat.perturbed("w", line, **at), expected.reshape(-1))
    parameter = torch.nn.Parameter(tensor.clone())
    assert not directions.perturbed("w", parameter, **at).requires_grad


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("many", [0, 1, 5])
def test_move_is_a_combination_rounded(distribution, dtype, many):
    directions = Directions(2, {"w": (70, 131)}, distribution)
    tensor = torch.from_numpy(floats(70 * 131)).reshape(70, 131).to(dtype)
    coefficients = floats(many, seed=1, scale=1e-3).tolist()
    total = tensor.float() + directions.combination("w", coefficients, charge=6)
    expected = directions.stochastic_round("w", total, dtype, charge=6)
    assert torch.equal(expected, tensor) == (many == 0)
    strided = torch.zeros(70, 262, dtype=dtype)[:, ::2].copy_(tensor)
    for moved in (tensor.clone(), strided, torch.nn.Parameter(tensor.clone())):
        assert directions.move("w", moved, coefficients, charge=6) is moved
        assert torch.equal(moved.detach(), expected)
    with pytest.raises(ValueError, match=r"of dtype torch.float64 to be one of"):
        directions.move("w", tensor.double(), coefficients, charge=6)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("width", [1, 7, 128, 300])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_rows_are_those_of_the_whole(distribution, width, dtype):
    directions = Directions(2, {"w": (41, width), "b": (3,)}, distribution)
    tensor = torch.from_numpy(floats(41 * width)).reshape(41, width).to(dtype)
    at = {"charge": 9, "direction": 3, "scale": -0.7}
    expected = directions.perturbed("w", tensor, **at)
    before = tensor.clone()
    for rows in ([], [0], [40, 0, 7, 7, 12], list(range(41))):
        for kind in (torch.int64, torch.int32):
            rows = torch.as_tensor(rows, dtype=kind)
            found = directions.perturbed_rows("w", tensor, rows, **at)
            assert found.dtype == dtype
            assert torch.equal(found, expected[rows.long()])
    strided = torch.zeros(41, 2 * width, dtype=dtype)[:, ::2].copy_(tensor)
    rows = torch.arange(82)[::2].remainder(41)
    assert torch.equal(directions.perturbed_rows("w", strided, rows, **at), expected[rows])
    assert torch.equal(tensor, before)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_between_are_those_of_the_whole(distribution, dtype):
    directions = Directions(2, {"w": (41, 3, 7), "b": (41,), "n": ()}, distribution)
    at = {"charge": 9, "direction": 3, "scale": -0.7}
    for name, shape in directions.shapes.items():
        tensor = torch.from_numpy(floats(shape.numel())).reshape(shape).to(dtype)
        expected = directions.perturbed(name, tensor, **at)
        if not shape:
            with pytest.raises(ValueError, match="to be rows of 'n'"):
                directions.perturbed_between(name, tensor, 0, 1, **at)
            continue
        for start, stop in ((0, 41), (0, 1), (5, 5), (7, 30), (40, 41)):
            out = torch.empty(stop - start, *shape[1:], dtype=dtype)
            found = directions.perturbed_between(name, tensor, start, stop, **at)
            assert torch.equal(found, expected[start:stop])
            assert directions.perturbed_between(name, tensor, start, stop, out=out, **at) is out
            assert torch.equal(out, expected[start:stop])
        for start, stop in ((-1, 3), (3, 2), (0, 42)):
            with pytest.raises(ValueError, match="to be rows of"):
                directions.perturbed_between(name, tensor, start, stop, **at)


def test_many_rows_on_several_threads():
    directions = Directions(2, {"w": (1000, 300)})
    tensor = torch.from_numpy(floats(300_000)).reshape(1000, 300)
    at = {"charge": 9, "direction": 3, "scale": -0.7}
    rows = torch.arange(1000).flip(0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = directions.perturbed_rows("w", tensor, rows, **at)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, directions.perturbed("w", tensor, **at)[rows])


def test_rows_that_are_not_there_are_refused():
    directions = Directions(1, SHAPES)
    at = {"charge": 0, "direction": 0, "scale": 1.0}
    weight = torch.zeros(37, 41)
    for row in (-1, 37):
        with pytest.raises(IndexError):
            directions.perturbed_rows("a.weight", weight, torch.tensor([0, row]), **at)
    for rows in (torch.tensor(3), torch.tensor([1.0]), torch.tensor([[1]]), torch.tensor([True])):
        with pytest.raises(ValueError, match="Expected rows of shape"):
            directions.perturbed_rows("a.weight", weight, rows, **at)
    with pytest.raises(ValueError, match="Expected rows of shape"):
        directions.perturbed_rows("a.bias", torch.zeros(37), torch.tensor([1]), **at)


def test_moments():
    # Tolerances are six standard errors: false alarms of 2e-9 each.
    count = 1_000_000
    for distribution in ("rademacher", "normal"):
        z = whole(Directions(5, {"w": (count,)}, distribution), "w", 6, 7).double()
        assert abs(z.mean()) < 6 / math.sqrt(count)
        assert abs(z.square().mean() - 1) < 6 * math.sqrt(2 / count)
        assert abs((z[1:] * z[:-1]).mean()) < 6 / math.sqrt(count)
        assert abs(z.pow(3).mean()) < 6 * math.sqrt(15 / count)
    assert abs(z.pow(4).mean() - 3) < 6 * math.sqrt(96 / count)


def test_sphere_has_the_joint_norm():
    for shapes in (SHAPES, {"one": (1,)}, {"a": (200_000,), "b": (3, 5)}):
        directions = Directions(6, shapes, "sphere")
        entries = sum(math.prod(shape) for shape in shapes.values())
        squares = sum(
            float(whole(directions, name, 2, 5).double().square().sum()) for name in shapes
        )
        assert squares == pytest.approx(entries, rel=1e-6)
    reordered = Directions(6, dict(reversed(shapes.items())), "sphere")
    assert torch.equal(whole(directions, "b", 2, 5), whole(reordered, "b", 2, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("value", [0.3, -1.7e-3, 3e-6, 1.0])
def test_stochastic_rounding_is_unbiased(dtype, value):
    count = 200_000
    directions = Directions(7, {"w": (count,)})
    exact = torch.full((count,), value)
    rounded = directions.stochastic_round("w", exact, dtype, charge=0)
    assert rounded.dtype == dtype
    below, above = float(rounded.double().min()), float(rounded.double().max())
    assert below <= float(exact[0]) <= above
    assert len(rounded.unique()) == 1 + (below < above)
    # Six standard errors of a mean of numbers that lie within the gap.
    error = float(rounded.double().mean()) - float(exact[0])
    assert abs(error) <= 6 * (above - below) / 2 / math.sqrt(count)
    again = directions.stochastic_round("w", exact, dtype, charge=0)
    assert torch.equal(rounded, again)
    if below < above:
        assert not torch.equal(rounded, directions.stochastic_round("w", exact, dtype, charge=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_stochastic_rounding_keeps_what_needs_none(dtype):
    every = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype)
    directions = Directions(7, {"w": (2**16,)})
    rounded = directions.stochastic_round("w", every.float(), dtype, charge=3)
    numbers = ~every.isnan()
    assert torch.equal(rounded[numbers], every[numbers])
    assert rounded[~numbers].isnan().all()
    largest = torch.full((2**16,), torch.finfo(torch.float32).max)
    for value in (largest, -largest):
        assert directions.stochastic_round("w", value, dtype, charge=3).isfinite().all()
    assert directions.stochastic_round("w", largest, torch.float32, charge=3) is largest


def test_initial_values():
    directions = Directions(8, {})
    normal = directions.initial_normal("new", (400, 500), 0.02)
    assert normal.shape == (400, 500)
    assert abs(normal.double().mean()) < 6 * 0.02 / math.sqrt(200_000)
    assert normal.double().std() == pytest.approx(0.02, rel=6 / math.sqrt(2 * 200_000))
    uniform = directions.initial_uniform("new", (600, 500), 0.5)
    assert uniform.abs().max() < 0.5
    assert uniform.double().square().mean() == pytest.approx(0.25 / 3, rel=0.01)
    assert abs(uniform.double().mean()) < 6 * 0.5 / math.sqrt(3 * 300_000)
    assert torch.equal(uniform.reshape(-1)[:7], directions.initial_uniform("new", (7,), 0.5))
    assert not torch.equal(normal, directions.initial_normal("other", (400, 500), 0.02))


# Refusals, and what an import costs


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="Expected distribution='foo' to be one of rademacher, no"):
        Directions(1, SHAPES, "foo")
    with pytest.raises(TypeError, match=r"Expected seed=1.5 to be an int or text"):
        Directions(1.5, SHAPES)
    directions = Directions(1, SHAPES)
    at = {"charge": 0, "direction": 0, "scale": 1.0}
    with pytest.raises(KeyError, match="Expected name='b' to be one of the 4 that move"):
        directions.perturbed("b", torch.zeros(3), **at)
    with pytest.raises(ValueError, match=r"of shape \(3,\) to be of shape \(37,\)"):
        directions.perturbed("a.bias", torch.zeros(3), **at)
    with pytest.raises(ValueError, match=r"of dtype torch.int64 to be one of torch.float32"):
        directions.perturbed("a.bias", torch.zeros(37, dtype=torch.int64), **at)
    with pytest.raises(ValueError, match="Expected out of shape"):
        directions.perturbed("a.bias", torch.zeros(37), out=torch.zeros(36), **at)
    with pytest.raises(ValueError, match="Expected scale=1e\\+300 to be finite"):
        directions.perturbed("a.bias", torch.zeros(37), charge=0, direction=0, scale=1e300)
    with pytest.raises(ValueError, match=r"Expected charge=-1 to be in \[0, 2\^64\)"):
        directions.combination("a.bias", [1.0], charge=-1)
    with pytest.raises(ValueError, match="Expected coefficients=nan to be finite"):
        directions.combination("a.bias", [math.nan], charge=1)
    with pytest.raises(ValueError, match="0 <= start <= stop <= 37"):
        directions.slice("a.bias", 5, 38, charge=0, direction=0)
    with pytest.raises(ValueError, match="to be one of torch"):
        directions.stochastic_round("a.bias", torch.zeros(37), torch.float64, charge=0)


def test_import_compiles_nothing_and_a_forked_child_does_not_hang():
    code = """
import os, sys, torch
from hushtune.zo.directions import Directions
assert "numba" not in sys.modules
unneeded = "triton" not in sys.modules
directions = Directions(1, {"w": (500_000,)})
expected = directions.combination("w", [1.0, 2.0], charge=0).numpy().tobytes()
assert unneeded and "triton" not in sys.modules
child = os.fork()
if child == 0:
    found = directions.combination("w", [1.0, 2.0], charge=0).numpy().tobytes()
    os._exit(int(found != expected))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        assert process.wait(timeout=60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_cache_that_cannot_be_written_is_not_needed(monkeypatch):
    def refuse(function=None, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiled, "njit", refuse)
    assert compiled._compiled(len) is len
    assert compiled._shared(len) is len
