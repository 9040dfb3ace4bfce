"""A run of coded updates: from a configuration, or from a ledger's header."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from hushtune.config import Config, ConfigError, check_units, from_values
from hushtune.federated.codecs import Prior, moments
from hushtune.federated.first_order.coded import CodedUpdate
from hushtune.federated.first_order.flat import Flat
from hushtune.federated.first_order.gradients import (
    ExampleGradients,
    LocalTraining,
    contributions,
)
from hushtune.federated.first_order.making import (
    codec_maker,
    compression_of,
    kept_of,
    make_codec,
)
from hushtune.federated.first_order.settings import (
    CodedSettings,
    batch_of,
    clip_norm_of,
    rounds_of,
    settings_of,
)
from hushtune.loading import VERSIONED, load_base, load_moving, pack_label_vectors
from hushtune.models.load import LoadedModel
from hushtune.models.reached import reached
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.rounds import RoundTerms
from hushtune.privacy.steps import Slopes, prepared
from hushtune.probe import dummy_data
from hushtune.settling import make_header, make_private_plan, noise_of_release, require_start
from hushtune.tasks.batches import Shape, bucket_shapes
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import example_length
from hushtune.tasks.task import TextTask

#: Tokens of a micro-batch in evaluations.
_TOKENS = 1024

#: Pretended clients, each with a part of the public text.
_PRETENDED = 6


@dataclass
class CodedSession:
    """A model before the first round, and all that is fixed for the run.

    Attributes:
        config: as the person gave it.
        loaded: model, tokenizer and read-out.
        tune: what moves, resolved.
        parameters: the moving parameters by name.
        shapes: micro-batch shapes of evaluations.
        settings: the method's, resolved.
        plan: sampling, clip, noise and rounds.
        header: the ledger's first line.
    """

    config: Config
    loaded: LoadedModel
    tune: str
    parameters: dict[str, nn.Parameter]
    shapes: list[Shape]
    settings: CodedSettings
    plan: PrivacyPlan
    header: dict[str, Any]

    def task(self, data: LabelledText) -> TextTask:
        """The model's task on `data`, for evaluation."""
        return TextTask(self.loaded.readout, data, self.shapes)

    def update(self) -> CodedUpdate:
        """What takes in releases, from before the first one."""
        kept = self.header["codec"]
        return CodedUpdate(
            Flat(self.parameters),
            self.plan,
            self.settings,
            Prior.from_json(self.header["public_prior"]),
            codec_maker(self.settings, self.config.seed, compression_of(self.config), kept),
            noise=noise_of_release(self.config, self.plan),
        )

    def read(self, data: LabelledText) -> ExampleGradients:
        """Read `data` as rounds will, without a forward pass."""
        return prepared(lambda: ExampleGradients(self.loaded.readout, self.parameters, data))

    def slopes(self, data: LabelledText, update: CodedUpdate, *, ahead: bool = True) -> Slopes:
        """What a round asks for of `data`, where the parameters are; see `contributions`."""
        del ahead  # layers are computed with their gradients
        gradients = self.read(data)
        by_client = RoundTerms.of(self.header).by_client
        return contributions(gradients, data, self.settings, update.encode, by_client=by_client)

    def require_isolation(self) -> None:
        """Nothing to try: an example's gradient is computed alone."""


def begin(config: Config, *, units: int) -> CodedSession:
    """A new run: load the model, look at updates on public text, fix codec, clip and noise.

    Args:
        units: the number of units of all clients.

    Raises:
        ConfigError: a setting that cannot be used with this model or this number of units.
        ValueError: if no noise gives the ε that is asked for.
    """
    population = config.public_units(units)
    check_units(config, population)
    loaded, tune, parameters = load_moving(config)
    shapes = bucket_shapes(
        max_length=config.data.max_length,
        tokens=_TOKENS,
        sequences=loaded.readout.sequences,
        expected_rows=256,
        added=config.model.columns_added,
    )
    shortest = example_length(loaded.readout.dummy)
    shapes = [shape for shape in shapes if shape.length >= shortest]
    parameters = reached(loaded, parameters, shapes[0])
    _require_float32(parameters)
    public = _public_updates(config, loaded, parameters)
    # Twice each, so that never more than one is in memory.
    lengths = [float(np.sqrt(np.square(update()).sum())) for update in public]
    clip_norm = clip_norm_of(config, float(np.median(lengths)))
    if not 0 < clip_norm < np.inf:
        raise ConfigError("model.name: its updates on public text are zero or not finite.")
    layers = Flat(parameters).layers
    of_public = [moments(update(), clip_norm, layers) for update in public]
    prior = Prior.from_moments(np.mean(of_public, axis=0), clip_norm, layers)
    codec = make_codec(config, prior)
    settings = settings_of(config, dimension=codec.dimension, size=codec.size)
    plan = make_private_plan(
        config,
        population=population,
        batch=batch_of(config, population),
        steps=rounds_of(config),
        directions=max(codec.size, 2 * len(layers) if settings.moment_rounds else 1),
        clip_norm=clip_norm,
    )
    header = make_header(config, plan, settings, parameters, versioned=VERSIONED) | {
        "shapes": [dataclasses.asdict(shape) for shape in shapes],
        "label_vectors": pack_label_vectors(loaded),
        "base_sha256": loaded.base_hash,
        "public_prior": prior.to_json(),
        "codec": kept_of(codec, prior, config.seed),
    }
    return CodedSession(config, loaded, tune, parameters, shapes, settings, plan, header)


def resume(header: dict[str, Any], *, model: str | None = None) -> CodedSession:
    """The run that a ledger's header describes, before its first round.

    Args:
        model: where the base model is, if not where it was.

    Raises:
        LedgerError: if the base model's weights are not the ones that the ledger began with.
    """
    config = from_values(header["config"], source="ledger header")
    config, loaded, tune, parameters = load_base(config, header, model=model)
    moving = {name: parameters[name] for name in header["moving"]}
    require_start(header, moving)
    return CodedSession(
        config,
        loaded,
        tune,
        moving,
        [Shape(**shape) for shape in header["shapes"]],
        CodedSettings(**header["settings"]),
        PrivacyPlan.from_json(header["plan"]),
        header,
    )


def _require_float32(parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise ConfigError(
                f"method.name: dr-encoder moves float32 numbers, and {name} is "
                f"{str(parameter.dtype).removeprefix('torch.')}; set model.lora.dtype or "
                "model.dtype to float32."
            )


def _public_updates(
    config: Config, loaded: LoadedModel, parameters: dict[str, nn.Parameter]
) -> list[Callable[[], np.ndarray]]:
    """Functions that compute (d,) updates on public text: of examples, or of pretended clients."""
    data = dummy_data(loaded)
    gradients = ExampleGradients(loaded.readout, parameters, data)
    rows = np.arange(data.units)
    if not config.federated.by_client:
        return [partial(gradients.of_row, row) for row in rows.tolist()]
    training = LocalTraining(
        gradients,
        learning_rate=config.federated.local_learning_rate,
        batch=config.federated.local_batch,
    )
    return [partial(training.of_rows, rows[client::_PRETENDED]) for client in range(_PRETENDED)]
