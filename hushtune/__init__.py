"""Fine-tune language models on private text with differential privacy, by forward passes only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hushtune import privacy

if TYPE_CHECKING:
    from hushtune.finetuning import Result, finetune
    from hushtune.models.restore import TunedModel
    from hushtune.zeroth_order_trainer import ZerothOrderArguments, ZerothOrderTrainer

__all__ = [
    "Result",
    "TunedModel",
    "ZerothOrderArguments",
    "ZerothOrderTrainer",
    "finetune",
    "load",
    "privacy",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Accounting is useful without torch, which takes seconds to import.
    if name in ("Result", "finetune"):
        from hushtune import finetuning

        return getattr(finetuning, name)
    if name == "TunedModel":
        from hushtune.models.restore import TunedModel

        return TunedModel
    if name in ("ZerothOrderArguments", "ZerothOrderTrainer"):
        from hushtune import zeroth_order_trainer

        return getattr(zeroth_order_trainer, name)
    raise AttributeError(f"module 'hushtune' has no attribute {name!r}")


def load(run: str | Path) -> TunedModel:
    """The tuned model of a run folder, ready to be asked."""
    from hushtune.comparison.folder import read_header
    from hushtune.models.restore import load_tuned

    return load_tuned(run, read_header(Path(run)))
