"""Use a tuned model: load it from its run folder, and ask it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from hushtune.config import Config, ConfigError, LoraConfig, from_values
from hushtune.generation import Generated, Request, generate
from hushtune.models.load import load_model
from hushtune.models.moving import base_network, cast_adapters, replace_network
from hushtune.models.save import LABEL_VECTORS_FILE
from hushtune.privacy.ledger import LedgerError
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.files import numbered
from hushtune.tasks.generating import Sampling
from hushtune.tasks.readouts import (
    ChatReadOut,
    ChoicesReadOut,
    CompletionReadOut,
    DocumentReadOut,
    ReadOut,
)
from hushtune.tasks.task import TextTask


class TunedModel:
    """A tuned model with what it was tuned for.

    Example:
        >>> hushtune.load("runs/demo").predict(["My card has been stolen."])
        ['card_lost']

    Attributes:
        readout: where its answers are read.
        labels: their names, of a task that has some.
        shapes: the run's micro-batch shapes.
    """

    def __init__(self, readout: ReadOut, config: Config, shapes: list[Shape]) -> None:
        self.readout = readout
        self.shapes = shapes
        self.labels: tuple[str, ...] = tuple(config.task.labels)
        self._config = config

    @property
    def model(self) -> Any:
        """The tuned network; of a sentence encoder, the encoder with its label vectors."""
        return self.readout.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.readout.tokenizer

    def predict(self, texts: Sequence[Any]) -> list[str]:
        """What the model answers: a label for each text, an option, or a completion.

        Args:
            texts: what a row of the task says: texts, or `Pair`s, to classify; `Choices`; or
                prompts to complete.

        Raises:
            ConfigError: if the model was tuned for a task that has no answers.
        """
        if isinstance(self.readout, CompletionReadOut):
            return self.readout.complete(texts)
        if isinstance(self.readout, ChatReadOut | DocumentReadOut):
            raise ConfigError(
                "task.kind: what was learned is text; use the model to generate some."
            )
        best = self.task(LabelledText.unlabelled(texts)).predictions()
        if isinstance(self.readout, ChoicesReadOut):
            return [text.options[index] for text, index in zip(texts, best, strict=True)]
        return [self.labels[index] for index in best]

    def generate(
        self,
        prompts: Iterable[Mapping[str, Any]] | None = None,
        *,
        count: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int | None = None,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        """Synthetic rows, of the columns that the model was tuned on.

        They are post-processing of the model and have its guarantee, if nothing private is in the
        prompts.

            hushtune.load("runs/reviews").generate([{"label": "positive"}], count=100)

        Args:
            prompts: PUBLIC rows, what is to be written left out; none: documents from nothing.
            count: how many rows, going through the prompts again and again; none: one a prompt.
            temperature, top_p, top_k: see `hushtune.tasks.generating.Sampling`.
            max_new_tokens: of each row; see `hushtune.generation.Request`.
            seed: of the draws; public.

        Raises:
            ConfigError, DataError: what cannot be used, or a model that learned no text.
        """
        sampling = Sampling(temperature, top_p, top_k)
        request = Request(count, sampling, max_new_tokens, seed)
        rows = None if prompts is None else numbered(prompts, "prompts")
        return self.generated(rows, request).rows

    def generated(
        self,
        prompts: Iterable[tuple[str, Mapping[str, Any]]] | None,
        request: Request,
        *,
        after_batch: Callable[[int], None] = lambda _: None,
    ) -> Generated:
        """`generate`, and what is to be said of it; see `hushtune.generation.generate`."""
        task, data = self._config.task, self._config.data
        return generate(self.readout, task, data, prompts, request, after_batch=after_batch)

    def task(self, data: LabelledText) -> TextTask:
        """The model's task on rows."""
        return TextTask(self.readout, data, self.shapes)


def load_tuned(run: str | Path, header: dict[str, Any]) -> TunedModel:
    """The tuned model of a run folder, by the ledger's header.

    A folder with `model/` is complete; one with `adapter/` needs the base model as well.

    Raises:
        LedgerError: if the run is not complete.
    """
    run = Path(run)
    config = from_values(header["config"], source=f"{run}/ledger.jsonl")
    adapter, model = run / "adapter", run / "model"
    if not adapter.exists() and not model.exists():
        raise LedgerError(f"{run}: this run is not complete; repeat its `hushtune train` command.")
    if not adapter.exists():
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, name=str(model))
        )
    loaded = load_model(config.model, config.task, config.data, seed=config.seed)
    readout: Any = loaded.readout
    if adapter.exists():
        adapted = _with_adapter(base_network(loaded), adapter, config.model.lora)
        replace_network(loaded, adapted)
    if loaded.kind == "descriptions":
        folder = adapter if adapter.exists() else model
        with safe_open(str(folder / LABEL_VECTORS_FILE), framework="pt") as file, torch.no_grad():
            vectors: Any = readout.model.label_vectors
            vectors.copy_(file.get_tensor("label_vectors"))
    shapes = [Shape(**shape) for shape in header["shapes"]]
    return TunedModel(readout, config, shapes)


def _with_adapter(network: nn.Module, adapter: Path, lora: LoraConfig) -> nn.Module:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers for names of older versions
        adapted = peft.PeftModel.from_pretrained(network, str(adapter))  # type: ignore[arg-type]
    cast_adapters(adapted, lora)
    return adapted
