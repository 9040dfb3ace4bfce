"""Read off the source: no generator that can be seeded on the private side, and no way from a
configuration to the arguments through which tests inject noise and sampling."""

from __future__ import annotations

import ast
import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest

import hushtune
from hushtune.config import Config

PACKAGE = Path(hushtune.__file__).parent

#: Generators with a state that somebody could set or read.
SEEDABLE = ("random", "numpy.random", "scipy.stats", "torch", "numba", "transformers")


def seedable_names(source: str) -> list[str]:
    """Imports of seedable generators, and uses of `np.random`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}".replace("np.", "numpy.")]
        else:
            continue
        found += [
            name
            for name in names
            if any(name == bad or name.startswith(f"{bad}.") for bad in SEEDABLE)
        ]
    return found


def test_the_private_side_has_no_generator_that_can_be_seeded():
    # The audit makes up data and sets seeds on purpose; what it audits does not know it.
    audit = PACKAGE / "privacy" / "audit"
    files = [file for file in (PACKAGE / "privacy").rglob("*.py") if audit not in file.parents]
    assert {"boundary.py", "drawing.py", "sampling.py", "steps.py"} <= {file.name for file in files}
    for file in files:
        assert not seedable_names(file.read_text()), file
        assert "privacy.audit" not in file.read_text(), file


@pytest.mark.parametrize(
    "line",
    [
        "import random",
        "from random import gauss",
        "import numpy.random",
        "from numpy import random",
        "noise = np.random.normal()",
        "import torch.nn",
        "from torch import Generator",
        "from scipy.stats import norm",
    ],
)
def test_the_search_finds_one(line):
    assert seedable_names(f"def f():\n    {line}")


#: What tests inject noise and sampling through.
INJECTED = {"add_noise", "random_bytes"}


def injections(source: str) -> list[str]:
    """Where a sampler or boundary may be made with a source of randomness of somebody's choice."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", getattr(function, "attr", ""))
            keywords = {keyword.arg for keyword in node.keywords}
            starred = None in keywords or any(isinstance(a, ast.Starred) for a in node.args)
            if keywords & INJECTED or (
                starred and name in ("Boundary", "PoissonSampler", "PrivateSteps", "SecretDraws")
            ):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute) and node.attr.lstrip("_") in INJECTED:
            found.append(ast.unparse(node))
    return found


def test_nothing_outside_the_private_side_can_inject_noise_or_sampling():
    files = [file for file in PACKAGE.rglob("*.py") if PACKAGE / "privacy" not in file.parents]
    assert len(files) > 30
    for file in files:
        assert not injections(file.read_text()), file


@pytest.mark.parametrize(
    "line",
    [
        "Boundary(plan, add_noise=noise)",
        "privacy.PoissonSampler(units=3, probability=q, random_bytes=config.source)",
        "Boundary(*arguments)",
        "PoissonSampler(**options)",
        "boundary._add_noise = noise",
        "make(random_bytes=source)",
    ],
)
def test_the_search_finds_an_injection(line):
    assert injections(line)


def settings_of(settings: type) -> dict[str, Any]:
    """Names and types of all settings, nested ones included."""
    found = {}
    for name, kind in typing.get_type_hints(settings).items():
        if name.startswith("__"):
            continue
        found |= settings_of(kind) if dataclasses.is_dataclass(kind) else {name: kind}
    return found


def test_no_setting_is_a_seed_or_a_source_of_secret_randomness():
    settings = settings_of(Config)
    assert {"seed", "epsilon", "directions", "unit"} <= settings.keys()
    assert [name for name in settings if "seed" in name] == ["seed"]  # public, see above
    assert not settings.keys() & INJECTED
    for name, kind in settings.items():
        # Values that YAML has; no functions, generators or bytes.
        assert kinds_of(kind) <= {str, int, float, bool, type(None)}, name


def kinds_of(kind: Any) -> set[Any]:
    """The types of values in it: what a union, a literal or a container is made of."""
    if typing.get_origin(kind) is typing.Literal:
        return {type(value) for value in typing.get_args(kind)}
    parts = [part for part in typing.get_args(kind) if part is not ...]
    return set().union(*map(kinds_of, parts)) if parts else {kind}
