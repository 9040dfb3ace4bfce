"""Carry out the checks of a run, each if what it needs has passed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from hushtune.certificate import checks, folders
from hushtune.certificate.checks import Check, Examination, Failed, NotApplicable, Verification
from hushtune.certificate.second_opinion import check_second_accountant

Look = Callable[[Examination], str]

#: Name: (the check it needs, what is done).
CHECKS: dict[str, tuple[str | None, Look]] = {
    "ledger": (None, checks.check_ledger),
    "ledger head": ("ledger", checks.check_ledger_head),
    "private": ("ledger", checks.check_private),
    "complete": ("private", checks.check_complete),
    "guarantee": ("complete", checks.check_guarantee),
    "second accountant": ("guarantee", check_second_accountant),
    "base model": ("complete", checks.check_base_model),
    "weights": ("base model", checks.check_weights),
    "other files": ("weights", checks.check_other_files),
    "summary": ("base model", checks.check_summary),
}


def verify(
    folder: str | Path, *, model: str | None = None, expect: str | None = None
) -> Verification:
    """Check a run folder against its ledger and the base model.

    The replayed model is written to a temporary folder (TMPDIR says where) and removed again.

    Args:
        model: where the base model is, if not where the ledger says.
        expect: the hash of the ledger's last line, kept elsewhere since the run ended.

    Raises:
        OSError: if there is no ledger, or no room for the replayed model.
        ValueError: if `expect` is not a SHA-256.
    """
    if expect is not None and not re.fullmatch("[0-9a-f]{64}", expect := expect.lower()):
        raise ValueError(
            f"--expect: {expect!r} is not accepted; it must be the ledger's head, 64 hexadecimal "
            "digits, as in privacy.json."
        )
    with tempfile.TemporaryDirectory(prefix="hushtune-verify-") as scratch:
        run = Examination(Path(folder), model, expect, Path(scratch))
        passed: set[str | None] = {None}
        for name, (needed, look) in CHECKS.items():
            check = _carry_out(name, needed, passed, run, look)
            run.found.checks.append(check)
            if check.status == "passed":
                passed.add(name)
        if run.saved is not None and not run.found.failed:
            run.found.files = folders.hashes(run.saved)
        return run.found


def _carry_out(
    name: str,
    needed: str | None,
    passed: set[str | None],
    run: Examination,
    look: Look,
) -> Check:
    if needed not in passed:
        return Check(name, "not applicable", f"needs the check “{needed}”, which did not pass")
    try:
        return Check(name, "passed", look(run))
    except Failed as reason:
        return Check(name, "failed", " ".join(str(reason).split()).rstrip("."))
    except NotApplicable as reason:
        return Check(name, "not applicable", str(reason))
