"""See `hushtune.core`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import secrets
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from hushtune import methods
from hushtune.config import MethodConfig, PrivacyConfig, default_delta
from hushtune.core.examples import Fitted, LossesOf, Rows
from hushtune.guarantee import describe_guarantee
from hushtune.methods import Settings
from hushtune.models.isolation import refuse_coupling
from hushtune.models.load import hash_tensors
from hushtune.privacy import PrivacyPlan
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger, LedgerError
from hushtune.privacy.steps import PrivateSteps
from hushtune.trainer import AfterStep, take_steps
from hushtune.zo.directions import Directions
from hushtune.zo.losses import MovedLosses
from hushtune.zo.prefix import FrozenPrefix
from hushtune.zo.probe import ProbeError, choose_scale, is_isolated
from hushtune.zo.substitution import parameters_reached
from hushtune.zo.update import Update

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
    module.eval()
    refuse_coupling(module)
    rows = Rows.of(data, units)
    fitted = Fitted(module, losses, data, public, rows.order, micro_batch)
    path = Path(ledger)
    header = _known_header(path)
    moving = _moving(module, parameters, fitted) if header is None else None
    if header is None:
        assert moving is not None
        privacy = PrivacyConfig(
            epsilon=epsilon, delta=delta, mechanism=mechanism, adjacency=adjacency
        )
        header = _new_header(fitted, moving, rows, method, privacy, combine, seed)
    named = dict(module.named_parameters())
    moving = {name: named[name] for name in header["moving"] if name in named}
    _require_start(header, moving)
    plan = PrivacyPlan.from_json(header["plan"])
    if plan.population != rows.units:
        raise LedgerError(f"{path} was begun with {plan.population} units, not {rows.units}.")
    settings = Settings(**header["settings"])
    moved = _moved_losses(fitted, moving, header)
    _require_isolation(moved, fitted, settings.perturbation_scale)
    with Ledger(path, header) as opened:
        steps = PrivateSteps(opened, units=rows.units)
        update = _update(moving, header, plan, settings)
        take_steps(steps, moved, update, settings, rows, after_step=after_step)
    return Tuned(path, describe_guarantee(ledgers.read(path)))


def replay(module: nn.Module, ledger: str | Path) -> None:
    """Change a module in its state before the first step into the tuned one, bit for bit.

    Raises:
        LedgerError: if the ledger does not verify, or began with other parameters.
    """
    record = ledgers.read(ledger)
    named = dict(module.named_parameters())
    moving = {name: named[name] for name in record.header["moving"] if name in named}
    _require_start(record.header, moving)
    plan = PrivacyPlan.from_json(record.header["plan"])
    update = _update(moving, record.header, plan, Settings(**record.header["settings"]))
    for charge, released in record.releases.items():
        update.apply(charge, released)


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
        chosen = {name: each for name, each in named.items() if each.requires_grad}
    else:
        chosen = {name: named[name] for name in names if name in named}
        if missing := [name for name in names if name not in named]:
            raise ValueError(f"Expected {missing[0]!r} to be a parameter of the module.")
    inputs = fitted.public_batches()[0].inputs
    reached = parameters_reached(chosen, lambda: fitted.losses(inputs))
    if not reached:
        raise ProbeError("parameters: the losses do not depend on any that moves.")
    for each in named.values():
        each.requires_grad_(False)
    return {name: each for name, each in chosen.items() if name in reached}


def _new_header(
    fitted: Fitted,
    moving: dict[str, nn.Parameter],
    rows: Rows,
    method: MethodConfig,
    privacy: PrivacyConfig,
    combine: Literal["mean", "sum"],
    seed: int,
) -> dict[str, Any]:
    """What is fixed for the run: settings by public examples, noise by the accountant."""
    budget = methods.budget(method, privacy, head_only=False, population=rows.units)
    drawn = {
        "seed": seed,
        "distribution": budget.distribution,
        "scales": dict.fromkeys(moving, 1.0),
    }
    losses = _moved_losses(fitted, moving, _drawing(drawn))
    given = method.perturbation_scale
    scale, slopes = choose_scale(
        losses,
        fitted.public_batches(),
        _SCALES if given == "auto" else (given,),
        directions=_PROBED,
    )
    delta = default_delta(privacy.mechanism, rows.units)
    plan = PrivacyPlan.for_epsilon(
        epsilon=privacy.epsilon or 0.0,
        delta=delta if privacy.delta == "auto" else privacy.delta,
        mechanism=privacy.mechanism,  # type: ignore[arg-type]
        adjacency=privacy.adjacency,
        unit="example" if rows.units == len(rows.order) else "unit",
        combine=combine,
        population=rows.units,
        expected_units=budget.batch,
        steps=budget.steps,
        directions=budget.directions,
        clip_norm=methods.clip_norm(method, privacy, budget, slopes.typical),
    )
    formats = (parameter.dtype for parameter in fitted.module.parameters())
    settings = Settings(
        distribution=budget.distribution,
        estimator=methods.estimator(method, budget, formats, head_only=False),
        perturbation_scale=scale,
        update=method.update,
        learning_rate=methods.learning_rate(
            method,
            budget,
            head_only=False,
            typical_slope=slopes.typical,
            noise=plan.noise_of_mean,
        ),
        schedule="linear" if method.schedule == "auto" else method.schedule,
        typical_slope=slopes.typical,
    )
    return {
        "format": 1,
        "run": secrets.token_hex(16),
        "private": True,
        "steps": plan.steps,
        "settings": dataclasses.asdict(settings),
        "plan": plan.to_json(),
        "micro_batch": fitted.micro_batch,
        "moving": drawn["scales"],
        "start_sha256": hash_tensors(moving.items()),
        "public_seed": seed,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
    }


def _drawing(drawn: dict[str, Any]) -> dict[str, Any]:
    """The part of a header that directions follow from."""
    return {
        "public_seed": drawn["seed"],
        "moving": drawn["scales"],
        "settings": {"distribution": drawn["distribution"]},
    }


def _directions(moving: Mapping[str, Tensor], header: Mapping[str, Any]) -> Directions:
    shapes = {name: tuple(each.shape) for name, each in moving.items()}
    return Directions(header["public_seed"], shapes, header["settings"]["distribution"])


def _moved_losses(
    fitted: Fitted, moving: dict[str, nn.Parameter], header: Mapping[str, Any]
) -> MovedLosses:
    directions = _directions(moving, header)
    return MovedLosses(fitted, moving, header["moving"], directions, FrozenPrefix([]))


def _update(
    moving: Mapping[str, Tensor], header: Mapping[str, Any], plan: PrivacyPlan, settings: Settings
) -> Update:
    return Update(
        moving,
        header["moving"],
        _directions(moving, header),
        unit=plan.grid / plan.expected_units,
        step_size=settings.step_size(plan.steps),
    )


def _require_start(header: Mapping[str, Any], moving: Mapping[str, Tensor]) -> None:
    if hash_tensors(moving.items()) != header["start_sha256"]:
        raise LedgerError("the module's parameters do not start as the ledger says.")


def _require_isolation(losses: MovedLosses, fitted: Fitted, scale: float) -> None:
    if not is_isolated(losses, fitted.of_public, fitted.micro_batch, scale):
        raise ProbeError(
            f"losses: those of {fitted.micro_batch} examples depend on each other bit by bit, in "
            "this module or on this machine; expected losses of each row alone (micro_batch=1 "
            "keeps examples apart where only matrix products are to blame)."
        )
