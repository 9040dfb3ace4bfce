"""`hushtune verify RUN --model BASE [--expect HASH] [--sign KEY] [--out DIR] [--json]`"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from hushtune.cli.arguments import parse_flags

if TYPE_CHECKING:
    from hushtune.certificate.checks import Verification


def run(arguments: Sequence[str]) -> int:
    """Check a run without its data; write a certificate, or check one that was written."""

    def command(
        run: Annotated[str, tyro.conf.Positional],
        model: str | None = None,
        expect: str | None = None,
        out: str | None = None,
        sign: str | None = None,
        check: str | None = None,
        public_key: str | None = None,
        json: bool = False,
    ) -> dict[str, Any]:
        """Check ledger, ε, base model and weights of a run without its data, and certify them.

        Replays the ledger into a temporary folder, which needs room for the model (TMPDIR).

        Args:
            run: a run folder.
            model: the base model, if not where the ledger says.
            expect: the ledger's head, kept elsewhere: shows that its end was not cut off.
            out: folder to write certificate.json and certificate.html to; the run folder if none.
            sign: Ed25519 private key in PEM (PKCS8): writes certificate.sig as well.
            check: folder of a certificate to check instead of writing one.
            public_key: with --check, the signer's Ed25519 public key in PEM.
            json: print one line for machines.
        """
        return locals()

    flags = parse_flags(command, arguments, prog="hushtune verify")
    if flags["check"] is None:
        if flags["public_key"] is not None:
            raise ValueError("--public-key goes with --check.")
        found, result = _certify(flags)
    else:
        if flags["out"] is not None or flags["sign"] is not None:
            raise ValueError("--check writes no certificate: it goes without --out and --sign.")
        found, result = _check(flags)
    return _report(found, result, as_json=flags["json"])


def _certify(flags: dict[str, Any]) -> tuple[Verification, dict[str, Any]]:
    from hushtune.certificate import filing, signing
    from hushtune.certificate.verification import verify

    key = signing.load_private_key(flags["sign"]) if flags["sign"] is not None else None
    found = verify(flags["run"], model=flags["model"], expect=flags["expect"])
    if found.failed:
        return found, {}
    out = Path(flags["out"] if flags["out"] is not None else flags["run"])
    document = filing.issue(found, out, key=key)
    return found, {"written": str(out), "signer": document["signer"]}


def _check(flags: dict[str, Any]) -> tuple[Verification, dict[str, Any]]:
    from hushtune.certificate import filing, signing
    from hushtune.certificate.verification import verify

    path, folder = flags["public_key"], Path(flags["check"])
    key = signing.load_public_key(path) if path is not None else None
    expect = flags["expect"] if flags["expect"] is not None else filing.filed_head(folder)
    found = verify(flags["run"], model=flags["model"], expect=expect)
    if not found.failed:
        found.checks += filing.check(found, folder, public_key=key)
    return found, {}


def _report(found: Verification, result: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        facts = {
            "verified": not found.failed,
            "checks": [dataclasses.asdict(check) for check in found.checks],
            "epsilon": found.guarantee.get("epsilon"),
            "delta": found.guarantee.get("delta"),
            "ledger_head": found.record.head if found.record else None,
            "moved_sha256": found.moved_sha256 or None,
        }
        print(json.dumps(facts | result))
        return 1 if found.failed else 0
    _show(found, result)
    if found.failed:
        reasons = "; ".join(f"{check.name}: {check.evidence}" for check in found.failed)
        print(f"hushtune verify: {reasons}.", file=sys.stderr)
        return 1
    return 0


def _show(found: Verification, result: dict[str, Any]) -> None:
    from rich.markup import escape

    from hushtune.report.words import guarantee_line, show

    colours = {"passed": "green", "failed": "bold red", "not applicable": "dim"}
    rows = {
        check.name: f"[{colours[check.status]}]{check.status}[/]  {escape(check.evidence)}"
        for check in found.checks
    }
    if not found.failed:
        terms = [found.guarantee[name] for name in ("epsilon", "delta", "unit", "adjacency")]
        rows["claimed"] = f"[bold]{escape(guarantee_line(*terms))}[/bold]"
    if "written" in result:
        rows["written to"] = escape(result["written"])
    show("", rows)
