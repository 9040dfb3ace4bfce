"""See `hushtune.core`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from hushtune.config import Config, DataConfig, MethodConfig, PrivacyConfig
from hushtune.core.examples import Fitted, LossesOf, Rows, rows_in
from hushtune.core.preparing import prepare, read_record, require_same_module, update_of
from hushtune.trainer import AfterStep


@dataclass(frozen=True)
class Tuned:
    """What came of `tune`.

    Attributes:
        ledger: the file that the releases are in.
        guarantee: ε with all its terms, as `hushtune privacy --json` prints it.
    """

    ledger: Path
    guarantee: dict[str, Any]

    @property
    def epsilon(self) -> float:
        """ε of all planned steps."""
        return self.guarantee["epsilon"]


def tune(
    module: nn.Module,
    losses: LossesOf,
    data: Mapping[str, Tensor],
    *,
    public: Mapping[str, Tensor],
    epsilon: float,
    ledger: str | Path,
    delta: float | Literal["auto"] = "auto",
    mechanism: Literal["gaussian", "laplace"] = "gaussian",
    adjacency: Literal["add-or-remove-one", "replace-one"] = "add-or-remove-one",
    units: Sequence[Hashable] | None = None,
    combine: Literal["mean", "sum"] = "mean",
    parameters: Iterable[str] | None = None,
    method: MethodConfig | None = None,
    micro_batch: int = 64,
    seed: int = 0,
    after_step: AfterStep = lambda _: None,
) -> Tuned:
    """Tune a module on private examples, or go on where the ledger ends.

    Args:
        module: is put into evaluation mode, and changed.
        losses: from the module and a micro-batch, tensors by `data`'s names, to (rows,) losses,
            each a function of its own row alone.
        data: tensors with one row per example.
        public: the same tensors for a few examples that say nothing of the private ones, such as
            made-up ones: λ, the clip and the isolation of examples are tried on them, and they fill
            micro-batches up. At least two that differ.
        epsilon: ε.
        ledger: the file to keep releases in; an existing one is gone on with.
        delta: δ; auto: 1e-5 or, if less, 0.1 / units, and 0 for laplace.
        mechanism: gaussian, or laplace for pure ε.
        adjacency: of data sets, by unit.
        units: the unit of privacy of each row; none: every row is one.
        combine: how the rows of a unit become one vector before the clip.
        parameters: names of those that move; none: all that require gradients.
        method: directions, steps, batch and so on; `dp-aggzo` with `auto` if left out.
        micro_batch: rows of a forward pass.
        seed: the public seed of the directions.
        after_step: told of every step, with the number of steps so far; True ends the run there.

    Raises:
        ValueError: what cannot be used, before the first step.
        CouplingError, ProbeError: a module that cannot be tuned privately.
        LedgerError: the ledger is of another run.
    """
    method = MethodConfig() if method is None else method
    if method.name in ("mezo", "dp-sgd"):
        raise ValueError(f"Expected {method.name=} to be dp-aggzo, dp-zo or dpzero.")
    config = Config(
        data=DataConfig(unit=None if units is None else "unit", combine=combine),
        method=method,
        privacy=PrivacyConfig(
            epsilon=epsilon, delta=delta, mechanism=mechanism, adjacency=adjacency
        ),
        seed=seed,
    )
    rows = Rows.of(rows_in(data), units)
    fitted = Fitted(module, losses, data, public, rows.order, micro_batch)
    prepared = prepare(config, fitted, rows, Path(ledger), parameters=parameters)
    return Tuned(prepared.ledger, prepared.take_steps(after_step))


def replay(module: nn.Module, ledger: str | Path) -> None:
    """Change a module in its state before the first step into the tuned one, bit for bit.

    Raises:
        LedgerError: if the ledger does not verify, or began with other parameters.
    """
    record = read_record(Path(ledger))
    moving = require_same_module(record.header, module)
    update_of(record.header, moving).replay(record.releases)
