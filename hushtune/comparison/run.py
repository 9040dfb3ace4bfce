"""A run folder of DP-SGD: configuration, what is claimed, metrics, model; no ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from hushtune import config as configuration
from hushtune import evaluation
from hushtune.comparison import dp_sgd
from hushtune.comparison.ghost import GhostGradients
from hushtune.comparison.gradients import GradientSums, HeadGradients
from hushtune.comparison.settings import LABEL, FirstOrderPlan, make_plan
from hushtune.config import Config, ConfigError, check_units
from hushtune.evaluation import Evaluations, GivenRows, Metrics, named, read_data
from hushtune.files import write_config, write_json
from hushtune.loading import load_moving
from hushtune.memory import peak_memory
from hushtune.models.load import LoadedModel, hash_tensors
from hushtune.models.reached import reached
from hushtune.models.save import refuse_base_folder, save_model
from hushtune.privacy import accounting
from hushtune.privacy.registry import enter_spending
from hushtune.probe import LABEL_VECTORS
from hushtune.report.words import guarantee_line
from hushtune.tasks.batches import Shape, bucket_shapes
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import example_length
from hushtune.tasks.task import FeatureStore, TextTask

_EXCLUSIONS = [
    "ε is that of the plan, had the noise been drawn exactly: floating-point noise and sums can "
    "give away more than ε says.",
    "Nothing recorded what this run did: ε cannot be recomputed, and the model not be replayed.",
    "Nothing tested that examples do not touch each other's gradients bit by bit.",
    "Whoever runs the training, and the machine it runs on, are trusted with the data.",
    "The evaluation data, if any, is public; accuracies on it are exact.",
    "Other runs on the same data, and settings tried before this run, add to ε; so do runs that "
    "were interrupted, each with the ε of its whole plan.",
    "Running time and memory, as somebody on the machine sees them.",
]


@dataclass
class Comparison:
    """A model in the state before the first step, and all that is fixed for the run.

    Attributes:
        config: as the person gave it.
        loaded: model, tokenizer and read-out.
        tune: what moves, resolved.
        parameters: the moving parameters by name.
        shapes: the run's micro-batch shapes.
        plan: sampling, clip, noise, steps, optimiser.
        features: where only a head moves, the frozen encoder's features of texts seen so far.
    """

    config: Config
    loaded: LoadedModel
    tune: str
    parameters: dict[str, nn.Parameter]
    shapes: list[Shape]
    plan: FirstOrderPlan
    features: FeatureStore | None

    def task(self, data: LabelledText) -> TextTask:
        """The model's task on `data`."""
        return TextTask(self.loaded.readout, data, self.shapes, self.features)

    def gradients(self, data: LabelledText, closing: ExitStack) -> GradientSums:
        """What sums clipped gradients of `data`; hooks go when `closing` does."""
        if self.features is not None:
            return HeadGradients(self.task(data), self.parameters[LABEL_VECTORS])
        found = GhostGradients(self.loaded.readout, self.parameters, self.shapes, data)
        closing.callback(found.close)
        return found


class Progress(evaluation.Progress, Protocol):
    """What a person sees while a run goes on: public values only."""

    def began(self, rows: Mapping[str, object], steps: int) -> None:
        """A run of so many steps, described by `rows`, is ready."""
        ...


def train(config: Config, progress: Progress, *, given: GivenRows | None = None) -> dict[str, Any]:
    """Train in the folder `config.output`, which must not hold a run; returns the summary.

    Args:
        given: rows in memory, by the name that the configuration has in place of a file.

    Raises:
        ConfigError, DataError, CouplingError, ValueError: bad input, before the first step.
        ComparisonFailed: a step failed.
        RegistryError: the registry that was asked for cannot be used.
    """
    start = time.monotonic()
    configuration.check(config)
    data, public = read_data(config, given)
    folder = Path(config.output)
    refuse_base_folder(folder, config.model.name)
    _refuse_another_run(folder)
    comparison = prepare(config, units=data.units)
    plan = comparison.plan
    metrics = Metrics(folder / "metrics.jsonl")

    evaluations = Evaluations(
        comparison.task, public, metrics, progress, every=config.eval_every, steps=plan.steps
    )
    claim = describe_claim(plan)
    with ExitStack() as closing:
        gradients = comparison.gradients(data, closing)
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder / "config.yaml", config)
        if config.privacy.registry is not None:
            enter_spending(
                config.privacy.registry,
                data=config.data.identity or "",
                what="training (dp-sgd)",
                note=config.output,
                **{name: claim[name] for name in ("epsilon", "delta", "unit", "adjacency")},
            )
        progress.began(describe(comparison), plan.steps)
        zero_shot = evaluations.at(0, "zero-shot")
        moving = list(comparison.parameters.values())
        dp_sgd.train(moving, gradients, plan, units=data.units, after_step=evaluations.after_step)
    final = evaluations.at(plan.steps, "private")
    save_model(comparison, folder)
    write_json(folder / "privacy.json", claim)
    metrics.write()
    summary = {
        "comparison": LABEL,
        **named("zero_shot", zero_shot),
        **named("private", final),
        "evaluation_rows_cut": evaluations.rows_cut,
        "epsilon": claim["epsilon"],
        "delta": claim["delta"],
        "steps": plan.steps,
        "ledger_head": None,
        "seconds": round(time.monotonic() - start),
        "peak_rss_mib": peak_memory(),
        "moved_sha256": hash_tensors(comparison.parameters.items()),
    }
    write_json(folder / "summary.json", summary)
    return summary


def prepare(config: Config, *, units: int) -> Comparison:
    """Load the model, find what moves, and fix noise and steps.

    Raises:
        ConfigError, ValueError: what cannot be used with this model or this number of units.
    """
    population = config.public_units(units)
    check_units(config, population)
    loaded, tune, parameters = load_moving(config)
    head_only = set(parameters) == {LABEL_VECTORS}
    plan = make_plan(config, head_only=head_only, population=population)
    tokens = config.method.micro_batch_tokens
    shapes = bucket_shapes(
        max_length=config.data.max_length,
        tokens=1024 if tokens == "auto" else tokens,
        sequences=loaded.readout.sequences,
        expected_rows=plan.expected_units,
        added=config.model.columns_added,
    )
    shortest = example_length(loaded.readout.dummy)
    shapes = [shape for shape in shapes if shape.length >= shortest]
    features: FeatureStore | None = {} if head_only else None
    if not head_only:
        parameters = reached(loaded, parameters, shapes[0])
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return Comparison(config, loaded, tune, parameters, shapes, plan, features)


def describe_claim(plan: FirstOrderPlan) -> dict[str, Any]:
    """What is claimed, with its terms, as plain values for `privacy.json`."""
    return {
        "comparison": LABEL,
        "epsilon": plan.epsilon(),
        "delta": plan.delta,
        "unit": "example",
        "adjacency": plan.adjacency,
        "mechanism": "gaussian, in floating point",
        "noise_multiplier": plan.noise_multiplier,
        "clip": plan.clip_norm,
        "sampling_probability": plan.sampling_probability,
        "population": plan.population,
        "steps": plan.steps,
        "accountant": accounting.ACCOUNTANT,
        "accountant_version": accounting.ACCOUNTANT_VERSION,
        "exclusions": _EXCLUSIONS,
    }


def describe(comparison: Comparison) -> dict[str, Any]:
    """The run's public facts in words."""
    plan, config = comparison.plan, comparison.config
    moving = sum(parameter.numel() for parameter in comparison.parameters.values())
    return {
        "model": config.model.name,
        "moving": f"{moving:,} parameters ({comparison.tune}), read at: {comparison.loaded.kind}",
        "method": f"dp-sgd, {plan.optimizer}, learning rate {plan.learning_rate:.3g} "
        f"({plan.schedule})",
        "steps": f"{plan.steps}, each about {plan.expected_units:.0f} of {plan.population} units "
        f"(q = {plan.sampling_probability:.4g})",
        "noise": f"{plan.noise_multiplier:.4g} × clip {plan.clip_norm:.4g}",
        "[bold red]comparison[/bold red]": LABEL.removeprefix("comparison: "),
        "claimed": guarantee_line(plan.epsilon(), plan.delta, "example", plan.adjacency),
    }


def _refuse_another_run(folder: Path) -> None:
    if any((folder / name).exists() for name in ("config.yaml", "ledger.jsonl")):
        raise ConfigError(
            f"output: {folder} holds a run, and dp-sgd keeps no ledger to go on with; choose "
            "another folder (what an interrupted run spent stays spent)."
        )
