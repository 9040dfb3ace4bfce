"""Whether noise and samples repeat when every seed that a program can set is set again."""

from __future__ import annotations

import contextlib
import math
import random
import sys
from collections.abc import Iterator

import numpy as np

from hushtune.privacy.audit import sampling
from hushtune.privacy.audit.findings import FALSE_ALARM, Finding
from hushtune.privacy.audit.neighbours import Worst
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.plan import PrivacyPlan

_SEED = 20_240_101
_RELEASES = 300
_MOST_STEPS = 1000


@contextlib.contextmanager
def reseeded() -> Iterator[None]:
    """Seeds random, numpy and, where it is loaded, torch; their generators are as before after."""
    python, legacy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    with contextlib.ExitStack() as stack:
        if torch is not None:
            devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
            stack.enter_context(torch.random.fork_rng(devices=list(devices)))
            torch.manual_seed(_SEED)
        random.seed(_SEED)
        np.random.seed(_SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def releases(plan: PrivacyPlan, worst: Worst) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(releases,) int64 each, all from the same seeds: twice without the unit, once with it.

    Of each release, the number that the unit moves most.
    """
    batches = []
    for sample in (worst.without, worst.without, worst.there):
        with reseeded():
            boundary = Boundary(plan)
            batches.append([boundary.release(*sample) for _ in range(_RELEASES)])
    predicted, without, there = np.array(batches)[:, :, worst.most_moved[0]]
    return predicted, without, there


def finding(predicted: np.ndarray, without: np.ndarray) -> Finding:
    """Whether any number of the second run was that of the first.

    Two independent ones agree with a probability below 2^-32, so that one of a few hundred pairs
    does in fewer than one in a million audits.
    """
    equal = int((predicted == without).sum())
    evidence = f"{equal} of {len(without)} numbers come again when all seeds are set again"
    return Finding("noise has no seed", equal == 0, evidence)


def samples(plan: PrivacyPlan) -> Finding:
    """Whether two runs of the sampler from the same seeds take the same units."""
    name, probability = "samples have no seed", plan.sampling_probability
    units = sampling.made_up_sampler(plan)[1]
    alike = probability**2 + (1 - probability) ** 2
    coins = math.inf if alike == 1 else math.log(FALSE_ALARM) / math.log(alike)
    if coins > units * _MOST_STEPS:
        return Finding(name, True, "samples are nearly always the same, so nothing can be told")
    batches = []
    for _ in range(2):
        with reseeded():
            sampler, _ = sampling.made_up_sampler(plan)
            batches.append([sampler.sample().tolist() for _ in range(math.ceil(coins / units))])
    steps = len(batches[0])
    evidence = f"samples of {steps} step{'s' * (steps > 1)} drawn twice from the same seeds"
    return Finding(name, batches[0] != batches[1], evidence)
