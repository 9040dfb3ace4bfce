"""When to evaluate and to save, which evaluation was the best, and what a run returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers import TrainerState
from transformers.trainer_callback import DefaultFlowCallback

from hushtune.zeroth_order_trainer.arguments import ZerothOrderArguments


class ZerothOrderOutput(NamedTuple):
    """What `ZerothOrderTrainer.train` returns.

    Attributes:
        global_step: steps charged.
        guarantee: ε with all its terms, as in `privacy.json`; it stands where `TrainOutput` has the
            training loss, which is private.
        metrics: numbers of the run, all public.
    """

    global_step: int
    guarantee: dict[str, Any]
    metrics: dict[str, float]

    @property
    def training_loss(self) -> float:
        """Not there.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(
            "a training loss is computed from private rows and is not published; evaluate() gives "
            "the loss on public ones, .guarantee what the run cost."
        )


class Flow(DefaultFlowCallback):
    """Says at which steps to evaluate and to save."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        last = state.global_step >= state.max_steps
        if args.eval_strategy == "steps" and (last or state.global_step % args.eval_steps == 0):
            control.should_evaluate = True
        if args.save_strategy == "steps" and (last or state.global_step % args.save_steps == 0):
            control.should_save = True
        return control


def note_best(
    arguments: ZerothOrderArguments, state: TrainerState, metrics: Mapping[str, float]
) -> None:
    """Keep the best value so far of the metric that callbacks watch."""
    name = arguments.metric_for_best_model
    if name is None:
        return
    value = metrics.get(name if name.startswith("eval_") else f"eval_{name}")
    best = state.best_metric
    if value is not None and (
        best is None or (value > best if arguments.greater_is_better else value < best)
    ):
        state.best_metric = value
        state.best_global_step = state.global_step
