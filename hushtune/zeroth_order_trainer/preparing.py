"""From a model and rows of tokens to a run that `hushtune.core` can take the steps of."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hushtune import methods
from hushtune.config import Config, ConfigError, check_units
from hushtune.core.bucketed import Bucketed, Example
from hushtune.core.examples import Rows
from hushtune.core.preparing import Prepared, prepare, read_begun
from hushtune.memory import room
from hushtune.models.load import positions_of
from hushtune.models.virtual import virtual_tokens
from hushtune.sizing import bytes_a_token, costs, fitting_tokens
from hushtune.tasks.batches import Shape, bucket_shapes
from hushtune.zeroth_order_trainer.arguments import ZerothOrderArguments, own_names
from hushtune.zeroth_order_trainer.form import Alphabet, Form, make_up
from hushtune.zeroth_order_trainer.losses import (
    LossFunction,
    RowLosses,
    base_of,
    find_losses,
    label,
    reads_and_writes,
    require_padding_ignored,
    require_separable,
    shifted_tokens,
    tokens,
    without_labels,
)
from hushtune.zeroth_order_trainer.rows import Collation, Collator, require_usable
from hushtune.zeroth_order_trainer.saving import name_of
from hushtune.zo.losses import Inputs

#: What the training and the evaluation data are called in the ledger's header.
_IN_MEMORY = {"train": "rows in memory", "eval": "evaluation rows in memory"}

#: Longest row where nothing else is said.
_MAX_LENGTH = 128

#: Rows of a micro-batch at most where examples are no text, as images are.
_ROWS_WITHOUT_TEXT = 8

#: Public rows that losses are tried on, one by one and together.
_TRIED = 4


@dataclass(frozen=True)
class Task:
    """What there is to tune and on what.

    Attributes:
        model: of transformers or PEFT, where it is to run.
        arguments: the settings.
        collator: is given one row at a time.
        processing_class: the tokenizer, if there is one.
        train_dataset: the private rows.
        public_dataset: public rows of the same kind; None: they are made up.
        evaluates: whether there is evaluation data.
        compute_loss_func: of outputs and labels; None: the model's own loss.
    """

    model: Any
    arguments: ZerothOrderArguments
    collator: Collator
    processing_class: Any
    train_dataset: Any
    public_dataset: Any
    evaluates: bool
    compute_loss_func: LossFunction | None


def prepare_run(task: Task, ledger: Path) -> Prepared:
    """Everything that comes before the first step.

    Raises:
        ConfigError, ValueError: what cannot be used.
        CouplingError, ProbeError: a model that cannot be tuned privately.
        LedgerError: the ledger is of another run.
    """
    model, arguments = task.model, task.arguments
    model.eval()
    two_texts = reads_and_writes(model)
    collation = _collation(task, two_texts=two_texts)
    data, form = collation.examples(task.train_dataset, name="train_dataset")
    units = collation.units(task.train_dataset, name="train_dataset")
    rows = Rows.of(len(data), units)
    max_length, columns = _lengths(arguments, model) if form.fills else (1, 1)
    config = arguments.to_config(
        train=_IN_MEMORY["train"],
        eval=_IN_MEMORY["eval"] if task.evaluates else None,
        max_length=max(max_length, 8),
    )
    config = replace(config, model=replace(config.model, name=name_of(model)))
    population = rows.units if arguments.population is None else arguments.population
    with own_names():
        check_units(config, population)
    record = read_begun(ledger)
    if record is None:
        shapes = _shapes(config, model, columns, population=population, of_text=bool(form.fills))
    else:
        shapes = [Shape(*each) for each in record.header.get("micro_batches", [])]

    alphabet = _alphabet(task, base_of(model))
    public, alphabet = _public(task, collation, form, alphabet, shapes, longest=max_length)
    if task.compute_loss_func is not None:
        alphabet = replace(alphabet, classes=None)  # labels are what it takes them for
    require_usable(data, form, alphabet, longest=max_length, name="train_dataset")
    losses = _losses(task, public, decodes=two_texts)
    examples = Bucketed(model, losses, data, public, rows.order, fills=form.fills, shapes=shapes)
    if task.compute_loss_func is not None:
        _require_separable(examples, losses)
    if form.fills:
        require_padding_ignored(model, losses, *_with_and_without_padding(examples))
    with own_names():
        learned = {"learned": _kind(losses, form, two_texts=two_texts)}
        return prepare(config, examples, rows, ledger, facts=learned)


def _collation(task: Task, *, two_texts: bool) -> Collation:
    taken = frozenset(inspect.signature(base_of(task.model).forward).parameters)
    columns = taken | {"label", "label_ids", "labels"}
    return Collation(
        collator=task.collator,
        columns=columns if task.arguments.remove_unused_columns else None,
        unit=task.arguments.unit,
        attends="attention_mask" in taken,
        pad=_padding(task),
        two_texts=two_texts,
    )


def _padding(task: Task) -> int:
    """The padding token: the model's own, since heads may look for the last token before it."""
    named = (base_of(task.model).config, task.processing_class)
    found = [getattr(each, "pad_token_id", None) for each in named]
    return max(0, next((token for token in found if token is not None), 0))


def _lengths(arguments: ZerothOrderArguments, model: Any) -> tuple[int, int]:
    """The longest row in tokens, and the columns of the longest micro-batch."""
    positions = positions_of(base_of(model))
    if positions is not None:
        positions -= virtual_tokens(model)
    if arguments.max_length == "auto":
        longest = _MAX_LENGTH if positions is None else min(_MAX_LENGTH, positions - 1)
    else:
        longest = arguments.max_length
    columns = -(-(longest + 1) // 8) * 8
    if positions is None:
        return longest, columns
    if longest + 1 > positions:
        raise ConfigError(
            f"max_length: {longest} is not accepted; it must be at most {positions - 1}, since the "
            f"model has {positions} positions and one column is padding."
        )
    return longest, min(positions, columns)


def _shapes(
    config: Config, model: Any, columns: int, *, population: int, of_text: bool
) -> list[Shape]:
    """Those of a new run's micro-batches."""
    budget = methods.budget(config.method, config.privacy, head_only=False, population=population)
    parameters = list(model.parameters())
    moving = sum(each.numel() for each in parameters if each.requires_grad)
    device = parameters[0].device
    cost = costs(device, all_move=2 * moving > sum(each.numel() for each in parameters))
    added = virtual_tokens(model)
    limit = config.method.micro_batch_tokens
    if limit == "auto":
        limit = _ROWS_WITHOUT_TEXT
        if of_text:
            a_token = bytes_a_token(
                base_of(model).config,
                parameters[0].element_size(),
                columns + added,
                keeps_keys=getattr(model, "peft_type", None) == "PREFIX_TUNING",
            )
            limit = fitting_tokens(a_token, cost.most_tokens, room(device))
    return bucket_shapes(
        max_length=columns,
        tokens=limit,
        sequences=1,
        expected_rows=budget.batch,
        overhead=cost.overhead,
        added=added,
    )


def _alphabet(task: Task, base: Any) -> Alphabet:
    try:
        embeddings = base.get_input_embeddings()
    except NotImplementedError:
        embeddings = None
    count = None
    if isinstance(embeddings, torch.nn.Embedding):
        count = embeddings.num_embeddings
    special = set(getattr(task.processing_class, "all_special_ids", ()))
    special |= {
        value
        for name, value in base.config.to_dict().items()
        if name.endswith("_token_id") and isinstance(value, int)
    }
    plain = np.array([token for token in range(count or 0) if token not in special])
    types = getattr(base.config, "type_vocab_size", 1) or 1
    return Alphabet(count, plain, types, positions_of(base))


def _public(
    task: Task,
    collation: Collation,
    form: Form,
    alphabet: Alphabet,
    shapes: Sequence[Shape],
    *,
    longest: int,
) -> tuple[list[Example], Alphabet]:
    """Public examples, and what numbers stand for, labels included."""
    seed = task.arguments.seed
    if task.public_dataset is not None:
        public, of_public = collation.examples(task.public_dataset, name="public_dataset")
        if of_public != form:
            raise ConfigError(
                "public_dataset: its rows are not of the columns, number formats and shapes of "
                "those of train_dataset."
            )
        require_usable(public, form, alphabet, longest=longest, name="public_dataset")
        return public, _with_classes(task, form, alphabet, public[0])
    guess = replace(alphabet, classes=2)  # labels only tell a decoder what it has read
    first = make_up(form, guess, shapes[:1], seed=seed)[0]
    alphabet = _with_classes(task, form, alphabet, first)
    return make_up(form, alphabet, shapes, seed=seed), alphabet


def _with_classes(task: Task, form: Form, alphabet: Alphabet, example: Example) -> Alphabet:
    """What numbers stand for, with the labels that the model scores."""
    if "labels" not in form.dtypes:
        return alphabet
    inputs = _alone(task.model, example)
    decodes = form.two_texts
    with torch.inference_mode():
        inputs, _ = without_labels(task.model, inputs, decodes=decodes)
        logits = getattr(task.model(**inputs), "logits", None)
    return alphabet if logits is None else replace(alphabet, classes=logits.shape[-1])


def _losses(task: Task, public: Sequence[Example], *, decodes: bool) -> RowLosses:
    if task.compute_loss_func is not None:
        return RowLosses(task.compute_loss_func, decodes=decodes)
    alone = [_alone(task.model, example) for example in public[-_TRIED:]]
    return find_losses(task.model, alone, decodes=decodes)


def _require_separable(examples: Bucketed, losses: RowLosses) -> None:
    """Refuse a given function whose losses are of several rows."""
    shape, numbers = examples.shapes[-1], range(1, _TRIED + 1)
    alone = [examples.of_public(shape, [number]) for number in numbers]
    require_separable(examples.module, losses, examples.of_public(shape, numbers), alone)


def _with_and_without_padding(examples: Bucketed) -> tuple[list[Inputs], list[Inputs]]:
    """The longest and the shortest public row that are tried, as in a micro-batch and alone."""
    shape = examples.shapes[-1]
    numbers = (1, 0)
    padded = [examples.of_public(shape, [number]) for number in numbers]
    return padded, [examples.unpadded(shape, number) for number in numbers]


def _alone(model: Any, example: Example) -> Inputs:
    device = next(model.parameters()).device
    return {name: tensor.unsqueeze(0).to(device) for name, tensor in example.items()}


def _kind(losses: RowLosses, form: Form, *, two_texts: bool) -> str:
    """What the rows are called on the model card."""
    if "input_ids" not in form.dtypes:
        return "examples"
    if two_texts:
        return "completion" if losses.function is tokens else "examples"
    if losses.function is shifted_tokens:
        return "language-modelling"
    return "classification" if losses.function is label else "examples"
