"""See `hushtune.core`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from hushtune import methods
from hushtune.config import (
    Config,
    DataConfig,
    MethodConfig,
    PrivacyConfig,
    check_training,
    check_units,
    differences,
    from_values,
)
from hushtune.core.examples import Fitted, LossesOf, Rows
from hushtune.guarantee import describe_guarantee
from hushtune.methods import Settings
from hushtune.models.isolation import refuse_coupling
from hushtune.privacy import PrivacyPlan
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger, LedgerError
from hushtune.privacy.steps import PrivateSteps
from hushtune.probe import make_directions
from hushtune.settling import make_header, make_update, require_start, settle
from hushtune.trainer import AfterStep, take_steps
from hushtune.zo.losses import MovedLosses
from hushtune.zo.prefix import FrozenPrefix
from hushtune.zo.probe import ProbeError, choose_scale, is_isolated
from hushtune.zo.substitution import parameters_reached

#: λ to try.
_SCALES = (1e-3, 3e-3, 1e-2)

#: Directions that slopes of public examples are measured along.
_PROBED = 16

_VERSIONED = ("hushtune", "torch", "opendp", "numpy", "scipy")


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
        after_step: told of every step, with the number of steps so far.

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
    rows = Rows.of(data, units)
    check_training(config)
    check_units(config, rows.units)
    module.eval()
    refuse_coupling(module)
    fitted = Fitted(module, losses, data, public, rows.order, micro_batch)
    moving = _moving(module, parameters, fitted)
    path = Path(ledger)
    header = _known_header(path)
    if header is None:
        header = _new_header(config, fitted, moving, rows)
    _require_same(header, config, fitted, moving, rows, path)
    settings = Settings(**header["settings"])
    directions = make_directions(seed, moving, settings.distribution)
    moved = MovedLosses(fitted, moving, header["moving"], directions, FrozenPrefix([]))
    if not is_isolated(moved, fitted.of_public, micro_batch, settings.perturbation_scale):
        raise ProbeError(
            f"losses: those of {micro_batch} examples depend on each other bit by bit, in this "
            "module or on this machine; expected losses of each row alone (micro_batch=1 keeps "
            "examples apart where only matrix products are to blame)."
        )
    with Ledger(path, header) as opened:
        steps = PrivateSteps(opened, units=rows.units)
        update = make_update(moving, header["moving"], directions, steps.plan, settings)
        take_steps(steps, moved, update, settings, rows, after_step=after_step)
    return Tuned(path, describe_guarantee(ledgers.read(path)))


def replay(module: nn.Module, ledger: str | Path) -> None:
    """Change a module in its state before the first step into the tuned one, bit for bit.

    Raises:
        LedgerError: if the ledger does not verify, or began with other parameters.
    """
    record = ledgers.read(ledger)
    header = record.header
    named = dict(module.named_parameters())
    moving = {name: named[name] for name in header["moving"] if name in named}
    require_start(header, moving)
    settings, plan = Settings(**header["settings"]), PrivacyPlan.from_json(header["plan"])
    directions = make_directions(header["public_seed"], moving, settings.distribution)
    make_update(moving, header["moving"], directions, plan, settings).replay(record.releases)


def _known_header(ledger: Path) -> dict[str, Any] | None:
    """The header of a ledger that is gone on with."""
    if not ledger.exists() or b"\n" not in ledger.read_bytes():
        return None
    return ledgers.read(ledger).header


def _moving(
    module: nn.Module, names: Iterable[str] | None, fitted: Fitted
) -> dict[str, nn.Parameter]:
    """The parameters that move and that the losses read."""
    named = dict(module.named_parameters())
    if names is None:
        names = [name for name, each in named.items() if each.requires_grad]
    names = list(names)
    if missing := [name for name in names if name not in named]:
        raise ValueError(f"Expected {missing[0]!r} to be a parameter of the module.")
    chosen = {name: named[name] for name in names}
    inputs = fitted.public_batches()[0].inputs
    reached = parameters_reached(chosen, lambda: fitted.losses(inputs))
    if not reached:
        raise ProbeError("parameters: the losses do not depend on any that moves.")
    return {name: each for name, each in chosen.items() if name in reached}


def _new_header(
    config: Config, fitted: Fitted, moving: dict[str, nn.Parameter], rows: Rows
) -> dict[str, Any]:
    """What is fixed for the run: settings by public examples, noise by the accountant."""
    budget = methods.budget(config.method, config.privacy, head_only=False, population=rows.units)
    directions = make_directions(config.seed, moving, budget.distribution)
    given = config.method.perturbation_scale
    scale, slopes = choose_scale(
        MovedLosses(fitted, moving, dict.fromkeys(moving, 1.0), directions, FrozenPrefix([])),
        fitted.public_batches(),
        _SCALES if given == "auto" else (given,),
        directions=_PROBED,
    )
    plan, settings = settle(
        config,
        budget,
        population=rows.units,
        perturbation_scale=scale,
        slopes=slopes,
        dtypes=(parameter.dtype for parameter in fitted.module.parameters()),
        head_only=False,
    )
    header = make_header(config, plan, settings, moving, versioned=_VERSIONED)
    return header | {"micro_batch": fitted.micro_batch}


def _require_same(
    header: dict[str, Any],
    config: Config,
    fitted: Fitted,
    moving: dict[str, nn.Parameter],
    rows: Rows,
    ledger: Path,
) -> None:
    """Refuse to go on with a ledger under other terms than those that it began with.

    Raises:
        LedgerError: naming what differs.
    """
    if "micro_batch" not in header:
        raise LedgerError(f"{ledger} is the ledger of a language model's run.")
    changed = differences(from_values(header["config"], source="ledger header"), config)
    if header["micro_batch"] != fitted.micro_batch:
        changed.append("micro_batch")
    if header["moving"].keys() != moving.keys():
        changed.append("parameters")
    if changed:
        raise LedgerError(
            f"{ledger} belongs to a different run ({', '.join(changed)} differ): repeat the "
            "original call, or choose another ledger."
        )
    population = header["plan"]["population"]
    if population != rows.units:
        raise LedgerError(f"{ledger} was begun with {population} units, not {rows.units}.")
    require_start(header, moving)
