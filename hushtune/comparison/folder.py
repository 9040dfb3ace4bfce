"""What a run folder of DP-SGD can be asked: its model, and nothing that needs a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hushtune import config as configuration
from hushtune.config import ConfigError
from hushtune.privacy import ledger as ledgers
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
        ConfigError, LedgerError, OSError: if there is none.
    """
    return header_of(run) if holds_comparison(run) else ledgers.read(run / "ledger.jsonl").header


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
