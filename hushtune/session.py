"""Everything about a run that is public: model, moving parameters, directions, settings, plan.

`begin` makes a session from a configuration; `resume` makes the same one from a ledger's header.
Neither looks at private text: `begin` takes the number of units and nothing else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from hushtune import methods
from hushtune.answers import for_objective
from hushtune.config import Config, ConfigError, check_units, from_values
from hushtune.loading import (
    VERSIONED,
    Moving,
    is_head,
    load_base,
    load_moving,
    pack_label_vectors,
)
from hushtune.memory import room
from hushtune.methods import Budget, Settings
from hushtune.models.load import LoadedModel
from hushtune.models.offload import stored
from hushtune.plain import PlainPlan
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.accounting.search import PrivateSearch
from hushtune.privacy.ledger import LedgerError
from hushtune.privacy.steps import Slopes, prepared
from hushtune.probe import (
    Probe,
    can_keep,
    coupled_shapes,
    make_directions,
    make_losses,
    run_probe,
)
from hushtune.settling import Plan, make_header, make_update, require_start, settle
from hushtune.sizing import bytes_a_token, costs, fitting_tokens
from hushtune.slopes import slopes_of
from hushtune.tasks.batches import Shape, bucket_shapes
from hushtune.tasks.data import LabelledText
from hushtune.tasks.objectives import Objective, objective_of
from hushtune.tasks.scored import ScoredTask
from hushtune.tasks.task import FeatureStore, TextTask
from hushtune.zo.directions import Directions
from hushtune.zo.head_losses import HeadLosses
from hushtune.zo.losses import MovedLosses
from hushtune.zo.prefix import FrozenPrefix, find_frozen_prefix
from hushtune.zo.update import Update

#: Methods that are not zeroth-order, and the command that each belongs to.
_ELSEWHERE = {"dp-sgd": "train", "dr-encoder": "federate"}

#: A λ at which a loss is seen to move, whatever the dtype.
_ANY_SCALE = 1e-2

#: Expected number of times that a row is sampled in a run, from which on its frozen layers'
#: outputs are kept.
_WORTH_KEEPING = 2.0


@dataclass
class Session:
    """A model in the state before the first step, and all that is fixed for the run.

    Attributes:
        config: as the person gave it.
        loaded: model, tokenizer and read-out.
        tune: what moves, resolved.
        parameters: the moving parameters by name.
        scales: a public factor per parameter for its directions.
        shapes: the run's micro-batch shapes.
        settings: the method's settings, resolved.
        plan: sampling, clip, noise and steps.
        header: the ledger's first line.
        probe: what was found on public text; None in a resumed session.
        features: where only a head moves, the frozen encoder's features of texts seen so far.
        isolation_tried: whether it was tried on this machine that examples do not touch each other.
    """

    config: Config
    loaded: LoadedModel
    tune: str
    parameters: dict[str, nn.Parameter]
    scales: dict[str, float]
    shapes: list[Shape]
    settings: Settings
    plan: Plan
    header: dict[str, Any]
    probe: Probe | None = None
    features: FeatureStore = field(default_factory=dict)
    isolation_tried: bool = False

    @property
    def directions(self) -> Directions:
        """The run's public directions."""
        return make_directions(self.config.seed, self.parameters, self.settings.distribution)

    def update(self) -> Update:
        """What applies releases to the parameters."""
        parameters = {name: stored(parameter) for name, parameter in self.parameters.items()}
        return make_update(parameters, self.scales, self.directions, self.plan, self.settings)

    def task(self, data: LabelledText) -> TextTask:
        """The model's task on `data`, with the likelihood as loss whatever the objective."""
        return TextTask(self.loaded.readout, data, self.shapes, self._features)

    def optimised_task(self, data: LabelledText) -> TextTask:
        """The model's task on `data`, with the losses that are optimised."""
        if self.objective is None:
            return self.task(data)
        return ScoredTask(self.loaded.readout, data, self.shapes, self.objective, self._features)

    def losses(self, task: TextTask, *, ahead: bool = True) -> HeadLosses | MovedLosses:
        """What evaluates the task's losses at moved parameters.

        Args:
            ahead: whether what frozen layers return may be computed now, for all rows.
        """
        losses = self._moved(task)
        if not ahead:
            return losses
        ever_sampled = 1 - (1 - self.plan.sampling_probability) ** self.plan.steps
        if isinstance(losses, HeadLosses) and ever_sampled > 0.5:
            # In one go micro-batches are full; step by step most of their rows would be dummies.
            losses.encode(np.arange(task.rows))
        if isinstance(losses, MovedLosses) and self.keeps_outputs():
            losses.keep(np.arange(task.rows), room())
        return losses

    def read(self, data: LabelledText) -> TextTask:
        """Read `data` as steps will, without a forward pass."""
        return prepared(lambda: self.optimised_task(data))

    def slopes(self, data: LabelledText, update: Update, *, ahead: bool = True) -> Slopes:
        """What a step asks for of `data`, where the update has moved the parameters to.

        Args:
            ahead: as for `losses`.
        """
        del update  # moves the parameters in place
        losses = prepared(lambda: self.losses(self.optimised_task(data), ahead=ahead))
        return slopes_of(losses, self.settings, data, directions=self.plan.directions)

    def keeps_outputs(self) -> bool:
        """Whether what the frozen layers return is computed once per row and not once per step.

        All rows are computed before the first step, so that what is kept says nothing about who
        was sampled. That pays where a row is sampled about twice or more often.
        """
        times_sampled = self.plan.sampling_probability * self.plan.steps
        if times_sampled < _WORTH_KEEPING:
            return False
        losses = self._moved(self.task(LabelledText.unlabelled([])))
        return isinstance(losses, MovedLosses) and can_keep(
            losses, self.loaded.readout, self.shapes, self.settings.perturbation_scale
        )

    def require_isolation(self) -> None:
        """Try on this machine what the probe tried where the run began.

        Raises:
            LedgerError: if examples would touch each other here.
        """
        coupled = coupled_shapes(
            self._moved(self.task(LabelledText.unlabelled([]))),
            self.loaded.readout,
            self.shapes,
            self.settings.perturbation_scale,
            self.plan.directions,
        )
        if coupled:
            raise LedgerError(
                f"on this machine {coupled[0].rows} texts of {coupled[0].length} tokens touch each "
                "other's losses; go on where the run began, or begin a new run here."
            )
        self.isolation_tried = True

    def _moved(self, task: TextTask) -> HeadLosses | MovedLosses:
        return make_losses(
            task, self.parameters, self.scales, self.directions, self._prefix, self.shapes
        )

    @property
    def _features(self) -> FeatureStore | None:
        return self.features if is_head(self.parameters) else None

    @cached_property
    def objective(self) -> Objective | None:
        """What is optimised, where it is not the likelihood."""
        return objective_of(self.config.task)

    @cached_property
    def _prefix(self) -> FrozenPrefix:
        if self.probe is not None:
            return self.probe.prefix
        if self.objective is not None and self.objective.writes:
            return FrozenPrefix([])  # as the probe has it
        readout = self.loaded.readout
        inputs = readout.collate([readout.dummy], self.shapes[0].length)
        return find_frozen_prefix(
            readout.model, self.parameters, lambda: readout.scores(dict(inputs))
        )


def begin(config: Config, *, units: int, try_isolation: bool = True) -> Session:
    """A new session: load the model, probe it on public text, fix settings, noise and steps.

    Args:
        units: the number of units in the training data; used as public unless
            `data.population` is given.
        try_isolation: whether to try, on public text, that examples do not touch each other. Only
            a session that nothing is trained in can do without.

    Raises:
        ConfigError: a setting that cannot be used with this model or this number of units.
        CouplingError, ProbeError: a model that cannot be trained privately.
    """
    population = config.public_units(units)
    prepared = prepare(config, population=population, try_isolation=try_isolation)
    return prepared.session(config)


@dataclass(frozen=True)
class Prepared:
    """A model and what was found of it on public text: all that a session does not settle.

    Attributes:
        loaded, tune, probe, isolation_tried: as in a session.
        head_only: whether only a head moves.
        population: number of units, as it is public.
    """

    loaded: LoadedModel
    tune: str
    head_only: bool
    population: int
    probe: Probe
    isolation_tried: bool

    def session(self, config: Config, *, search: PrivateSearch | None = None) -> Session:
        """A session with clip, noise and settings of this configuration.

        Args:
            config: the one that this was prepared for, or one whose method differs in what a probe
                does not see (`seen_by_probe`).
            search: the search that the run is part of, if any.

        Raises:
            ValueError: if no noise gives the ε that is asked for.
        """
        probe = self.probe
        plan, settings = settle(
            config,
            budget_of(config, head_only=self.head_only, population=self.population),
            population=self.population,
            perturbation_scale=probe.perturbation_scale,
            slopes=probe.slopes,
            dtypes=(parameter.dtype for parameter in self.loaded.model.parameters()),
            head_only=self.head_only,
            search=search,
        )
        header = make_header(config, plan, settings, probe.parameters, versioned=VERSIONED) | {
            "shapes": [dataclasses.asdict(shape) for shape in probe.shapes],
            "label_vectors": pack_label_vectors(self.loaded),
            "base_sha256": self.loaded.base_hash,
        }
        return Session(
            config,
            self.loaded,
            self.tune,
            probe.parameters,
            header["moving"],
            probe.shapes,
            settings,
            plan,
            header,
            probe,
            isolation_tried=self.isolation_tried,
        )


def prepare(
    config: Config,
    *,
    population: int,
    try_isolation: bool = True,
    moving: Moving | None = None,
) -> Prepared:
    """Load the model and probe it on public text; raises what `begin` raises.

    Args:
        population: number of units, as it is public.
        try_isolation: as for `begin`.
        moving: what `load_moving` gives of this configuration, if it is there already.
    """
    if (alone := _ELSEWHERE.get(config.method.name)) is not None:
        raise ConfigError(f"method.name: {config.method.name} is for `hushtune {alone}` alone.")
    check_units(config, population)
    objective = objective_of(config.task)
    scale = _given(config.method.perturbation_scale)
    loaded, tune, parameters = moving or load_moving(config)
    head_only = is_head(parameters)
    budget = budget_of(config, head_only=head_only, population=population)
    cost = costs(next(loaded.model.parameters()).device, all_move=tune == "full")
    # Streamed weights meet the rows of all moves at once.
    slices = 1 if config.model.offload == "none" else 2 * budget.directions
    tokens = micro_batch_tokens(config, loaded, most=cost.most_tokens, slices=slices)
    probe = run_probe(
        loaded,
        parameters,
        dict.fromkeys(parameters, 1.0),
        bucket_shapes(
            max_length=config.data.max_length,
            tokens=tokens,
            sequences=loaded.readout.sequences,
            expected_rows=_rows_together(config, budget),
            overhead=cost.overhead,
            added=config.model.columns_added,
        ),
        distribution=budget.distribution,
        seed=config.seed,
        directions_a_step=budget.directions,
        tokens=tokens,
        # Answers choose λ below; until then any will do that moves losses in every dtype.
        perturbation_scale=scale if objective is None else scale or _ANY_SCALE,
        isolation=try_isolation and config.privacy.mechanism != "none",
    )
    if objective is not None:
        probe = for_objective(
            probe,
            objective,
            loaded,
            dict.fromkeys(parameters, 1.0),
            make_directions(config.seed, probe.parameters, budget.distribution),
            perturbation_scale=scale,
        )
    return Prepared(loaded, tune, head_only, population, probe, try_isolation)


def budget_of(config: Config, *, head_only: bool, population: int) -> Budget:
    """Directions, steps and batch of a configuration."""
    budget = methods.budget(
        config.method, config.privacy, head_only=head_only, population=population
    )
    if config.federated.by_client:
        # The server knows whom it asks: that it asks some clients only would amplify nothing.
        return dataclasses.replace(budget, batch=float(population))
    return budget


def _rows_together(config: Config, budget: Budget) -> float:
    """How many rows one machine is expected to meet in a step."""
    federated = config.federated
    if federated.by_client:
        return federated.examples
    return budget.batch / max(1, federated.clients)


def seen_by_probe(config: Config, budget: Budget) -> tuple[Any, ...]:
    """The settings of the method that what a probe finds depends on."""
    method = config.method
    seen = (budget.distribution, budget.directions, budget.batch)
    return (*seen, method.perturbation_scale, method.micro_batch_tokens)


def resume(header: dict[str, Any], *, model: str | None = None) -> Session:
    """The session that a ledger's header describes, in the state before its first step.

    Args:
        model: where the base model is, if not where it was.

    Raises:
        LedgerError: if the base model's weights are not the ones that the ledger began with, or it
            is the ledger of a module that only the code which made it knows.
    """
    if "base_sha256" not in header:
        raise LedgerError(
            "the ledger is that of a module in memory; hushtune.core.replay makes it again."
        )
    config = from_values(header["config"], source="ledger header")
    config, loaded, tune, parameters = load_base(config, header, model=model)
    moving = {name: parameters[name] for name in header["moving"]}
    require_start(header, moving)
    read_plan = PrivacyPlan.from_json if header["private"] else PlainPlan.from_json
    return Session(
        config,
        loaded,
        tune,
        moving,
        header["moving"],
        [Shape(**shape) for shape in header["shapes"]],
        Settings(**header["settings"]),
        read_plan(header["plan"]),
        header,
    )


def micro_batch_tokens(config: Config, loaded: LoadedModel, *, most: int, slices: int) -> int:
    """Tokens in a micro-batch at most: as given, or as many as fit in free memory, up to `most`.

    A forward pass has `slices` times as many. Memory is looked at once, before the first step; the
    shapes that follow are in the ledger's header, and a run that goes on takes them from there.
    """
    if config.method.micro_batch_tokens != "auto":
        return config.method.micro_batch_tokens
    parameter = next(loaded.model.parameters())
    network: Any = getattr(loaded.model, "encoder", loaded.model)
    a_token = bytes_a_token(
        network.config,
        parameter.element_size(),
        config.data.max_length + config.model.columns_added,
        keeps_keys=config.model.tune == "prefix",
    )
    return fitting_tokens(a_token * slices, most, room(parameter.device))


def _given(value: Any) -> Any:
    return None if value == "auto" else value
