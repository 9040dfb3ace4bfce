"""From a module with examples to a run that is ready for its first step, or its next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hushtune import methods
from hushtune.config import Config, check_training, check_units, differences, from_values
from hushtune.core.examples import Examples, Rows
from hushtune.guarantee import describe_guarantee
from hushtune.methods import Settings
from hushtune.models.isolation import refuse_coupling
from hushtune.models.load import hash_tensors
from hushtune.privacy import PrivacyPlan
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger, LedgerError, Record
from hushtune.privacy.steps import PrivateSteps
from hushtune.probe import candidate_scales, make_directions
from hushtune.settling import make_header, make_update, registered_run, require_start, settle
from hushtune.slopes import slopes_of
from hushtune.tasks.batches import Shape
from hushtune.trainer import AfterStep, take_steps
from hushtune.zo.losses import MovedLosses
from hushtune.zo.prefix import FrozenPrefix, find_frozen_prefix
from hushtune.zo.probe import ProbeError, choose_scale, is_isolated
from hushtune.zo.substitution import parameters_reached
from hushtune.zo.update import Update

#: Directions that slopes of public examples are measured along.
_PROBED = 16

_VERSIONED = ("hushtune", "torch", "opendp", "numpy", "scipy")


@dataclass(frozen=True)
class Prepared:
    """A run whose settings are fixed and whose module was tried; nothing is charged for that.

    Attributes:
        rows: which rows a unit has.
        losses: evaluates losses of the rows at moved parameters.
        moving: the parameters that move, by name.
        ledger: the file, which need not be there yet.
        header: its first line.
        charges: steps that were charged before.
    """

    rows: Rows
    losses: MovedLosses
    moving: dict[str, nn.Parameter]
    ledger: Path
    header: dict[str, Any]
    charges: int

    @property
    def plan(self) -> PrivacyPlan:
        """Sampling, clip, noise and steps."""
        return PrivacyPlan.from_json(self.header["plan"])

    def take_steps(self, after_step: AfterStep) -> dict[str, Any]:
        """Apply what the ledger holds, take the steps that are left, and say what is guaranteed.

        Args:
            after_step: told of every step; True ends the run there.
        """
        settings = Settings(**self.header["settings"])
        with Ledger(self.ledger, self.header) as opened:
            registered = registered_run(opened, where=str(self.ledger.parent))
            steps = PrivateSteps(opened, units=self.rows.units, registered=registered)
            update = update_of(self.header, self.moving)
            directions = self.header["plan"]["directions"]
            slopes = slopes_of(self.losses, settings, self.rows, directions=directions)
            take_steps(steps, slopes, update, after_step=after_step)
        return describe_guarantee(ledgers.read(self.ledger))


def prepare(
    config: Config,
    examples: Examples,
    rows: Rows,
    ledger: Path,
    *,
    parameters: Iterable[str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Prepared:
    """Fix all settings of a new run, or find those that the ledger began with, and try the module.

    Args:
        config: what was asked for.
        examples: the module, which is put into evaluation mode, with its data.
        rows: which rows a unit has.
        ledger: the file to keep releases in; an existing one is gone on with.
        parameters: names of those that move; none: all that require gradients.
        facts: further public facts for the ledger's header.

    Raises:
        ValueError: what cannot be used.
        CouplingError, ProbeError: a module that cannot be tuned privately.
        LedgerError: the ledger is of another run.
    """
    check_training(config)
    population = config.public_units(rows.units)
    check_units(config, population)
    module = examples.module
    module.eval()
    refuse_coupling(module)
    inputs = examples.public_batches()[0].inputs

    def forward() -> Tensor:
        return examples.losses(dict(inputs))

    moving = _moving(module, parameters, forward)
    prefix = find_frozen_prefix(module, moving, forward)
    record = read_begun(ledger)
    if record is None:
        header = _new_header(config, examples, moving, prefix, population) | dict(facts or {})
        charges = 0
    else:
        header, charges = record.header, record.charges
        described = examples.described() | dict(facts or {})
        _require_same(header, config, described, examples.module, moving, population, ledger)
    losses = _losses(examples, moving, prefix, config.seed, header["settings"]["distribution"])
    scale = header["settings"]["perturbation_scale"]
    goes_on = record is not None and charges < header["steps"]
    if goes_on and (coupled := _coupled(losses, examples, scale)):
        raise LedgerError(
            f"on this machine {coupled[0].rows} examples touch each other's losses; go on where "
            "the run began, or begin a new run here."
        )
    return Prepared(rows, losses, moving, ledger, header, charges)


def read_begun(ledger: Path) -> Record | None:
    """What a ledger that is gone on with says; None if the run has to begin.

    Raises:
        LedgerError: if it does not verify, or is that of a run of another kind.
    """
    record = ledgers.begun(ledger)
    return None if record is None else _of_module(record, ledger)


def read_record(ledger: Path) -> Record:
    """What the ledger of a module's run says.

    Raises:
        LedgerError: if it does not verify, or is that of a run of another kind.
    """
    return _of_module(ledgers.read(ledger), ledger)


def _of_module(record: Record, ledger: Path) -> Record:
    if "frozen_sha256" not in record.header:
        raise LedgerError(f"{ledger} is the ledger of a language model's run.")
    return record


def require_same_module(header: dict[str, Any], module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module that move, by a header.

    Raises:
        LedgerError: if any parameter is not as the ledger began.
    """
    named = dict(module.named_parameters())
    moving = {name: named[name] for name in header["moving"] if name in named}
    require_start(header, moving)
    if _hash_of_frozen(module, moving) != header["frozen_sha256"]:
        raise LedgerError("the parameters that do not move are not those that the ledger is of.")
    return moving


def update_of(header: dict[str, Any], moving: dict[str, nn.Parameter]) -> Update:
    """What applies releases of a run with this header."""
    settings, plan = Settings(**header["settings"]), PrivacyPlan.from_json(header["plan"])
    directions = make_directions(header["public_seed"], moving, settings.distribution)
    return make_update(moving, header["moving"], directions, plan, settings)


def _moving(
    module: nn.Module, names: Iterable[str] | None, forward: Callable[[], Tensor]
) -> dict[str, nn.Parameter]:
    """The parameters that move and that the losses read."""
    named = dict(module.named_parameters())
    if names is None:
        names = [name for name, each in named.items() if each.requires_grad]
    names = list(names)
    if missing := [name for name in names if name not in named]:
        raise ValueError(f"Expected {missing[0]!r} to be a parameter of the module.")
    chosen = {name: named[name] for name in names}
    reached = parameters_reached(chosen, forward)
    if not reached:
        raise ProbeError("parameters: the losses do not depend on any that moves.")
    return {name: each for name, each in chosen.items() if name in reached}


def _losses(
    examples: Examples,
    moving: dict[str, nn.Parameter],
    prefix: FrozenPrefix,
    seed: int,
    distribution: str,
) -> MovedLosses:
    directions = make_directions(seed, moving, distribution)
    return MovedLosses(examples, moving, dict.fromkeys(moving, 1.0), directions, prefix)


def _new_header(
    config: Config,
    examples: Examples,
    moving: dict[str, nn.Parameter],
    prefix: FrozenPrefix,
    population: int,
) -> dict[str, Any]:
    """What is fixed for the run: settings by public examples, noise by the accountant."""
    budget = methods.budget(config.method, config.privacy, head_only=False, population=population)
    losses = _losses(examples, moving, prefix, config.seed, budget.distribution)
    given = config.method.perturbation_scale
    scale, slopes = choose_scale(
        losses,
        examples.public_batches(),
        candidate_scales(examples.module, moving) if given == "auto" else (given,),
        directions=_PROBED,
    )
    if coupled := _coupled(losses, examples, scale):
        examples.separate(coupled)
        if _coupled(losses, examples, scale):
            raise ProbeError(
                "losses: that of an example on its own changes from one forward pass to the next; "
                "expected a module and losses without memory and without chance."
            )
    plan, settings = settle(
        config,
        budget,
        population=population,
        perturbation_scale=scale,
        slopes=slopes,
        dtypes=(parameter.dtype for parameter in examples.module.parameters()),
        head_only=False,
    )
    header = make_header(config, plan, settings, moving, versioned=_VERSIONED)
    return header | {
        "frozen_sha256": _hash_of_frozen(examples.module, moving),
        **examples.described(),
    }


def _coupled(losses: MovedLosses, examples: Examples, scale: float) -> list[Shape]:
    """Shapes of micro-batches in which a row's losses depend on the others."""
    return [
        shape
        for shape in examples.shapes
        if not is_isolated(losses, partial(examples.of_public, shape), shape.rows, scale)
    ]


def _require_same(
    header: dict[str, Any],
    config: Config,
    described: Mapping[str, Any],
    module: nn.Module,
    moving: dict[str, nn.Parameter],
    population: int,
    ledger: Path,
) -> None:
    """Refuse to go on with a ledger under other terms than those that it began with.

    Raises:
        LedgerError: naming what differs.
    """
    changed = differences(from_values(header["config"], source="ledger header"), config)
    changed += [key for key in described if header.get(key) != described[key]]
    if header["moving"].keys() != moving.keys():
        changed.append("parameters")
    if changed:
        raise LedgerError(
            f"{ledger} belongs to a different run ({', '.join(changed)} differ): repeat the "
            "original call, or choose another ledger."
        )
    if header["plan"]["population"] != population:
        raise LedgerError(
            f"{ledger} was begun with {header['plan']['population']} units, not {population}."
        )
    require_same_module(header, module)


def _hash_of_frozen(module: nn.Module, moving: Mapping[str, nn.Parameter]) -> str:
    """Of the parameters that do not move, those aside that a library keeps in a form of its own."""
    return hash_tensors(
        (name, parameter)
        for name, parameter in module.named_parameters()
        if name not in moving and not hasattr(parameter, "__tensor_flatten__")
    )
