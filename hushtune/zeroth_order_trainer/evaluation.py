"""Evaluating on public data: transformers' own loop, given public rows and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import transformers
from torch import nn
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import PredictionOutput

from hushtune.config import ConfigError
from hushtune.zeroth_order_trainer.arguments import ZerothOrderArguments
from hushtune.zeroth_order_trainer.losses import LossFunction, reads_and_writes, without_labels


class _GivenLoss(transformers.Trainer):
    """Evaluates by a function of one loss per row, calling the model as training does."""

    def __init__(self, of_rows: LossFunction, **options: Any) -> None:
        super().__init__(**options)
        self._of_rows = of_rows

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, *_: Any, **__: Any
    ) -> Any:
        """The mean loss of a batch, and the model's outputs."""
        decodes = reads_and_writes(model)
        inputs, labels = without_labels(model, inputs, decodes=decodes)
        outputs = model(**inputs)
        loss = self._of_rows(outputs, labels).mean()
        return (loss, outputs) if return_outputs else loss


class Evaluation:
    """A `transformers.Trainer` that never sees the training data.

    The model is put where that puts it: on a GPU, if there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: ZerothOrderArguments,
        *,
        collator: Callable[..., Any] | None,
        processing_class: Any,
        compute_loss_func: LossFunction | None,
        compute_metrics: Callable[..., Any] | None,
        preprocess_logits: Callable[..., Any] | None,
    ) -> None:
        own = transformers.Trainer
        make = own if compute_loss_func is None else partial(_GivenLoss, compute_loss_func)
        self._trainer = make(
            model=model,  # type: ignore[arg-type]
            args=transformers.TrainingArguments(
                output_dir=arguments.output_dir,
                per_device_eval_batch_size=arguments.per_device_eval_batch_size,
                remove_unused_columns=arguments.remove_unused_columns,
                seed=arguments.seed,
                use_cpu=arguments.use_cpu,
                dataloader_pin_memory=False,
                disable_tqdm=True,
                report_to="none",
            ),
            data_collator=collator,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            preprocess_logits_for_metrics=preprocess_logits,
        )
        self._trainer.remove_callback(PrinterCallback)

    @property
    def collator(self) -> Any:
        """The collator: as given, or the one that suits the tokenizer."""
        return self._trainer.data_collator

    def run(self, rows: Any, prefix: str) -> PredictionOutput:
        """Predictions, labels and metrics of public rows.

        Args:
            prefix: of the metrics' names.
        """
        loader = self._trainer.get_test_dataloader(rows)
        found = self._trainer.evaluation_loop(
            loader, description="Evaluation", metric_key_prefix=prefix
        )
        metrics = found.metrics or {}
        metrics.pop(f"{prefix}_model_preparation_time", None)
        return PredictionOutput(found.predictions, found.label_ids, metrics)


def require_public(rows: Any, private: Any, name: str) -> None:
    """Refuse the private rows where public ones are expected; a part of them looks like any others.

    Raises:
        ConfigError: if they are the same object, or hold rows that are.
    """
    if private is None or rows is None:
        return
    if isinstance(rows, Mapping):
        for each in rows.values():
            require_public(each, private, name)
        return
    same = rows is private
    fingerprints = {getattr(each, "_fingerprint", None) for each in (rows, private)}
    same |= len(fingerprints) == 1 and None not in fingerprints
    if isinstance(rows, list | tuple) and isinstance(private, list | tuple):
        known = {id(row) for row in private}
        same |= any(id(row) in known for row in rows)
    if same:
        raise ConfigError(
            f"{name}: is not accepted, it is the private training data or a part of it; it must be "
            "public, since what is computed on it is published as it is."
        )
