"""What a run folder can be asked that has no ledger, or one that does not say what its task is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hushtune import config as configuration
from hushtune.config import ConfigError
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import LedgerError
from hushtune.tasks.batches import bucket_shapes


def holds_comparison(run: Path) -> bool:
    """Whether a folder holds a run of dp-sgd, finished or not."""
    settings = run / "config.yaml"
    if (run / "ledger.jsonl").exists() or not settings.exists():
        return False
    try:
        return configuration.load(settings).method.name == "dp-sgd"
    except ConfigError:
        return False


def read_header(run: Path) -> dict[str, Any]:
    """The header of the ledger of a run folder, or what stands for it in a comparison.

    Raises:
        ConfigError, LedgerError, OSError: if there is none, or it does not say what its task is.
    """
    if holds_comparison(run):
        return header_of(run)
    header = ledgers.read(run / "ledger.jsonl").header
    require_task(run, header)
    return header


def require_task(run: Path, header: Mapping[str, Any]) -> None:
    """Refuse a run of a module, whose ledger does not say what its rows or its losses are.

    Raises:
        LedgerError: saying what can be done with it.
    """
    if "frozen_sha256" in header:
        raise LedgerError(
            f"{run}: this run tuned a module with a loss of its own (ZerothOrderTrainer, or "
            "hushtune.core), so that what its rows are is not known here; load its model where it "
            "was trained, or with transformers."
        )


def header_of(run: Path) -> dict[str, Any]:
    """What the header of a ledger would say about how the model of a run is read.

    Raises:
        ConfigError: if the run is not complete.
    """
    if not (run / "privacy.json").exists():
        raise ConfigError(
            f"{run}: this run of dp-sgd is not complete, and no ledger says how to go on."
        )
    config = configuration.load(run / "config.yaml")
    # For evaluation any shapes will do.
    shapes = bucket_shapes(
        max_length=config.data.max_length, tokens=1024, sequences=1, expected_rows=1024
    )
    return {
        "config": config.to_json(),
        "shapes": [{"rows": shape.rows, "length": shape.length} for shape in shapes],
    }
