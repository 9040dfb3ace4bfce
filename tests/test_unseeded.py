"""Nothing that a process, its environment or a configuration sets can seed noise or sampling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

STEPS, DIRECTIONS, UNITS = 4, 4, 60

SEED_EVERYTHING = """
    import random
    import numpy as np
    import torch
    import transformers

    def seed_everything():
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        torch.use_deterministic_algorithms(True)
        transformers.set_seed(1)

    seed_everything()
"""

#: A private run. Prints what only an insider sees: samples and noise, step by step. All generators
#: are seeded again right before each draw.
TRAIN = """
    import hashlib
    import json
    import sys

    from hushtune import run as runs
    from hushtune import session as sessions
    from hushtune.config import from_values
    from hushtune.privacy import boundary as boundaries
    from hushtune.privacy import ledger as ledgers
    from hushtune.privacy.sampling import PoissonSampler

    class Silent:
        started = stepped = evaluated = lambda *_: None

    samples, sums = [], []
    sample, exact_sum = PoissonSampler.sample, boundaries.exact_sum

    def recorded_sample(sampler):
        seed_everything()
        samples.append(sample(sampler))
        return samples[-1]

    def recorded_sum(bounded):
        sums.append(exact_sum(bounded))
        seed_everything()
        return sums[-1]

    PoissonSampler.sample, boundaries.exact_sum = recorded_sample, recorded_sum

    values = json.loads(sys.argv[1])
    runs.train(from_values(values), Silent())
    record = ledgers.read(values["output"] + "/ledger.jsonl")
    session = sessions.resume(record.header)
    digest = hashlib.sha256()
    for name, parameter in session.parameters.items():
        for charge in range(len(samples)):
            moved = session.directions.perturbed(
                name, parameter, charge=charge, direction=0, scale=1.0
            )
            digest.update(moved.detach().numpy().tobytes())
    print(json.dumps({
        "samples": [units.tolist() for units in samples],
        "noise": [
            [noised - value for noised, value in zip(released, total, strict=True)]
            for released, total in zip(record.releases.values(), sums, strict=True)
        ],
        "released": list(record.releases.values()),
        "start": record.header["start_sha256"],
        "label_vectors": record.header["label_vectors"],
        "directions": digest.hexdigest(),
    }))
"""


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The script in a fresh process, whose environment says everything there is to say."""
    inherited = {key: value for key, value in os.environ.items() if key != "OPENSSL_CONF"}
    own = {"PYTHONHASHSEED": "0", "PYTHONPATH": ":".join(sys.path), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=inherited | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def values(encoder: str, reviews: str, output: Path) -> str:
    """A short private run; two such runs differ in their output folder alone."""
    return json.dumps(
        {
            "model": {"name": encoder, "tune": "head"},
            "data": {"train": reviews, "max_length": 32},
            "task": {"labels": {"negative": "it was terrible", "positive": "it was great"}},
            "method": {"directions": DIRECTIONS, "steps": STEPS, "batch": UNITS / 2},
            "privacy": {"epsilon": 4.0, "mechanism": "laplace"},
            "output": str(output),
            "seed": 5,
        }
    )


def run_twice(script: str, encoder: str, reviews: str, folder: Path) -> list[dict[str, Any]]:
    """What two fresh processes print, side by side."""
    script = textwrap.dedent(SEED_EVERYTHING) + textwrap.dedent(script)
    processes = [
        start(script, values(encoder, reviews, folder / name)) for name in ("one", "other")
    ]
    printed = []
    for process in processes:
        out, complaint = process.communicate(timeout=300)
        assert process.returncode == 0, complaint
        printed.append(json.loads(out))
    return printed


def check_public(one: dict[str, Any], other: dict[str, Any]) -> None:
    for public in ("start", "label_vectors", "directions"):
        assert one[public] == other[public], f"{public} differ"


def check_samples(one: dict[str, Any], other: dict[str, Any]) -> None:
    """No two of all the steps; by chance two samples are equal once in 2^60 pairs."""
    samples = {tuple(units) for units in one["samples"] + other["samples"]}
    assert len(samples) == 2 * STEPS, "a sample came twice"


def check_noise(one: dict[str, Any], other: dict[str, Any]) -> None:
    """No two of all the integers; by chance two are equal about once in 1e10 pairs."""
    for secret in ("noise", "released"):
        values = {value for step in one[secret] + other[secret] for value in step}
        assert len(values) == 2 * STEPS * DIRECTIONS, f"{secret} came twice"


def test_two_processes_with_every_seed_set_share_nothing_but_what_is_public(
    encoder_folder, reviews, tmp_path
):
    runs = run_twice(TRAIN, encoder_folder, reviews, tmp_path)
    check_public(*runs)
    check_samples(*runs)
    check_noise(*runs)


#: Both from generators that a script can seed.
FAULTS = """
    from hushtune.privacy import boundary, sampling

    sampling.os.urandom = np.random.bytes
    boundary.exact_noise = lambda plan: lambda total: [
        value + round(extra * plan.noise_scale)
        for value, extra in zip(total, torch.randn(len(total), dtype=torch.float64).tolist())
    ]
"""


def test_the_checks_flag_generators_with_a_seed(encoder_folder, reviews, tmp_path):
    script = textwrap.dedent(FAULTS) + textwrap.dedent(TRAIN)
    runs = run_twice(script, encoder_folder, reviews, tmp_path)
    with pytest.raises(AssertionError, match="a sample came twice"):
        check_samples(*runs)
    with pytest.raises(AssertionError, match="noise came twice"):
        check_noise(*runs)


DRAW = """
    import json
    import os
    import sys

    import numpy as np
    from hushtune.privacy.boundary import Boundary
    from hushtune.privacy.plan import PrivacyPlan
    from hushtune.privacy.sampling import PoissonSampler

    plan = PrivacyPlan.with_noise(
        mechanism="gaussian", delta=1e-5, adjacency="add-or-remove-one", unit="example",
        combine="mean", population=100, sampling_probability=0.5, steps=1, directions=8,
        clip_norm=1.0, noise_multiplier=1.0,
    )
    boundary, sampler = Boundary(plan), PoissonSampler(units=128, probability=0.5)

    def draws():
        return [
            {
                "noise": boundary.release(np.empty((0, 8)), np.empty(0, int)),
                "sample": sampler.sample().tolist(),
            }
            for _ in range(3)
        ]
"""

FORK = """
    def in_children(count, depth):
        if depth == 0:
            return []
        found = []
        for _ in range(count):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(read)
                with os.fdopen(write, "w") as pipe:
                    json.dump(draws() + in_children(count, depth - 1), pipe)
                os._exit(0)
            os.close(write)
            with os.fdopen(read) as pipe:
                found += json.load(pipe)
            os.waitpid(child, 0)
        return found

    before = draws()  # so that children inherit generators that have been used
    print(json.dumps(before + in_children(3, 2) + draws()))
"""


def test_forked_processes_share_neither_noise_nor_samples():
    process = start(textwrap.dedent(DRAW) + textwrap.dedent(FORK))
    out, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    drawn = json.loads(out)
    assert len(drawn) == 3 * (1 + 3 + 9 + 1)  # parent, children, grandchildren, parent again
    noise = [value for each in drawn for value in each["noise"]]
    samples = {tuple(each["sample"]) for each in drawn}
    assert len(set(noise)) == len(noise)
    assert len(samples) == len(drawn)


#: OpenSSL's generator for its own tests, whose bytes a program may choose.
TEST_GENERATOR = """
openssl_conf = init
[init]
random = random
[random]
random = TEST-RAND
seed = TEST-RAND
"""


def test_a_configuration_of_openssl_cannot_seed_noise(tmp_path):
    """The generator without entropy of its own gives none: noise is refused, not repeated."""
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(TEST_GENERATOR)
    script = textwrap.dedent(DRAW) + "print(json.dumps(draws()))"
    processes = [start(script, OPENSSL_CONF=str(configuration)) for _ in range(2)]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert printed[0] != printed[1] or all(process.returncode for process in processes)
