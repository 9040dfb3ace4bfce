"""Ed25519 signatures (RFC 8032) over a certificate's bytes, by the `cryptography` package.

A signature file holds the 64 bytes in base64, in one line, so that OpenSSL can check it too:

    openssl base64 -d -A -in certificate.sig -out signature.bin
    openssl pkeyutl -verify -pubin -inkey key.pub -rawin -in certificate.json -sigfile signature.bin
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )


def load_private_key(path: str | Path) -> Ed25519PrivateKey:
    """The private key of a PEM file (PKCS8); asks for its password if it has one.

    Raises:
        ValueError: if it is no such key, or the password is wrong.
        OSError: if there is no such file.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content, password = Path(path).read_bytes(), None
    if b"ENCRYPTED" in content:
        try:
            password = getpass.getpass(f"Password of {path}: ").encode()
        except EOFError:
            raise ValueError(f"--sign: {path} has a password, and none was entered.") from None
    try:
        key = load_pem_private_key(content, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        wrong = " with this password" if password is not None else ""
        raise ValueError(
            f"--sign: {path} is not accepted{wrong}; it must be an Ed25519 private key in PEM "
            "(PKCS8), as `openssl genpkey -algorithm ed25519` makes one."
        )
    return key


def load_public_key(path: str | Path) -> Ed25519PublicKey:
    """The public key of a PEM file.

    Raises:
        ValueError: if it is no such key.
        OSError: if there is no such file.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(
            f"--public-key: {path} is not accepted; it must be an Ed25519 public key in PEM, as "
            "`openssl pkey -in KEY -pubout` writes one."
        )
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the key's DER encoding (SubjectPublicKeyInfo), in hexadecimal digits."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def sign(key: Ed25519PrivateKey, content: bytes) -> bytes:
    """The content of a signature file: base64 and a final newline."""
    return base64.b64encode(key.sign(content)) + b"\n"


def is_valid(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    """Whether a signature file's content is the key's signature of `content`."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), content)
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ValueError(
            "signatures need the package cryptography: pip install 'hushtune[sign]'."
        ) from None
