"""Everything that can be checked of a run without its data, one check after the other.

A check ends as passed, failed or not applicable, with one line of evidence. What one fails is not
used by the next: a check that needs another is not applicable where that one has not passed.
Each function here takes the examination of a run, returns its evidence, and raises `Failed` or
`NotApplicable`. Nothing shows that noise was added; see `hushtune.guarantee.exclusions`.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from hushtune import run as runs
from hushtune.certificate import folders
from hushtune.certificate.terms import differing_terms
from hushtune.config import from_values
from hushtune.guarantee import describe_guarantee
from hushtune.models.load import hash_tensors
from hushtune.opening import RunSession
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import LedgerError, Record

Status = Literal["passed", "failed", "not applicable"]

#: What the certificate quotes from the ledger's header.
_QUOTED = {
    "config": dict,
    "base_sha256": str,
    "start_sha256": str,
    "public_seed": int,
    "versions": dict,
}

#: What reading a header raises that no training wrote, though its hashes follow from each other.
_UNUSABLE = (KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Check:
    """One check: its name, how it ended, and one line of evidence."""

    name: str
    status: Status
    evidence: str


@dataclass
class Verification:
    """What was found; the values are there as far as the checks that make them passed.

    Attributes:
        checks: in the order in which they were carried out.
        record: what the ledger says.
        guarantee: what `describe_guarantee` makes of it.
        tune: what moves.
        moved_sha256: `hash_tensors` of the replayed parameters that move.
        files: SHA-256 by path within the run folder, of every file of the saved model.
    """

    checks: list[Check] = field(default_factory=list)
    record: Record | None = None
    guarantee: dict[str, Any] = field(default_factory=dict)
    tune: str = ""
    moved_sha256: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.status == "failed"]


class Failed(Exception):
    """Ends a check; the text is its evidence."""


class NotApplicable(Exception):
    """Ends a check; the text is its evidence."""


@dataclass
class Examination:
    """A run folder under examination, with what earlier checks have made of it.

    Attributes:
        folder: the run folder.
        model: where the base model is, if not where the ledger says.
        expect: the expected hash of the ledger's last line.
        scratch: an empty folder for the replay.
        found: what the certificate will say.
        session: after the replay's last step.
        saved: the run folder's model/ or adapter/.
        replayed: its counterpart in `scratch`.
    """

    folder: Path
    model: str | None
    expect: str | None
    scratch: Path
    found: Verification = field(default_factory=Verification)
    session: RunSession | None = None
    saved: Path | None = None
    replayed: Path | None = None

    @property
    def ledger(self) -> Path:
        return self.folder / runs.LEDGER


def check_ledger(run: Examination) -> str:
    """Every line's hash follows from the lines before it."""
    try:
        record = ledgers.read(run.ledger)
    except LedgerError as error:
        raise Failed(str(error)) from None
    header = record.header
    missing = [name for name, kind in _QUOTED.items() if not isinstance(header.get(name), kind)]
    if missing:
        raise Failed(f"{run.ledger}, line 1: the header lacks {', '.join(missing)}")
    run.found.record = record
    return (
        f"header, {record.charges} charges and {len(record.releases)} releases: the hash of every "
        "line follows from the lines before it"
    )


def check_ledger_head(run: Examination) -> str:
    """The last line is the expected one, so that none was cut off."""
    record = _record(run)
    if run.expect is None:
        raise NotApplicable("no head was given to compare with; --expect takes one kept elsewhere")
    if record.head != run.expect:
        raise Failed(f"the last line's hash is {record.head}, expected was {run.expect}")
    return f"the last line's hash is the expected one, {record.head}"


def check_private(run: Examination) -> str:
    """The header's plan is one with clip and noise, and is what its configuration asked for."""
    record = _record(run)
    try:
        guarantee = describe_guarantee(record)
        config = from_values(record.header["config"], source="its configuration")
    except (LedgerError, ValueError) as error:
        raise Failed(f"{run.ledger}, {error}") from None
    except _UNUSABLE as error:
        raise Failed(_unusable(run, error)) from None
    if record.header["private"] is not True:
        raise Failed(f"{guarantee['exclusions'][0]} There is nothing to certify.")
    meant = {
        "unit": config.protected,
        "adjacency": config.privacy.adjacency,
        "mechanism": config.privacy.mechanism,
    }
    if contradicted := [name for name, value in meant.items() if guarantee[name] != value]:
        raise Failed(f"the header's plan and configuration differ in {', '.join(contradicted)}")
    run.found.guarantee = guarantee
    return (
        f"the header claims {guarantee['mechanism']} noise of {guarantee['noise_multiplier']:.4g} "
        "× clip on every release"
    )


def check_complete(run: Examination) -> str:
    """All planned steps are charged; ε is that of the plan, however far a run has come."""
    record = _record(run)
    planned = record.header["steps"]
    if record.charges < planned or record.torn:
        torn = ", and its last line is torn" if record.torn else ""
        raise Failed(
            f"the run is not complete: {record.charges} of {planned} planned steps are charged"
            f"{torn}; repeat its `hushtune train` command"
        )
    lost = record.charges - len(record.releases)
    return f"{record.charges} of {planned} planned steps are charged" + (
        f"; {lost} lost their release, which replay skips" if lost else ""
    )


def check_guarantee(run: Examination) -> str:
    """privacy.json says what follows from the ledger's header."""
    filed = _read_json(run.folder / "privacy.json")
    if different := differing_terms(filed, run.found.guarantee):
        raise Failed(f"privacy.json says otherwise than the ledger: {_in_words(different)}")
    return (
        f"ε = {run.found.guarantee['epsilon']!r}, recomputed from the ledger's header alone, and "
        "every other term are those of privacy.json"
    )


def check_base_model(run: Examination) -> str:
    """The ledger can be replayed on the base model; leaves the tuned model in `scratch`."""
    header = _record(run).header
    try:
        run.session = runs.replay(run.ledger, model=run.model, out=run.scratch)
    except (LedgerError, ValueError, SafetensorError) as error:
        raise Failed(str(error)) from None
    except _UNUSABLE as error:
        raise Failed(_unusable(run, error)) from None
    run.found.tune = run.session.tune
    run.found.moved_sha256 = hash_tensors(run.session.parameters.items())
    (run.replayed,) = run.scratch.iterdir()
    return (
        f"the SHA-256 of its weights, {header['base_sha256'][:16]}…, and of the parameters that "
        f"move before the first step, {header['start_sha256'][:16]}…, are those of the ledger"
    )


def check_weights(run: Examination) -> str:
    """The saved tensors are the replayed ones, bit for bit."""
    assert run.replayed is not None
    name = run.replayed.name
    other = {"model": "adapter", "adapter": "model"}[name]
    if not (run.folder / name).is_dir():
        raise Failed(f"the run folder has no {name}/")
    if (run.folder / other).exists():
        raise Failed(f"the run folder has {other}/, which is not made by this run")
    run.saved = run.folder / name
    if difference := folders.difference_of_weights(run.saved, run.replayed):
        raise Failed(difference)
    tensors, files = folders.count_tensors(run.saved)
    return f"{tensors} tensors of {name}/ are the replayed ones, bit for bit (files: {files})"


def check_other_files(run: Examination) -> str:
    """Nothing else lies beside the weights than what the replay wrote."""
    assert run.replayed is not None
    assert run.session is not None
    names = {_record(run).header["config"]["model"]["name"], run.session.config.model.name}
    saved = run.folder / run.replayed.name
    if difference := folders.difference_of_other_files(saved, run.replayed, base_names=names):
        raise Failed(difference + _other_versions(_record(run).header["versions"]))
    card = (saved / folders.MODEL_CARD).exists()
    aside = f" ({folders.MODEL_CARD}, for people, is not compared)" if card else ""
    return f"all other files of {saved.name}/ are those that the replay wrote{aside}"


def check_summary(run: Examination) -> str:
    """summary.json says what was found."""
    path = run.folder / "summary.json"
    if not path.exists():
        raise NotApplicable("the run folder has no summary.json")
    found = run.found
    facts = {name: found.guarantee[name] for name in ("epsilon", "delta")}
    facts["moved_sha256"] = found.moved_sha256
    said = _read_json(path)
    filed = {name: said.get(name) for name in facts}
    if different := differing_terms(filed, facts):
        raise Failed(f"summary.json says otherwise than was found: {_in_words(different)}")
    return (
        f"ε, δ and SHA-256 {found.moved_sha256[:16]}… of the moved parameters are those found here"
    )


def _other_versions(versions: dict[str, str]) -> str:
    """The libraries that write a model's files, where they are not those of the run."""
    here = {name: importlib.metadata.version(name) for name in ("transformers", "peft")}
    changed = [
        f"{name} {versions.get(name)}, this is {version}"
        for name, version in here.items()
        if versions.get(name) != version
    ]
    return f"; the run was made with {' and '.join(changed)}" if changed else ""


def _record(run: Examination) -> Record:
    assert run.found.record is not None
    return run.found.record


def _unusable(run: Examination, error: Exception) -> str:
    return f"{run.ledger}, line 1: the header cannot be used ({type(error).__name__}: {error})"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Failed(f"the run folder has no {path.name}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Failed(f"{path.name} is not what a run writes")
    return value


def _in_words(different: dict[str, tuple[Any, Any]]) -> str:
    """The first difference with both its values, and how many more there are."""
    (name, (said, found)), *more = different.items()
    return f"{name} is {said!r}, not {found!r}" + (
        f" (and {len(more)} more: {', '.join(term for term, _ in more)})" if more else ""
    )
