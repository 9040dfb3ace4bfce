"""What people import is documented: in `help()`, and in the pages that `make docs` writes."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

GENERATOR = Path(__file__).parent.parent / "docs" / "generate_api.py"

MODULES = ("hushtune", "hushtune.core", "hushtune.config", "hushtune.privacy")


def public(module: str) -> list[tuple[str, Any]]:
    """What a module offers, with the methods and properties of its own classes, by full name."""
    found = []
    made = importlib.import_module(module)
    for name in made.__all__:
        value = getattr(made, name)
        if inspect.ismodule(value) or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        found.append((f"{module}.{name}", value))
        if inspect.isclass(value):
            found += [
                (f"{module}.{name}.{own}", getattr(value, own))
                for own, member in vars(value).items()
                if not own.startswith("_")
                and isinstance(member, property | staticmethod | classmethod | type(public))
            ]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_everything_says_what_it_is(module: str):
    for name, value in public(module):
        said = (inspect.getdoc(value) or "").strip()
        assert said, name
        assert said.splitlines()[0] in pydoc.render_doc(value, renderer=pydoc.plaintext)


@pytest.mark.parametrize("module", MODULES)
def test_every_parameter_has_a_type_and_every_function_says_what_it_returns(module: str):
    for name, value in public(module):
        if not inspect.isroutine(value):
            continue
        signature = inspect.signature(value)
        assert signature.return_annotation is not signature.empty, name
        for parameter in signature.parameters.values():
            if parameter.name not in ("self", "cls"):
                assert parameter.annotation is not parameter.empty, (name, parameter.name)


class _Identifiers(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found |= {value for name, value in attrs if name == "id" and value}


def test_the_pages_have_all_of_it(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, GENERATOR, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "does not resolve" not in done.stderr
    for module in MODULES:
        page = (tmp_path / f"{module.replace('.', '/')}.html").read_text(encoding="utf-8")
        identifiers = _Identifiers()
        identifiers.feed(page)
        wanted = {name.removeprefix(f"{module}.") for name, _ in public(module)}
        assert wanted <= identifiers.found
        assert str(Path.home()) not in page
    assert (tmp_path / "index.html").exists()


def test_type_checkers_are_told_that_there_are_types():
    import hushtune

    assert (Path(hushtune.__file__).parent / "py.typed").exists()
