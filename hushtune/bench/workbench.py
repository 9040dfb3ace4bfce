"""Everything that a run has, for a made-up model and text: the objects that `hushtune train` uses.

Every unit takes part in every step (q = 1), so that steps are of equal size, and the learning rate
is so small that the weights stay what they are. Neither changes what a step does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from hushtune.bench import textbook
from hushtune.bench.cases import Case
from hushtune.bench.models import build, random_text
from hushtune.config import Config, LoraConfig
from hushtune.methods import Settings
from hushtune.models.moving import add_adapters, moving_parameters
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.steps import PrivateSteps
from hushtune.session import Session
from hushtune.tasks.batches import Shape
from hushtune.tasks.task import TextTask
from hushtune.trainer import train
from hushtune.zo.estimators import moves
from hushtune.zo.losses import MicroBatch

#: Told of every step that is done.
AfterStep = Callable[[int], None]

_LEARNING_RATE = 1e-9
_SCALE = 1e-3
_CLIP = 10.0


class Workbench:
    """A case's model and text.

    Attributes:
        case: what is to be measured.
        parameters: the moving parameters by name.
        task: model, text and loss.
        batches: the micro-batches of a step.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self._loaded = build(case.shape, case.dtype, case.device, length=case.length)
        if case.moving == "lora":
            add_adapters(self._loaded, "lora", LoraConfig(r=8), seed=0)
        self.parameters: dict[str, nn.Parameter] = moving_parameters(self._loaded, case.moving)
        self._shapes = [Shape(case.rows_a_pass, case.length)]
        # One column of a micro-batch is padding.
        self._data = random_text(case.shape, rows=case.rows, tokens=case.length - 1)
        self.task: TextTask = self.session(1).task(self._data)
        self.batches: list[MicroBatch] = list(self.task.micro_batches(np.arange(case.rows)))

    def session(self, steps: int) -> Session:
        """A run of so many steps, before its first."""
        case = self.case
        scales = dict.fromkeys(self.parameters, 1.0)
        plan = PrivacyPlan.with_noise(
            noise_multiplier=1.0,
            clip_norm=_CLIP,
            mechanism="gaussian",
            delta=1e-5,
            adjacency="add-or-remove-one",
            unit="example",
            combine="mean",
            population=self._data.units,
            sampling_probability=1.0,
            steps=steps,
            directions=case.directions,
        )
        settings = Settings(
            distribution="rademacher",
            estimator=case.estimator,
            perturbation_scale=_SCALE,
            update="sgd",
            learning_rate=_LEARNING_RATE,
            schedule="constant",
            typical_slope=1.0,
        )
        header = {
            "private": True,
            "steps": steps,
            "plan": plan.to_json(),
            "settings": asdict(settings),
        }
        return Session(
            Config(),
            self._loaded,
            case.moving,
            self.parameters,
            scales,
            self._shapes,
            settings,
            plan,
            header,
            # Its texts are random words.
            isolation_tried=True,
        )

    def plain(self, passes: int) -> None:
        """So many forward passes of every micro-batch, and nothing else."""
        with torch.inference_mode():
            for _, inputs in self.batches:
                for _ in range(passes):
                    self.task.losses(inputs).cpu()

    def run(self, steps: int, after_step: AfterStep) -> None:
        """Take so many steps of the case's method.

        Raises:
            ConfigError: if DP-SGD cannot be had for this model.
        """
        if self.case.method == "inference":
            for step in range(steps):
                self.plain(1)
                after_step(step + 1)
        elif self.case.method == "in-place":
            loop = textbook.InPlace(self.parameters, self._loss, _SCALE, _LEARNING_RATE)
            for step in range(steps):
                loop.step(step)
                after_step(step + 1)
        elif self.case.method == "dp-sgd":
            self._run_first_order(steps, after_step)
        else:
            self._run_hushtune(steps, after_step)

    def once_round(self) -> None:
        """What a method does to the parameters before its update: there and back again."""
        if self.case.method == "in-place":
            textbook.InPlace(self.parameters, self._loss, _SCALE, _LEARNING_RATE).slope(0)
        else:
            session = self.session(1)
            there = moves("two-sided", 1, _SCALE)
            session.losses(self.task).at(np.arange(self.case.rows), there, charge=0)

    def _run_hushtune(self, steps: int, after_step: AfterStep) -> None:
        session = self.session(steps)
        with (
            TemporaryDirectory() as folder,
            Ledger(Path(folder) / "ledger.jsonl", session.header) as ledger,
        ):
            private = PrivateSteps(ledger, units=self._data.units)
            train(session, self._data, private, after_step=after_step)

    def _run_first_order(self, steps: int, after_step: AfterStep) -> None:
        # Not needed, and so not loaded, by any other method.
        from hushtune.comparison import dp_sgd
        from hushtune.comparison.run import Comparison
        from hushtune.comparison.settings import FirstOrderPlan

        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        plan = FirstOrderPlan(
            population=self._data.units,
            sampling_probability=1.0,
            steps=steps,
            clip_norm=_CLIP,
            noise_multiplier=1.0,
            delta=1e-5,
            adjacency="add-or-remove-one",
            optimizer="adamw",
            learning_rate=_LEARNING_RATE,
            schedule="constant",
        )
        case = self.case
        comparison = Comparison(
            Config(), self._loaded, case.moving, self.parameters, self._shapes, plan, None
        )
        with ExitStack() as closing:
            gradients = comparison.gradients(self._data, closing)
            moving: list[nn.Parameter] = list(self.parameters.values())
            dp_sgd.train(moving, gradients, plan, units=self._data.units, after_step=after_step)

    def _loss(self) -> float:
        """Mean loss of a step's texts."""
        total, count = 0.0, 0
        with torch.inference_mode():
            for places, inputs in self.batches:
                total += float(self.task.losses(inputs)[: len(places)].sum())
                count += len(places)
        return total / count
