"""Fine-tune language models on private text with differential privacy, by forward passes only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hushtune import privacy

if TYPE_CHECKING:
    from hushtune.models.restore import TunedModel

__all__ = ["load", "privacy"]
__version__ = "0.1.0"


def load(run: str | Path) -> TunedModel:
    """The tuned model of a run folder, ready to be asked."""
    from hushtune.comparison.folder import header_of, holds_comparison
    from hushtune.models.restore import load_tuned
    from hushtune.privacy import ledger

    run = Path(run)
    if holds_comparison(run):
        return load_tuned(run, header_of(run))
    return load_tuned(run, ledger.read(run / "ledger.jsonl").header)
