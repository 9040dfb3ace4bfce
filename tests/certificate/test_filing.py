"""The certificate's files: what they say, who signed them, and that a changed one is found."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from verifying import Page, Runs, Verify, has_certificate, head_of

from hushtune.certificate import document as documents
from hushtune.certificate.page import render
from hushtune.certificate.signing import load_private_key, sign
from hushtune.guarantee import describe_guarantee
from hushtune.privacy import ledger as ledgers

#: The files of a private key and its public key.
Keys = tuple[Path, Path]


@pytest.fixture
def verify(capsys) -> Verify:
    return Verify(capsys)


@pytest.fixture
def runs(tiny, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Runs:
    return Runs(tiny, tmp_path_factory.getbasetemp() / "verified", tmp_path)


@pytest.fixture
def head(runs: Runs) -> Path:
    """A run that moved a head: per row, Gaussian noise."""
    return runs.copy("head")


def write_key(path: Path, key: Any = None, password: bytes | None = None) -> Keys:
    """A private key in PKCS8 and its public key, both in PEM."""
    key = key or Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public = path.with_suffix(".pub")
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return path, public


@pytest.fixture
def key(tmp_path: Path) -> Keys:
    return write_key(tmp_path / "key.pem")


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "certificate.json").read_bytes())


@pytest.mark.parametrize("kind", ["head", "lora"])
def test_the_certificate_says_what_was_found(verify: Verify, runs: Runs, kind: str):
    run = runs.copy(kind)
    verify(run, "--expect", head_of(run))
    said = read(run)
    record = ledgers.read(run / "ledger.jsonl")
    assert said["guarantee"] == describe_guarantee(record)
    saved = (run / {"head": "model", "lora": "adapter"}[kind]).rglob("*")
    assert said["hashes"] == {
        "base_weights": record.header["base_sha256"],
        "moving_parameters_before": record.header["start_sha256"],
        "moving_parameters_after": json.loads((run / "summary.json").read_text())["moved_sha256"],
        "ledger_head": head_of(run),
        "files": {
            str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in saved
            if path.is_file()
        },
    }
    assert said["run"]["tune"] == kind
    assert said["signer"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", said["issued"])
    assert not (run / "certificate.sig").exists()


def test_the_claim_names_its_terms_and_never_says_proved(verify: Verify, runs: Runs):
    claims = {}
    for kind in ("head", "lora"):
        run = runs.copy(kind)
        verify(run)
        claims[kind] = read(run)["claim"]
        page = (run / "certificate.html").read_text()
        assert "claimed by the ledger" in page
        for text in (page, (run / "certificate.json").read_text()):
            assert not re.search(r"\bprove[dns]?\b", text)
            assert not re.search(r"\d:\d\d", text)  # no time of day
        for sentence in read(run)["guarantee"]["exclusions"]:
            assert sentence in page
    assert re.fullmatch(
        r"The ledger of this run claims differential privacy with ε = [34](\.\d+)? and δ = 1e-05 "
        r"for any one row of the training data, under add-or-remove-one adjacency\.",
        claims["head"],
    )
    assert claims["lora"] == (
        "The ledger of this run claims differential privacy with ε = 4 (pure) and δ = 0 for any "
        "one user_id of the training data with all its rows, under add-or-remove-one adjacency."
    )


def test_the_certificate_has_one_spelling(verify: Verify, head: Path):
    verify(head)
    content = (head / "certificate.json").read_bytes()
    assert documents.canonical(json.loads(content)) == content
    assert content == documents.canonical(dict(reversed(list(json.loads(content).items()))))
    for spelling in (
        content + b"\n",
        content.replace(b":", b": ", 1),
        json.dumps(json.loads(content)).encode(),
        content.replace(b'"format":1', b'"format":1,"format":1'),
        b"[]\n",
        b'{"a":NaN}\n',
        b"\xff",
        b"[" * 100_000,
    ):
        with pytest.raises(ValueError, match="its bytes are not those of a certificate"):
            documents.parse(spelling)


def test_an_honest_certificate_is_accepted(verify: Verify, head: Path, tmp_path: Path, key: Keys):
    private, public = key
    out = tmp_path / "filed" / "here"
    verify(head, "--out", out, "--sign", private)
    assert not has_certificate(head)
    checks = verify.checks(head, "--check", out, "--public-key", public)
    assert {status for status, _ in checks.values()} == {"passed"}
    assert {"ledger head", "certificate", "signature", "page"} < checks.keys()
    # Without the key, the signature is the one thing that stays open.
    checks = verify.checks(head, "--check", out)
    assert checks["signature"][0] == "not applicable"
    # Another day, a machine whose ε differs in the last digits.
    filed = read(out)
    filed["issued"] = "2020-02-02"
    filed["guarantee"]["epsilon"] *= 1 + 1e-9
    (out / "certificate.json").write_bytes(documents.canonical(filed))
    (out / "certificate.html").write_text(render(filed))
    assert verify.checks(head, "--check", out)["certificate"][0] == "passed"
    (out / "certificate.html").unlink()
    assert verify.checks(head, "--check", out)["page"][0] == "not applicable"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda said: said["guarantee"].update(epsilon=1.0), "guarantee.epsilon"),
        (lambda said: said["guarantee"].update(steps=6), "guarantee.steps"),
        (lambda said: said["guarantee"]["exclusions"].pop(), "guarantee.exclusions.6"),
        (lambda said: said.update(claim="This run is private."), "claim"),
        (lambda said: said["hashes"]["files"].popitem(), "hashes.files."),
        (lambda said: said["hashes"].update(base_weights="0" * 64), "hashes.base_weights"),
        (lambda said: said["run"].update(unit_column="user_id"), "run.unit_column"),
        (lambda said: said["checks"][3].update(status="failed"), "checks.complete"),
        (lambda said: said.update(checks=[]), "checks.ledger"),
        (lambda said: said.update(checks=None), "checks.ledger"),
        (lambda said: said.update(guarantee=[]), "guarantee"),
        (lambda said: said.pop("signer"), "signer"),
        (lambda said: said.update(note="proved"), "note"),
        (lambda said: said["run"].update(notes={}), "run.notes"),
    ],
)
def test_a_certificate_that_says_otherwise_is_found(
    verify: Verify, head: Path, change: Callable[[dict[str, Any]], object], name: str
):
    verify(head)
    filed = read(head)
    change(filed)
    (head / "certificate.json").write_bytes(documents.canonical(filed))
    failed = verify.failed(head, "--check", head)
    assert failed.keys() == {"certificate"}
    assert f"it says otherwise than was found in {name}" in failed["certificate"]


@pytest.mark.parametrize(
    ("change", "name", "because"),
    [
        ({"hashes": {"ledger_head": "0" * 64}}, "ledger head", "expected was 0000"),
        ({"hashes": {"ledger_head": "none"}}, "certificate", "it says otherwise"),
        ({"hashes": None}, "certificate", "it says otherwise"),
        ({"kind": "letter"}, "certificate", "it is not a hushtune certificate of format 1"),
        ({"format": 2}, "certificate", "it is not a hushtune certificate of format 1"),
    ],
)
def test_a_certificate_of_something_else_is_found(
    verify: Verify, head: Path, change: dict[str, Any], name: str, because: str
):
    verify(head)
    (head / "certificate.json").write_bytes(documents.canonical(read(head) | change))
    failed = verify.failed(head, "--check", head)
    assert failed.keys() == {name}
    assert because in failed[name]


def test_a_certificate_of_a_run_that_changed_since_is_refused(verify: Verify, head: Path):
    verify(head)
    (head / "model" / "label_vectors.safetensors").unlink()
    assert verify.failed(head, "--check", head).keys() == {"weights"}


def test_a_changed_page_is_found(verify: Verify, head: Path):
    verify(head)
    page = head / "certificate.html"
    page.write_text(page.read_text().replace("ε\u00a0=\u00a0", "ε\u00a0=\u00a00", 1))
    assert verify.failed(head, "--check", head) == {
        "page": f"{page} is not the page of certificate.json"
    }


def test_a_page_of_another_version_is_not_compared(verify: Verify, head: Path):
    verify(head)
    rewritten = read(head) | {"hushtune": "0.0.1"}
    (head / "certificate.json").write_bytes(documents.canonical(rewritten))
    assert verify.checks(head, "--check", head)["page"][0] == "not applicable"


def test_every_changed_byte_breaks_the_signature(verify: Verify, head: Path, key: Keys):
    verify(head, "--sign", key[0])
    path = head / "certificate.json"
    content = path.read_bytes()
    for place in (0, content.index(b'"issued":"') + 12, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        failed = verify.failed(head, "--check", head, "--public-key", key[1])
        assert "signature" in failed
        assert "is not this key's signature" in failed["signature"]


@pytest.mark.parametrize(
    "content", [b"", b"bm8=\n", b"not base64", b"\xff", b"A" * 88 + b"\n"], ids=range(5)
)
def test_a_file_that_is_no_signature_is_found(
    verify: Verify, head: Path, key: Keys, content: bytes
):
    verify(head, "--sign", key[0])
    (head / "certificate.sig").write_bytes(content)
    assert verify.failed(head, "--check", head, "--public-key", key[1]).keys() == {"signature"}


def test_a_signature_by_another_key_is_found(verify: Verify, head: Path, key: Keys, tmp_path: Path):
    other, others_public = write_key(tmp_path / "other.pem")
    verify(head, "--sign", key[0])
    failed = verify.failed(head, "--check", head, "--public-key", others_public)
    assert failed.keys() == {"signature"}
    # Signed by the other, it still names the first.
    signed = (head / "certificate.json").read_bytes()
    verify(head, "--sign", other)
    (head / "certificate.json").write_bytes(signed)
    (head / "certificate.sig").write_bytes(sign(load_private_key(other), signed))
    failed = verify.failed(head, "--check", head, "--public-key", others_public)
    assert failed["signature"] == "certificate.json does not name the key that signed it"


def test_a_missing_signature_is_found(verify: Verify, head: Path, key: Keys):
    verify(head, "--sign", key[0])
    # Issued again without a key, the old signature is gone.
    verify(head)
    failed = verify.failed(head, "--check", head, "--public-key", key[1])
    assert failed["signature"] == f"there is no {head / 'certificate.sig'}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_checks_the_signature_with_the_commands_of_the_page(
    verify: Verify, head: Path, key: Keys
):
    verify(head, "--sign", key[0])
    shutil.copy(key[1], head / "key.pub")
    page = Page((head / "certificate.html").read_text())
    _, commands = page.blocks
    decode, check, fingerprint = commands.splitlines()

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, shell=True, cwd=head, capture_output=True, text=True, timeout=60
        )

    assert shell(decode).returncode == 0
    done = shell(check)
    assert (done.returncode, "Verified Successfully" in done.stdout) == (0, True), done.stderr
    assert read(head)["signer"]["public_key_sha256"] in shell(fingerprint).stdout
    (head / "certificate.json").write_bytes((head / "certificate.json").read_bytes() + b" ")
    assert shell(check).returncode != 0


def test_a_key_with_a_password_asks_for_it(
    verify: Verify, head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    private, public = write_key(tmp_path / "locked.pem", password=b"open sesame")
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "open sesame")
    verify(head, "--sign", private)
    assert verify.checks(head, "--check", head, "--public-key", public)["signature"][0] == "passed"
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "open barley")
    assert "is not accepted with this password; " in verify(head, "--sign", private, code=1)[1]

    def nobody(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", nobody)
    assert "has a password, and none was entered" in verify(head, "--sign", private, code=1)[1]


def test_keys_of_another_kind_are_refused(verify: Verify, head: Path, tmp_path: Path, key: Keys):
    private, public = write_key(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))
    (tmp_path / "text").write_text("no key")
    for path in (private, tmp_path / "text", key[1]):
        line = verify(head, "--sign", path, code=1)[1]
        assert line.startswith(f"--sign: {path} is not accepted; it must be an Ed25519 private")
    for path in (public, tmp_path / "text", key[0]):
        line = verify(head, "--check", head, "--public-key", path, code=1)[1]
        assert line.startswith(f"--public-key: {path} is not accepted; it must be an Ed25519 pu")
    nowhere = tmp_path / "nowhere"
    line = verify(head, "--sign", nowhere, code=1)[1]
    assert line == f"{nowhere}: no such file or directory.\n"
    assert not has_certificate(head)


def test_without_cryptography_the_extra_is_named(
    verify: Verify, head: Path, key: Keys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for flags in (["--sign", key[0]], ["--check", head, "--public-key", key[1]]):
        line = verify(head, *flags, code=1)[1]
        assert line == ("signatures need the package cryptography: pip install 'hushtune[sign]'.\n")
    assert not has_certificate(head)
    verify(head)  # needs no signature


@pytest.mark.parametrize(
    ("flags", "because"),
    [
        (["--public-key", "key.pub"], "--public-key goes with --check."),
        (["--check", ".", "--out", "x"], "--check writes no certificate"),
        (["--check", ".", "--sign", "x"], "--check writes no certificate"),
        (["--check", "nowhere"], "nowhere/certificate.json: no such file or directory."),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    verify: Verify, head: Path, flags: list[str], because: str
):
    assert verify(head, *flags, code=1)[1].startswith(because)
