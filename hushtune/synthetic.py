"""A file of synthetic rows, and beside it what they are and what is guaranteed of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hushtune.comparison.folder import holds_comparison, read_header
from hushtune.comparison.settings import LABEL
from hushtune.config import Config, from_values, require, same_data
from hushtune.files import write_json, write_whole
from hushtune.generation import Generated, Request
from hushtune.guarantee import describe_guarantee
from hushtune.models.restore import load_tuned
from hushtune.privacy import ledger as ledgers
from hushtune.report.card import base_name
from hushtune.tasks.files import numbered, read_rows
from hushtune.tasks.prompts import conditions as rows_of_conditions
from hushtune.tasks.prompts import require_writing

_POST_PROCESSING = (
    "The rows were written by the tuned model from public prompts and a public seed, without "
    "another look at the private data. They are post-processing of the model: all of them "
    "together, and any number more, have the model's guarantee and spend no further budget."
)

_NO_PRIVACY = "The model was tuned WITHOUT PRIVACY: the rows may repeat private text word by word."

_NOT_COVERED = (
    "What many units say alike may be learned and written again; the guarantee is for what one "
    "unit adds.",
    "What the base model knew before may be written, too.",
    "Prompts, given values and how many rows there are of each are taken to be public.",
    "Rows that were chosen, corrected or judged by looking at the private data are no longer "
    "post-processing.",
    "Whether the model is the one that its ledger makes is for `hushtune verify` to say.",
)


def write_synthetic(
    run: Path,
    out: Path,
    request: Request,
    *,
    prompts: str | None = None,
    conditions: Sequence[str] = (),
    after_batch: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Write synthetic rows to a new file, and what they are to `….about.json`; returns the latter.

    Args:
        run: a run folder.
        out: the rows' file, ending in .jsonl.
        request: how many, and how.
        prompts: a file of public rows to go on from, or a data set's name.
        conditions: instead of them, values of columns; see `hushtune.tasks.prompts.conditions`.
        after_batch: told of every so many rows that are done.

    Raises:
        ConfigError, DataError, LedgerError, OSError: what cannot be used, before anything is
            written.
    """
    header = read_header(run)
    config = from_values(header["config"])
    require_writing(config.task)
    require(out.suffix == ".jsonl", "out", str(out), "a file ending in .jsonl")
    require(not out.exists(), "out", str(out), "a new file; this one exists")
    rows = _public_rows(config, request, prompts, conditions)
    out.parent.mkdir(parents=True, exist_ok=True)
    generated = load_tuned(run, header).generated(rows, request, after_batch=after_batch)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in generated.rows)
    given = prompts if prompts is not None else list(conditions) or None
    about = {
        "file": out.name,
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        **describe_synthetic(run, header, generated, request, prompts=given),
    }
    # First, so that no rows ever lie about without it.
    write_json(out.with_suffix(".about.json"), about)
    write_whole(out, lines)
    return about


def _public_rows(
    config: Config, request: Request, prompts: str | None, conditions: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, Any]]] | None:
    """What the model is to go on from."""
    if conditions:
        require(prompts is None, "prompts", prompts, "left out where there are conditions")
        require(request.count is None, "count", request.count, "left out: conditions have theirs")
        return numbered(rows_of_conditions(conditions, config.task, config.data), "conditions")
    if prompts is None:
        return None
    private = same_data(prompts, config.data.train)
    require(not private, "prompts", prompts, "public, and not the run's private training data")
    return read_rows(prompts)


def describe_synthetic(
    run: Path,
    header: dict[str, Any],
    generated: Generated,
    request: Request,
    *,
    prompts: str | list[str] | None,
) -> dict[str, Any]:
    """All of it as plain values, for the file that goes with the rows.

    Args:
        run: the run folder.
        header: its ledger's, or what stands for it.
        generated: what was written.
        request: what was asked for.
        prompts: the file they were in, or the values that were given.
    """
    comparison = holds_comparison(run)
    if comparison:
        guarantee = json.loads((run / "privacy.json").read_text(encoding="utf-8"))
    else:
        guarantee = describe_guarantee(ledgers.read(run / "ledger.jsonl"))
    private = guarantee["epsilon"] is not None
    config = header["config"]
    about: dict[str, Any] = {
        "rows": len(generated.rows),
        "columns": list(generated.rows[0]) if generated.rows else [],
        "task": {name: config["task"][name] for name in ("kind", "template")},
        "model": {
            "base": base_name(config),
            "method": config["method"]["name"],
            "ledger_head": guarantee.get("ledger_head"),
        },
        "writing": {
            **dataclasses.asdict(request.sampling),
            "max_new_tokens": generated.max_new_tokens,
            "seed": request.seed,
            "prompts": prompts,
            "cut_off": generated.cut_off,
            "left_out": generated.left_out,
        },
        "post_processing": _POST_PROCESSING if private else _NO_PRIVACY,
        "not_covered": list(_NOT_COVERED) if private else [],
        "guarantee": guarantee,
    }
    return about | ({"comparison": LABEL} if comparison else {})
