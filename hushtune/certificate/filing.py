"""Write a certificate's files, and check files that were written before."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hushtune
from hushtune.certificate import document as documents
from hushtune.certificate import signing
from hushtune.certificate.checks import Check, Verification
from hushtune.certificate.page import render

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

DOCUMENT = "certificate.json"
PAGE = "certificate.html"
SIGNATURE = "certificate.sig"


def issue(
    verified: Verification, folder: Path, *, key: Ed25519PrivateKey | None = None
) -> dict[str, Any]:
    """Write certificate.json, certificate.html and, with a key, certificate.sig.

    Raises:
        ValueError: if a check failed.
    """
    signer = None if key is None else signing.fingerprint(key.public_key())
    today = datetime.datetime.now(datetime.UTC).date()
    document = documents.make(verified, issued=today, signer=signer)
    content = documents.canonical(document)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SIGNATURE).unlink(missing_ok=True)  # of an earlier certificate
    (folder / DOCUMENT).write_bytes(content)
    (folder / PAGE).write_text(render(document), encoding="utf-8")
    if key is not None:
        (folder / SIGNATURE).write_bytes(signing.sign(key, content))
    return document


def filed_head(folder: Path) -> str | None:
    """The ledger head that a filed certificate names, if it can be read.

    Raises:
        OSError: if there is no certificate.
    """
    try:
        head = documents.parse((folder / DOCUMENT).read_bytes())["hashes"]["ledger_head"]
        return head if re.fullmatch("[0-9a-f]{64}", head) else None
    except (ValueError, KeyError, TypeError):
        return None


def check(
    verified: Verification, folder: Path, *, public_key: Ed25519PublicKey | None = None
) -> list[Check]:
    """Check a filed certificate against a fresh verification of which no check failed.

    Raises:
        OSError: if there is no certificate.
    """
    content = (folder / DOCUMENT).read_bytes()
    signature = _check_signature(folder / SIGNATURE, content, public_key)
    try:
        filed = documents.parse(content)
        fresh = documents.make(verified, issued=datetime.date.min, signer=None)
        if different := documents.differences(filed, fresh):
            raise ValueError(f"it says otherwise than was found in {', '.join(different)}")
        signature = _check_signer(signature, filed["signer"], public_key)
    except ValueError as error:
        return [Check("certificate", "failed", f"{folder / DOCUMENT}: {error}"), signature]
    agrees = f"{DOCUMENT} says what was found here, and that it was issued on {filed['issued']}"
    return [
        Check("certificate", "passed", agrees),
        signature,
        _check_page(folder / PAGE, filed),
    ]


def _check_signature(path: Path, content: bytes, key: Ed25519PublicKey | None) -> Check:
    if key is None:
        return Check("signature", "not applicable", "no public key was given to check it with")
    if not path.exists():
        return Check("signature", "failed", f"there is no {path}")
    if not signing.is_valid(key, path.read_bytes(), content):
        return Check("signature", "failed", f"{path} is not this key's signature of {DOCUMENT}")
    words = f"{DOCUMENT} is signed with the key of fingerprint {signing.fingerprint(key)}"
    return Check("signature", "passed", words)


def _check_signer(signature: Check, signer: Any, key: Ed25519PublicKey | None) -> Check:
    """A valid signature must be of the key that the certificate, and so the page, names."""
    if key is None or signature.status != "passed":
        return signature
    expected = {"algorithm": "Ed25519", "public_key_sha256": signing.fingerprint(key)}
    if signer != expected:
        return Check("signature", "failed", f"{DOCUMENT} does not name the key that signed it")
    return signature


def _check_page(path: Path, filed: dict[str, Any]) -> Check:
    if not path.exists():
        return Check("page", "not applicable", f"there is no {path.name}")
    if filed["hushtune"] != hushtune.__version__:
        made = f"{PAGE} was made by hushtune {filed['hushtune']}; this is {hushtune.__version__}"
        return Check("page", "not applicable", made)
    if path.read_bytes() != render(filed).encode():
        return Check("page", "failed", f"{path} is not the page of {DOCUMENT}")
    return Check("page", "passed", f"{PAGE} is the page of {DOCUMENT}, byte for byte")
