"""Every fault of the catalogue is flagged by what it says; the code as it is passes the same."""

from __future__ import annotations

import ast
from pathlib import Path

import catalogue
import order
import pytest
from catalogue import MECHANISM, ORDER, PIPELINE, Fault

from hushtune.privacy.audit import audit_mechanism

# Enough where a fault is large: so many draws that are not cut all stay within three scales with
# probability e^−67.
COORDINATES = 25_000
# A fault of a few percent takes more. Noise 3 % too small is 6 % of a sum of squares that varies by
# 0.5 %; q rounded is 1.6 % of a frequency that varies by 0.15 %. A finding fails from 4.9 standard
# deviations.
PRECISE = {"noise a little too small": 80_000, "q rounded": 80_000}

ROOT = Path(__file__).parents[2]


def names(faults: list[Fault]) -> list[str]:
    return [fault.name for fault in faults]


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_the_code_as_it_is_passes(noise):
    audit = audit_mechanism(catalogue.plan(noise), coordinates=max(PRECISE.values()))
    assert not [finding for finding in audit.findings if not finding.passed]
    flags = {finding.name for finding in audit.findings}
    assert {fault.flagged_by for fault in MECHANISM if fault.noise == noise} <= flags


@pytest.mark.parametrize("fault", MECHANISM, ids=names(MECHANISM))
def test_the_audit_flags(fault):
    audit = catalogue.audit(fault, PRECISE.get(fault.name, COORDINATES))
    assert not audit.passed
    failed = {finding.name: finding.evidence for finding in audit.findings if not finding.passed}
    assert fault.flagged_by in failed


#: Faults whose cost the attacks see in full: much more than what was claimed is shown to leak.
COSTLY = [
    "noise too small",
    "one noise for all directions",
    "noise used twice",
    "noise from the direction seed",
    "K accounted as one",
    "clip on the mean",
    "NaN let through",
    "q doubled",
]


@pytest.mark.parametrize("name", COSTLY)
def test_the_lower_bound_exceeds_the_claim(name):
    (fault,) = (fault for fault in MECHANISM if fault.name == name)
    audit = catalogue.audit(fault, COORDINATES)
    assert audit.epsilon_lower_bound > 1.1 * audit.epsilon_claimed


def test_a_lower_bound_above_the_claim_is_a_finding():
    audit = catalogue.audit(MECHANISM[0], COORDINATES)
    assert "lower bound within the claim" in {f.name for f in audit.findings if not f.passed}


def test_the_order_of_a_step_is_kept(tmp_path, monkeypatch):
    order.check(tmp_path, monkeypatch)


@pytest.mark.parametrize("fault", ORDER, ids=names(ORDER))
def test_the_check_of_the_order_flags(fault, tmp_path, monkeypatch):
    fault.plant(monkeypatch)
    with pytest.raises(AssertionError, match=fault.flagged_by):
        order.check(tmp_path, monkeypatch)


@pytest.mark.parametrize("fault", PIPELINE, ids=names(PIPELINE))
def test_the_test_elsewhere_exists(fault):
    path, _, test = fault.flagged_by.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_names_are_unique():
    every = names([*MECHANISM, *ORDER, *PIPELINE])
    assert len(every) == len(set(every))
