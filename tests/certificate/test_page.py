"""The page: complete, self-contained, accessible, and true to the numbers."""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verifying import Page, Runs

from hushtune.certificate.document import canonical, make
from hushtune.certificate.page import render
from hushtune.certificate.verification import verify
from hushtune.guarantee import rounded_up
from hushtune.privacy.plan import Adjacency


@pytest.fixture(scope="module")
def certificate(tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A signed run's certificate, as nested plain values."""
    root = tmp_path_factory.getbasetemp() / "verified"
    found = verify(Runs(tiny, root, Path()).finished("head"))
    made = make(found, issued=datetime.date(2026, 5, 4), signer="ab" * 32)
    return json.loads(canonical(made))


@pytest.fixture
def altered(certificate: dict[str, Any]) -> dict[str, Any]:
    """A certificate that a test may change."""
    return copy.deepcopy(certificate)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


def test_everything_in_the_certificate_is_on_the_page(certificate: dict[str, Any]):
    text = Page(render(certificate)).text.replace("\u00a0", " ")
    shown = {name: certificate[name] for name in certificate if name not in ("kind", "format")}
    shown["guarantee"] = {
        name: value
        for name, value in certificate["guarantee"].items()
        if name not in ("private", "group_privacy")
    }
    shown["run"] = {name: shown["run"][name] for name in shown["run"] if name != "unit_column"}
    for leaf in leaves(shown):
        assert (leaf if isinstance(leaf, str) else json.dumps(leaf)) in text
    for group in certificate["guarantee"]["group_privacy"]:
        assert f"{group['units']} {rounded_up(group['epsilon'])}" in text
    assert hashlib.sha256(canonical(certificate)).hexdigest() in text
    assert "2026-05-04" in text


def test_a_term_that_the_page_does_not_know_is_shown_by_its_name(altered: dict[str, Any]):
    altered["guarantee"]["rounds_of_talk"] = 12
    assert "rounds of talk 12" in Page(render(altered)).text


def test_the_page_needs_nothing_else(certificate: dict[str, Any]):
    page = Page(render(certificate))
    for tag, attributes in page.elements:
        assert tag not in ("script", "img", "link", "iframe", "object", "embed", "form", "base")
        assert not attributes.keys() & {"src", "srcset", "style", "onload", "onclick"}
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|https?:", page.style)
    assert ("html", {"lang": "en"}) in page.elements
    assert "prefers-color-scheme: dark" in page.style
    assert "@media print" in page.style


def test_the_page_can_be_read_aloud(certificate: dict[str, Any]):
    page = Page(render(certificate))
    tags = [tag for tag, _ in page.elements]
    assert (tags.count("h1"), tags.count("main"), tags.count("title")) == (1, 1, 1)
    headers = [attributes for tag, attributes in page.elements if tag == "th"]
    assert headers
    assert all(attributes.get("scope") in ("row", "col") for attributes in headers)
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    pointed = [
        (attributes.get("aria-labelledby") or attributes.get("href") or "").lstrip("#")
        for tag, attributes in page.elements
        if tag in ("section", "a")
    ]
    assert set(pointed) <= set(names)
    assert len(pointed) >= tags.count("h2") > 5


def test_what_a_ledger_says_cannot_become_part_of_the_page(altered: dict[str, Any]):
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    altered["run"]["base_model"] = hostile
    altered["run"]["unit_column"] = hostile
    altered["claim"] = hostile
    altered["guarantee"]["unit"] = hostile
    altered["guarantee"]["exclusions"][0] = hostile
    altered["checks"][0]["evidence"] = hostile
    altered["hashes"]["files"] = {hostile: "00"}
    altered["issued"] = hostile
    page = Page(render(altered))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert page.text.count("<script>alert(1)</script>") >= 8


@pytest.mark.parametrize("adjacency", typing.get_args(Adjacency))
@pytest.mark.parametrize("unit_column", [None, "user_id"])
def test_every_adjacency_and_unit_has_its_words(
    altered: dict[str, Any], adjacency: str, unit_column: str | None
):
    altered["guarantee"]["adjacency"] = adjacency
    altered["run"]["unit_column"] = unit_column
    text = Page(render(altered)).text
    question = {"add-or-remove-one": "among that data at all", "replace-one": "in its place"}
    assert question[adjacency] in text
    unit = "row of the" if unit_column is None else "user_id of the training data with all its"
    assert f"Take any one {unit}" in text


@pytest.mark.parametrize(
    ("epsilon", "delta", "words"),
    [
        (1.0, 1e-5, "e ε = 2.72, up or down. δ = 1e-05 is the allowance"),
        (2.0, 0.0, "e ε = 7.39, up or down. As δ is 0, there are no outcomes"),
        (699.0, 0.0, "e ε = 3.74e+303, up or down."),
        (5000.0, 1e-5, "e ε , up or down."),
    ],
)
def test_the_factor_of_the_odds(altered: dict[str, Any], epsilon: float, delta: float, words: str):
    altered["guarantee"] |= {"epsilon": epsilon, "delta": delta}
    assert words in Page(render(altered)).text


def test_an_unsigned_page_says_so(altered: dict[str, Any]):
    altered["signer"] = None
    page = Page(render(altered))
    assert "not signed digitally" in page.text
    (command,) = page.blocks
    assert command.endswith("--check CERTIFICATE")
    assert "openssl" not in page.text


@given(st.floats(1e-300, 1e300), st.integers(1, 8))
def test_numbers_are_never_rounded_down(value: float, digits: int):
    shown = float(rounded_up(value, digits))
    assert value <= shown <= value * (1 + 10 ** (1 - digits)) * (1 + 1e-15)


def test_numbers_that_are_exact_stay_as_they_are():
    assert [rounded_up(value) for value in (0.0, 1e-5, 4.0, 1.998, 2)] == [
        "0",
        "1e-05",
        "4",
        "1.998",
        "2",
    ]
    assert rounded_up(1.99801) == "1.999"


def test_a_run_that_failed_a_check_has_no_certificate(
    tiny, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
):
    run = Runs(tiny, tmp_path_factory.getbasetemp() / "verified", tmp_path).copy("head")
    (run / "privacy.json").unlink()
    with pytest.raises(ValueError, match="Expected a run of which no check failed"):
        make(verify(run), issued=datetime.date.today(), signer=None)
