"""Which read-out a model and a task go together with."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from hushtune.config import ConfigError, DataConfig, TaskConfig
from hushtune.models.encoder import EncoderClassifier, describe_labels, pooling_of
from hushtune.tasks.readouts import (
    CausalReadOut,
    ChatReadOut,
    ChoicesReadOut,
    ClassifyingReadOut,
    CompletionReadOut,
    DescriptionsReadOut,
    DocumentReadOut,
    EncoderDecoderReadOut,
    HeadReadOut,
    MaskReadOut,
    ReadOut,
)
from hushtune.tasks.readouts.joining import CausalJoining, EncoderDecoderJoining

ReadOutKind = Literal["mask", "continuation", "encoder-decoder", "head", "descriptions"]

#: Endings of what a checkpoint says that it is.
_ENDINGS: dict[str, ReadOutKind] = {
    "ForMaskedLM": "mask",
    "ForCausalLM": "continuation",
    "LMHeadModel": "continuation",
    "ForConditionalGeneration": "encoder-decoder",
    "ForSequenceClassification": "head",
}


_CLASSIFYING: dict[ReadOutKind, type[ClassifyingReadOut]] = {
    "mask": MaskReadOut,
    "continuation": CausalReadOut,
    "encoder-decoder": EncoderDecoderReadOut,
    "head": HeadReadOut,
    "descriptions": DescriptionsReadOut,
}


def readout_kind(config: Any, task: TaskConfig) -> ReadOutKind:
    """The read-out that was asked for, or the one the checkpoint was made for.

    Args:
        config: the model's, as transformers reads it.
        task: what the model is to do.

    Raises:
        ConfigError: if a model that cannot write is to learn text.
    """
    writes: ReadOutKind = "continuation"
    if getattr(config, "is_encoder_decoder", False):
        writes = "encoder-decoder"
    architecture = (getattr(config, "architectures", None) or [""])[0]
    made_for: ReadOutKind = "descriptions"
    for ending, kind in _ENDINGS.items():
        if architecture.endswith(ending):
            made_for = kind
    if task.kind != "classification":
        return _kind_that_writes(writes, made_for, task)
    if task.readout == "continuation":
        return writes
    if task.readout != "auto":
        return task.readout
    return made_for


def _kind_that_writes(writes: ReadOutKind, made_for: ReadOutKind, task: TaskConfig) -> ReadOutKind:
    if made_for != writes:
        raise ConfigError(
            f"task.kind: {task.kind} needs a model that writes text, and model.name is none; "
            "expected a checkpoint of a causal or an encoder-decoder language model."
        )
    if writes == "encoder-decoder" and task.kind in ("chat", "language-modelling"):
        raise ConfigError(
            f"task.kind: {task.kind} needs a causal language model; an encoder-decoder can learn "
            "task.kind: completion."
        )
    return writes


def make_readout(
    kind: ReadOutKind,
    network: nn.Module,
    tokenizer: Any,
    task: TaskConfig,
    data: DataConfig,
    *,
    name: str,
    streamed: bool,
) -> ReadOut:
    """The read-out.

    Args:
        network: as transformers loaded it.
        name: where it is from, for what its folder says beside.
        streamed: whether its weights are fetched for every use.

    Raises:
        ConfigError: if template, labels, texts or tokenizer do not go together.
    """
    if task.kind != "classification":
        return _of_sequences(kind, network, tokenizer, task, data, streamed=streamed)
    words = list(task.labels.values())
    if kind == "descriptions":
        network = _with_label_vectors(network, tokenizer, words, name)
    pairs = data.second is not None
    return _CLASSIFYING[kind](
        network, tokenizer, words, task.template, data.max_length, pairs=pairs
    )


def _with_label_vectors(
    network: nn.Module, tokenizer: Any, words: list[str], name: str
) -> EncoderClassifier:
    pooling = pooling_of(name)
    vectors = describe_labels(network, tokenizer, pooling, words)
    return EncoderClassifier(network, pooling, vectors).to(next(network.parameters()).device)


def _of_sequences(
    kind: ReadOutKind,
    network: nn.Module,
    tokenizer: Any,
    task: TaskConfig,
    data: DataConfig,
    *,
    streamed: bool,
) -> ReadOut:
    make = CausalJoining if kind == "continuation" else EncoderDecoderJoining
    most = data.max_length - 1
    if task.kind in ("chat", "language-modelling"):
        joining = make(tokenizer, most, most, whole=streamed)
        read_out = ChatReadOut if task.kind == "chat" else DocumentReadOut
        return read_out(network, joining)
    joining = make(tokenizer, most, data.max_completion_length, whole=streamed)
    if task.kind == "completion":
        return CompletionReadOut(network, joining)
    return ChoicesReadOut(network, joining, options=task.options)
