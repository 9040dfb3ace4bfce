"""`ZerothOrderTrainer`; see docs/trainer.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler, ProgressCallback
from transformers.trainer_utils import PredictionOutput

from hushtune.config import ConfigError
from hushtune.core.preparing import Prepared, read_begun
from hushtune.ending import LEDGER
from hushtune.methods import Settings
from hushtune.report.terminal import TerminalProgress, describe_plan
from hushtune.report.words import show
from hushtune.zeroth_order_trainer.arguments import ZerothOrderArguments
from hushtune.zeroth_order_trainer.evaluation import Evaluation, require_public
from hushtune.zeroth_order_trainer.flow import Flow, ZerothOrderOutput, note_best
from hushtune.zeroth_order_trainer.losses import LossFunction
from hushtune.zeroth_order_trainer.preparing import Task, prepare_run
from hushtune.zeroth_order_trainer.refused import RefusesOthers
from hushtune.zeroth_order_trainer.rows import Collator, silent_libraries
from hushtune.zeroth_order_trainer.saving import name_of, require_savable, save, upload


class ZerothOrderTrainer(RefusesOthers):
    """Tunes a model of transformers or PEFT on private rows, as `transformers.Trainer` is used.

        trainer = ZerothOrderTrainer(
            model=model,
            args=ZerothOrderArguments("out", epsilon=2.0),
            train_dataset=tokenised,          # private
            eval_dataset=public,              # PUBLIC: metrics on it are exact
            processing_class=tokenizer,
        )
        trainer.train()
        trainer.save_model()

    Whatever requires gradients moves. Units are sampled secretly, each of them contributes one
    clipped vector a step, and exact noise is added to the sum: see `hushtune.core`. No training
    loss, no batch and no gradient is ever shown.

    Args:
        model: with whatever is to move requiring gradients. It is changed in place, and put on a
            GPU if there is one.
        args: the settings.
        data_collator: makes tensors of a list of rows; it is given one row at a time. None: that of
            the tokenizer, which pads, or the one that stacks.
        train_dataset: the private rows: a `datasets.Dataset` or a sequence of dictionaries, already
            tokenised. Its number of rows (or units), its columns and their number formats are
            public; nothing else is.
        eval_dataset: public rows, or several sets of them by name.
        processing_class: the tokenizer or processor, saved with the model.
        compute_loss_func: from the model's outputs and the labels to one loss per row. None: the
            model's own loss, if that is a cross-entropy of labels or tokens or a squared error.
        compute_metrics: from `EvalPrediction` to metrics, as for `Trainer`.
        callbacks: told of public values only.
        preprocess_logits_for_metrics: as for `Trainer`.
        public_dataset: rows like those of `train_dataset` that say nothing of them, to choose λ and
            the clip on, and to try that rows do not touch each other. None: random tokens.

    Attributes:
        state: a `TrainerState`; global_step counts charged steps, epoch is the expected number of
            times that a unit was sampled.

    Raises:
        ConfigError: one line that names the argument and says what is accepted.
    """

    def __init__(
        self,
        model: Any,
        args: ZerothOrderArguments,
        data_collator: Collator | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        compute_loss_func: LossFunction | None = None,
        compute_metrics: Callable[..., Mapping[str, Any]] | None = None,
        callbacks: list[TrainerCallback | type[TrainerCallback]] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        public_dataset: Any = None,
    ) -> None:
        if not isinstance(args, ZerothOrderArguments):
            raise ConfigError(
                f"args: {type(args).__name__} is not accepted; it must be ZerothOrderArguments."
            )
        require_public(eval_dataset, train_dataset, "eval_dataset")
        require_public(public_dataset, train_dataset, "public_dataset")
        if args.eval_strategy == "steps" and eval_dataset is None:
            raise ConfigError("eval_dataset: is needed with eval_strategy steps.")
        require_savable(model, args.output_dir)
        self.model = model
        self.args = args
        self.train_dataset = train_dataset
        self.eval_dataset = eval_dataset
        self.processing_class = processing_class
        self._public_dataset = public_dataset
        self._compute_loss_func = compute_loss_func
        self._evaluation = Evaluation(
            model,
            args,
            collator=data_collator,
            processing_class=processing_class,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            preprocess_logits=preprocess_logits_for_metrics,
        )
        self._progress = TerminalProgress(quiet=args.disable_tqdm)
        self._run: Prepared | None = None
        self.state: TrainerState = TrainerState(
            eval_steps=args.eval_steps or 0, save_steps=args.save_steps
        )
        self.control: TrainerControl = TrainerControl()
        self.callback_handler: CallbackHandler = CallbackHandler(
            [Flow()], model, processing_class, None, None
        )
        for callback in callbacks or []:
            self.add_callback(callback)
        self._tell("on_init_end")

    def train(self, resume_from_checkpoint: bool | str | None = None) -> ZerothOrderOutput:
        """Take the steps of the plan, or those that are left of it.

        A callback that sets `control.should_training_stop` ends the run early; its guarantee is
        still that of the planned steps, since when to stop may have been decided by what was
        released.

        Args:
            resume_from_checkpoint: True (or `output_dir`): go on with the ledger in `output_dir`,
                with the model as it was before the first step.

        Raises:
            ConfigError, DataError, ValueError: what cannot be used, before the first step.
            CouplingError, ProbeError: a model that cannot be tuned privately.
            LedgerError: the ledger is of another run or in use.
            StepFailed: a step failed; its charge is spent.
        """
        ledger = Path(self.args.output_dir) / LEDGER
        self._require_resuming(ledger, resume_from_checkpoint)
        task = Task(
            model=self.model,
            arguments=self.args,
            collator=self._evaluation.collator,
            processing_class=self.processing_class,
            train_dataset=self.train_dataset,
            public_dataset=self._public_dataset,
            evaluates=self.eval_dataset is not None,
            compute_loss_func=self._compute_loss_func,
        )
        self._run = run = prepare_run(task, ledger)
        settings = Settings(**run.header["settings"])
        name = name_of(self.model) or type(self.model).__name__
        described = {"model": name} | describe_plan(self.args.method, run.plan, settings)
        self._progress.began(described, run.plan.steps, run.charges)
        self.state.max_steps = run.plan.steps
        self._count(run.charges)
        self.control = TrainerControl()
        self._tell("on_train_begin")
        try:
            with silent_libraries():
                guarantee = run.take_steps(self._after_step)
        finally:
            self._progress.ended()
        self._count(guarantee["steps_charged"])
        metrics = {key: guarantee[key] for key in ("epsilon", "delta", "steps_charged", "steps")}
        self.log(metrics)
        self._tell("on_train_end")
        if self.args.push_to_hub:
            self.save_model()
            self.push_to_hub()
        return ZerothOrderOutput(self.state.global_step, guarantee, metrics)

    def evaluate(
        self, eval_dataset: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss and metrics on public rows.

        Args:
            eval_dataset: public rows, or several sets of them by name; None: those given before.
            metric_key_prefix: of the metrics' names.

        Raises:
            ConfigError: if these are the private rows.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if rows is None:
            raise ConfigError("eval_dataset: is needed to evaluate; it must be public.")
        require_public(rows, self.train_dataset, "eval_dataset")
        named = {metric_key_prefix: rows}
        if isinstance(rows, Mapping):
            named = {f"{metric_key_prefix}_{name}": each for name, each in rows.items()}
        found: dict[str, float] = {}
        for prefix, each in named.items():
            found |= self._evaluation.run(each, prefix).metrics or {}
        self.log(found)
        if not self.args.disable_tqdm:
            show(f"after step {self.state.global_step}", found)
        self._tell("on_evaluate", metrics=found)
        note_best(self.args, self.state, found)
        return found

    def predict(self, test_dataset: Any, metric_key_prefix: str = "test") -> PredictionOutput:
        """Predictions for rows that are not the private ones, with metrics if they have labels.

        Raises:
            ConfigError: if these are the private rows.
        """
        require_public(test_dataset, self.train_dataset, "test_dataset")
        found = self._evaluation.run(test_dataset, metric_key_prefix)
        self._tell("on_predict", metrics=found.metrics)
        return found

    def save_model(self, output_dir: str | None = None) -> None:
        """Write model and tokenizer; after `train` also `privacy.json`, ledger and model card.

        Args:
            output_dir: the folder; None: that of the arguments.
        """
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        save(self.model, self.processing_class, folder, self._run)

    def push_to_hub(
        self, commit_message: str = "End of training", revision: str | None = None
    ) -> Any:
        """Upload what `save_model` writes to `hub_model_id`, and nothing else of `output_dir`.

        Returns:
            The hub's description of the commit.
        """
        self._tell("on_push_begin")
        return upload(
            self.model,
            self.processing_class,
            self._run,
            repository=self.args.hub_model_id or Path(self.args.output_dir).absolute().name,
            token=self.args.hub_token,
            private=self.args.hub_private_repo,
            message=commit_message,
            revision=revision,
        )

    def log(self, logs: Mapping[str, float]) -> None:
        """Tell callbacks of public numbers, and keep them in `state.log_history`."""
        entry = {**logs, "epoch": self.state.epoch}
        self.state.log_history.append({**entry, "step": self.state.global_step})
        self._tell("on_log", logs=entry)

    def add_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Tell a callback of what happens from here on."""
        kind = callback if isinstance(callback, type) else type(callback)
        if issubclass(kind, ProgressCallback):
            raise ConfigError(
                f"callbacks: {kind.__name__} is not accepted, it shows how long each step takes, "
                "and that follows from who was sampled; leave it out, progress is shown anyway."
            )
        self.callback_handler.add_callback(callback)

    def pop_callback(self, callback: Any) -> TrainerCallback | None:
        """Remove a callback, or the first of a class, and return it."""
        return self.callback_handler.pop_callback(callback)

    def remove_callback(self, callback: Any) -> None:
        """Remove a callback, or the first of a class."""
        self.callback_handler.remove_callback(callback)

    def _after_step(self, charges: int) -> bool:
        self._count(charges)
        self._progress.stepped(charges)
        self._tell("on_step_end")
        if self.control.should_evaluate:
            self.evaluate()
        if self.control.should_log:
            self.log({})
        if self.control.should_save:
            self.save_model(os.path.join(self.args.output_dir, f"checkpoint-{charges}"))
            self._tell("on_save")
        control = self.control
        control.should_evaluate = control.should_log = control.should_save = False
        self.model.eval()  # whatever a callback did with it: dropout would depend on the batch
        return control.should_training_stop

    def _count(self, charges: int) -> None:
        assert self._run is not None
        self.state.global_step = charges
        self.state.epoch = charges * self._run.plan.sampling_probability

    def _tell(self, event: str, **more: Any) -> None:
        told = self.callback_handler.call_event(event, self.args, self.state, self.control, **more)
        self.control = told

    def _require_resuming(self, ledger: Path, wanted: bool | str | None) -> None:
        """Refuse to begin where a run has begun, and to go on where none has."""
        if self.train_dataset is None:
            raise ConfigError("train_dataset: is needed to train.")
        if isinstance(wanted, str | os.PathLike) and not (
            os.path.isdir(wanted) and os.path.samefile(wanted, self.args.output_dir)
        ):
            raise ConfigError(
                f"resume_from_checkpoint: {wanted} is not accepted; it must be True or output_dir, "
                "where the ledger is."
            )
        begun = read_begun(ledger) is not None
        if begun and not wanted:
            raise ConfigError(
                f"output_dir: {self.args.output_dir} holds the ledger of a run; go on with it by "
                "train(resume_from_checkpoint=True), or choose another folder."
            )
        if wanted and not begun:
            raise ConfigError(f"resume_from_checkpoint: there is no ledger in {ledger.parent}.")
