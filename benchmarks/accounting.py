"""ε and calibrated noise against independent accountants, on a grid of plans.

    python benchmarks/accounting.py                           # prints Markdown tables
    python benchmarks/accounting.py --references FILE.json    # and keeps references for the tests

References that the file has already are taken from there.

The reference is dp-accounting's PLD accountant with its interval divided by three until ε moves by
less than 0.03 % (`moved`), or by less than 0.3 % and the next one would take minutes.
prv-accountant gives a lower and an upper bound of its own where it covers the mechanism. Takes
about a quarter of an hour.
"""

import argparse
import json
import math
import random
import resource
import signal
import statistics
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import dp_accounting
from dp_accounting.pld import PLDAccountant

from hushtune.privacy import accounting

ADD, REPLACE = "add-or-remove-one", "replace-one"
RELATIONS = {
    ADD: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    REPLACE: dp_accounting.NeighboringRelation.REPLACE_ONE,
}
SETTLED = 3e-4
# Once it moves by less than so much, a finer reference is not tried if the last took so long.
NEARLY_SETTLED, PATIENCE = 3e-3, 6.0
PRV_SECONDS = 30

# mechanism, adjacency, q, T, δ, ε to calibrate to
CALIBRATED = [
    *(
        ("gaussian", adjacency, q, steps, 1e-5, target)
        for adjacency in (ADD, REPLACE)
        for q, steps, target in [
            (0.008, 20_000, 2.0),
            (0.016, 10_000, 1.0),
            (0.016, 10_000, 4.0),
            (0.064, 1_000, 0.5),
            (0.064, 1_000, 8.0),
            (0.01, 10**6, 1.0),
            (0.001, 10**6, 4.0),
            (0.05, 500, 0.01),
            (0.001, 5_000, 0.01),
            (0.02, 2_000, 30.0),
            (0.5, 100, 30.0),
            (0.3, 1, 1.0),
            (0.01, 1, 0.01),
            (0.9, 20, 3.0),
            (1e-4, 10_000, 2.0),
            (3e-4, 10_000, 0.5),
            (1e-4, 100_000, 1.0),
            (1.0, 1, 1.0),
            (1.0, 100, 30.0),
            (1.0, 10**6, 0.01),
        ]
    ),
    ("gaussian", ADD, 0.01, 1_000, 1e-10, 1.0),
    ("gaussian", REPLACE, 0.01, 1_000, 1e-8, 1.0),
    ("gaussian", ADD, 0.01, 10_000, 1e-3, 1.0),
    ("laplace", ADD, 0.016, 10_000, 1e-5, 1.0),
    ("laplace", ADD, 0.064, 1_000, 1e-5, 8.0),
    ("laplace", ADD, 0.05, 500, 1e-6, 0.01),
    ("laplace", ADD, 0.01, 100, 1e-6, 30.0),
    ("laplace", ADD, 0.3, 1, 1e-3, 1.0),
    ("laplace", ADD, 1.0, 100, 1e-5, 2.0),
    ("laplace", ADD, 0.01, 10**6, 1e-5, 1.0),
]
# mechanism, adjacency, q, T, δ, noise multiplier
GIVEN = [
    *(
        ("gaussian", adjacency, q, steps, 1e-5, noise)
        for adjacency in (ADD, REPLACE)
        for q, steps, noise in [
            (0.001, 100, 0.3),
            (0.1, 1, 0.3),
            (0.01, 10, 0.3),
            (1.0, 1, 0.3),
            (0.5, 10_000, 100.0),
            (0.01, 10**6, 100.0),
            (1.0, 10**4, 100.0),
            (0.01, 10_000, 1.0),
            (0.999, 50, 5.0),
        ]
    ),
    ("laplace", ADD, 0.01, 1, 1e-3, 0.3),
    ("laplace", ADD, 0.5, 1_000, 1e-5, 100.0),
    ("laplace", ADD, 1.0, 20, 1e-5, 1.0),
    ("laplace", ADD, 0.001, 1_000, 1e-6, 0.3),
]
# adjacency, δ, phases (mechanism, noise multiplier, q, T)
COMPOSED = [
    *(
        (adjacency, delta, phases)
        for adjacency in (ADD, REPLACE)
        for delta, phases in [
            (1e-5, [("gaussian", 1.0, 0.01, 500), ("gaussian", 2.0, 0.02, 1_000)]),
            (1e-6, [("gaussian", 1.0, 0.01, 500), ("gaussian", 10.0, 1.0, 5)]),
            (1e-6, [("gaussian", 20.0, 0.05, 5_000), ("gaussian", 0.6, 1e-4, 1_000)]),
            (1e-5, [("gaussian", s, q, 200) for s, q in [(0.8, 1e-3), (1.5, 0.02), (6.0, 0.3)]]),
        ]
    ),
    (ADD, 1e-5, [("gaussian", 1.0, 0.01, 500), ("laplace", 5.0, 0.02, 100)]),
    (ADD, 1e-5, [("laplace", 20.0, 1.0, 20), ("laplace", 5.0, 0.02, 500)]),
]


def terms_of(mechanism, adjacency, q, steps, delta):
    return {
        "mechanism": mechanism,
        "adjacency": adjacency,
        "sampling_probability": q,
        "steps": steps,
        "delta": delta,
    }


def event_of(mechanism, noise, q):
    kinds = {"gaussian": dp_accounting.GaussianDpEvent, "laplace": dp_accounting.LaplaceDpEvent}
    event = kinds[mechanism](noise)
    return event if q == 1 else dp_accounting.PoissonSampledDpEvent(q, event)


def dp_accounting_epsilon(phases, adjacency, delta, interval):
    accountant = PLDAccountant(RELATIONS[adjacency], interval)
    for mechanism, noise, q, steps in phases:
        accountant.compose(event_of(mechanism, noise, q), steps)
    return accountant.get_epsilon(delta)


def settled_epsilon(phases, adjacency, delta, about):
    """ε on ever finer grids: the last, its interval and how far the last refinement moved it."""
    # Far coarser than the loss of one step, the losses of many blow up, and take long.
    spreads = [
        q * (1 / noise if mechanism == "laplace" else math.sqrt(math.expm1(min(noise**-2, 4.0))))
        for mechanism, noise, q, _ in phases
    ]
    interval, found, moved = min(max(about, 1e-3) / 100, *spreads, 0.02), math.inf, math.inf
    while True:
        start = time.perf_counter()
        finer = dp_accounting_epsilon(phases, adjacency, delta, interval)
        moved, found = abs(found - finer) / max(finer, 1e-12), finer
        slow = time.perf_counter() - start > PATIENCE
        if moved < SETTLED or (slow and moved < NEARLY_SETTLED):
            return {"epsilon": found, "interval": interval, "moved": moved}
        interval /= 3


def prv_bounds(phases, adjacency, delta, about):
    """prv-accountant's lower and upper bound, or None where it does not apply or takes too long."""
    import prv_accountant

    if adjacency != ADD or any(m == "laplace" and q < 1 for m, _, q, _ in phases):
        return None

    def prv_of(mechanism, noise, q):
        if mechanism == "laplace":
            return prv_accountant.LaplaceMechanism(mu=1 / noise)
        if q == 1:
            return prv_accountant.GaussianMechanism(noise_multiplier=noise)
        return prv_accountant.PoissonSubsampledGaussianMechanism(
            noise_multiplier=noise, sampling_probability=q
        )

    def give_up(*_):
        raise TimeoutError

    counts = [steps for *_, steps in phases]
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PRV_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            accountant = prv_accountant.PRVAccountant(
                prvs=[prv_of(*phase[:3]) for phase in phases],
                max_self_compositions=counts,
                eps_error=max(0.003 * about, 1e-4),
                delta_error=delta * 1e-3,
            )
            lower, _, upper = accountant.compute_epsilon(delta, counts)
        return [lower, upper] if math.isfinite(lower) and math.isfinite(upper) else None
    except (TimeoutError, MemoryError, ValueError, RuntimeError, AssertionError, IndexError):
        return None
    finally:
        signal.alarm(0)


def seconds(work):
    """A result, and the wall and processor seconds it took."""
    start, used = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - start, time.process_time() - used


def plans():
    """Every plan: terms, noise multiplier and, if calibrated, its target and seconds."""
    for *terms, target in CALIBRATED:
        plan = terms_of(*terms)
        noise, *took = seconds(lambda plan=plan, e=target: accounting.calibrate(epsilon=e, **plan))
        # Nine digits, so that references are found again where only rounding differs.
        yield plan, float(f"{noise:.9g}"), target, took
    for *terms, noise in GIVEN:
        yield terms_of(*terms), noise, None, None


class References:
    """What independent accountants say, computed once and kept in a file if there is one."""

    def __init__(self, path):
        self._path = path
        exists = path is not None and path.exists()
        self._known = json.loads(path.read_text())["references"] if exists else {}

    def of(self, phases, adjacency, delta, about):
        key = json.dumps([adjacency, delta, phases])
        if key not in self._known:
            self._known[key] = settled_epsilon(phases, adjacency, delta, about)
            self._known[key]["prv"] = prv_bounds(phases, adjacency, delta, about)
            self._write()
        return self._known[key]

    def _write(self):
        if self._path is None:
            return
        packages = ("dp-accounting", "prv-accountant", "numpy", "scipy")
        settings = {
            "key": "adjacency, delta, [[mechanism, noise multiplier, q, steps], ...]",
            "made by": "benchmarks/accounting.py --references",
            "interval divided by 3 until moved is below": SETTLED,
            "or below": NEARLY_SETTLED,
            "where a reference took more seconds than": PATIENCE,
            "versions": {name: version(name) for name in packages},
        }
        content = {"settings": settings, "references": self._known}
        self._path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def single_rows(references):
    for plan, noise, target, took in plans():
        found = accounting.epsilon(noise_multiplier=noise, **plan)
        phase = (plan["mechanism"], noise, plan["sampling_probability"], plan["steps"])
        known = references.of([phase], plan["adjacency"], plan["delta"], found)
        yield plan, phase, target, took, found, known


def print_singles(references):
    print(
        "| mechanism, adjacency | q | T | δ | target ε | noise | ε | reference | ratio | moved |"
        " prv-accountant | reference : target | calibration (s) |"
    )
    print("|---|" + "---:|" * 12)
    ratios, wall, processor = [], [], []
    for plan, (mechanism, noise, q, steps), target, took, found, known in single_rows(references):
        ratio = found / known["epsilon"]
        ratios.append(ratio)
        if took:
            wall.append(took[0])
            processor.append(took[1])
        prv = known["prv"]
        cells = [
            f"{mechanism}, {plan['adjacency']}",
            f"{q:g}",
            f"{steps:,}",
            f"{plan['delta']:g}",
            f"{target:g}" if target else "",
            f"{noise:.5g}",
            f"{found:.6g}",
            f"{known['epsilon']:.6g}",
            f"{ratio:.5f}",
            f"{known['moved']:.0e}",
            f"{prv[0]:.5g} to {prv[1]:.5g}" if prv else "",
            f"{known['epsilon'] / target:.5f}" if target else "",
            f"{took[0]:.2f}" if took else "",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n{len(ratios)} plans; ε : reference from {min(ratios):.5f} to {max(ratios):.5f}")
    for name, times in (("wall", wall), ("processor", processor)):
        print(
            f"calibration, {name} seconds: median {statistics.median(times):.3f}, "
            f"most {max(times):.3f}, of {len(times)} plans"
        )


def print_composed(references):
    print("\n| phases (mechanism, noise, q, T) | adjacency | δ | ε | reference | ratio | moved |")
    print("|---|---|" + "---:|" * 5)
    for adjacency, delta, phases in COMPOSED:
        parts = [
            accounting.Phase(
                mechanism=mechanism, noise_multiplier=noise, sampling_probability=q, steps=steps
            )
            for mechanism, noise, q, steps in phases
        ]
        found = accounting.composed_epsilon(parts, delta=delta, adjacency=adjacency)
        known = references.of(phases, adjacency, delta, found)
        ratio = found / known["epsilon"]
        text = "; ".join(f"{m} {s:g}, {q:g}, {t}" for m, s, q, t in phases)
        print(
            f"| {text} | {adjacency} | {delta:g} | {found:.6g} | {known['epsilon']:.6g} |"
            f" {ratio:.5f} | {known['moved']:.0e} |",
            flush=True,
        )


def print_random_times(count=300):
    """Seconds of calibration for plans drawn over wide ranges, with a fixed seed."""
    draw = random.Random(1)
    times = []
    for _ in range(count):
        steps, q = round(10 ** draw.uniform(0, 6)), 10 ** draw.uniform(-6, 0)
        target, delta = 10 ** draw.uniform(-2, 1.5), 10 ** draw.uniform(-12, -4)
        adjacency = draw.choice([ADD, REPLACE])
        mechanism = "laplace" if adjacency == ADD and draw.random() < 0.3 else "gaussian"
        plan = terms_of(mechanism, adjacency, q, steps, delta)
        _, wall, used = seconds(
            lambda plan=plan, target=target: accounting.calibrate(epsilon=target, **plan)
        )
        times.append((used, wall, f"{mechanism}, {adjacency}, q {q:.2g}, T {steps}, {target:.3g}"))
    used = sorted(time for time, *_ in times)
    wall = sorted(time for _, time, _ in times)
    print(f"\ncalibrating {count} random plans, T to 10^6, q from 10^-6, δ from 10^-12 to 10^-4:")
    for name, values in (("processor", used), ("wall", wall)):
        print(
            f"{name} seconds: median {statistics.median(values):.3f}, 95 % below "
            f"{values[int(0.95 * count)]:.3f}, most {values[-1]:.3f}; "
            f"{sum(value > 1 for value in values)} above 1 s"
        )
    for time_used, _, text in sorted(times, reverse=True)[:5]:
        print(f"  {time_used:.2f} s: {text}")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--references", type=Path, help="read and add to references in this file")
    references = References(options.parse_args().references)
    print_singles(references)
    print_composed(references)
    print_random_times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
