"""The certificate as plain values with one spelling in bytes, so that it can be signed."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

import hushtune
from hushtune.certificate.checks import Verification
from hushtune.certificate.terms import differing_terms
from hushtune.guarantee import rounded_up

FORMAT = 1


def make(verified: Verification, *, issued: datetime.date, signer: str | None) -> dict[str, Any]:
    """The certificate of a run of which no check failed.

    Args:
        signer: SHA-256 of the public key that the certificate will be checked with.

    Raises:
        ValueError: if a check failed.
    """
    record = verified.record
    if record is None or verified.failed:
        raise ValueError("Expected a run of which no check failed.")
    config = record.header["config"]
    run = {
        "base_model": config["model"]["name"],
        "tune": verified.tune,
        "method": config["method"]["name"],
        "unit_column": config["data"]["unit"],
        "public_seed": record.header["public_seed"],
        "versions": record.header["versions"],
    }
    hashes = {
        "base_weights": record.header["base_sha256"],
        "moving_parameters_before": record.header["start_sha256"],
        "moving_parameters_after": verified.moved_sha256,
        "ledger_head": record.head,
        "files": verified.files,
    }
    return {
        "kind": "hushtune certificate",
        "format": FORMAT,
        "hushtune": hushtune.__version__,
        "issued": issued.isoformat(),
        "claim": claim(verified.guarantee, run["unit_column"]),
        "guarantee": verified.guarantee,
        "run": run,
        "hashes": hashes,
        "checks": [dataclasses.asdict(check) for check in verified.checks],
        "signer": None if signer is None else {"algorithm": "Ed25519", "public_key_sha256": signer},
    }


def canonical(document: dict[str, Any]) -> bytes:
    """The one spelling: sorted keys, ASCII, no spaces, and a final newline."""
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii") + b"\n"


def parse(content: bytes) -> dict[str, Any]:
    """The certificate of these bytes.

    Raises:
        ValueError: if they are not what `canonical` makes of a certificate.
    """
    try:
        document = json.loads(content)
        one_spelling = isinstance(document, dict) and canonical(document) == content
    except (ValueError, RecursionError):
        one_spelling = False
    if not one_spelling:
        raise ValueError("its bytes are not those of a certificate")
    if document.get("kind") != "hushtune certificate" or document.get("format") != FORMAT:
        raise ValueError(f"it is not a hushtune certificate of format {FORMAT}")
    return document


def differences(filed: dict[str, Any], fresh: dict[str, Any]) -> list[str]:
    """Names of what a filed certificate says otherwise than a fresh one of the same run.

    Who issued it, when and with which version is not compared, nor the words of the evidence, nor
    whether a ledger head was expected.
    """
    wanted = {**fresh, **{name: filed.get(name) for name in ("hushtune", "issued", "signer")}}
    if not differing_terms(filed.get("guarantee"), fresh["guarantee"]):
        # ε may differ in its last digits, and the claim rounds what the certificate itself says.
        wanted["claim"] = claim(filed["guarantee"], fresh["run"]["unit_column"])
    return list(differing_terms(_comparable(filed), _comparable(wanted)))


def _comparable(document: dict[str, Any]) -> dict[str, Any]:
    try:
        ended = {check["name"]: check["status"] for check in document["checks"]}
    except (KeyError, TypeError):
        ended = {}
    ended.pop("ledger head", None)
    return document | {"checks": ended}


def claim(guarantee: dict[str, Any], unit_column: str | None) -> str:
    """The guarantee in one sentence; numbers are rounded up."""
    pure = " (pure)" if guarantee["delta"] == 0 else ""
    return (
        f"The ledger of this run claims differential privacy with ε = "
        f"{rounded_up(guarantee['epsilon'])}{pure} and δ = {rounded_up(guarantee['delta'])} for "
        f"{unit_in_words(unit_column)}, under {guarantee['adjacency']} adjacency."
    )


def unit_in_words(unit_column: str | None) -> str:
    """What the guarantee protects, as part of a sentence."""
    if unit_column is None:
        return "any one row of the training data"
    return f"any one {unit_column} of the training data with all its rows"
