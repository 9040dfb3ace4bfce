"""Write the tuned model in the ecosystem's own formats."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import save_file

from hushtune.config import ADAPTERS, Config, ConfigError, same_data
from hushtune.models.encoder import LOGIT_SCALE, EncoderClassifier
from hushtune.models.offload import whole_state

if TYPE_CHECKING:
    from hushtune.models.load import LoadedModel

#: Where an encoder's label vectors are kept.
LABEL_VECTORS_FILE = "label_vectors.safetensors"


class Tuned(Protocol):
    """A run whose model can be saved."""

    @property
    def config(self) -> Config: ...
    @property
    def loaded(self) -> LoadedModel: ...
    @property
    def tune(self) -> str: ...


def save_model(tuned: Tuned, folder: Path, *, card: str | None = None) -> Path:
    """Write `folder/adapter` (for PEFT) or `folder/model` (for transformers).

    Args:
        card: the model card, if there is one.
    """
    target = folder / ("adapter" if tuned.tune in ADAPTERS else "model")
    refuse_base_folder(folder, tuned.config.model.name)
    out = target.with_name(target.name + ".part")  # renamed when complete
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    model: Any = tuned.loaded.model
    # PEFT would ask the hub whether the vocabulary has grown, which it never does here.
    options = {"save_embedding_layers": False} if tuned.tune in ADAPTERS else {}
    network = model.encoder if isinstance(model, EncoderClassifier) else model
    if tuned.tune not in ADAPTERS:
        options |= whole_state(network)
    if isinstance(model, EncoderClassifier):
        encoder: Any = model.encoder
        encoder.save_pretrained(out, **options)
        save_label_vectors(model, list(tuned.config.task.labels), out)
        if tuned.tune not in ADAPTERS:
            save_sentence_transformers_modules(model, tuned.loaded.readout.max_tokens, out)
    else:
        model.save_pretrained(out, **options)
    tuned.loaded.tokenizer.save_pretrained(out)
    if card is not None:
        (out / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    out.rename(target)
    return target


def refuse_base_folder(folder: Path, model: str) -> None:
    """Refuse to write `folder/model` or `folder/adapter` where the base model is.

    Raises:
        ConfigError: if it is there.
    """
    for name in ("model", "adapter"):
        if same_data(str(folder / name), model):
            raise ConfigError(f"output: {folder}/{name} is the base model; choose another folder.")


def save_label_vectors(model: EncoderClassifier, labels: list[str], out: Path) -> None:
    """(labels, width) vectors, with the labels' names in the file's metadata."""
    vectors = model.label_vectors.detach().cpu().contiguous()
    save_file(
        {"label_vectors": vectors},
        out / LABEL_VECTORS_FILE,
        metadata={"labels": json.dumps(labels)},
    )


def save_sentence_transformers_modules(
    model: EncoderClassifier, max_tokens: int, out: Path
) -> None:
    """Describe the classifier to sentence-transformers: encode, pool, normalise, score.

    `SentenceTransformer(folder).encode(texts)` then returns the scores of the labels.
    """
    width, labels = model.label_vectors.shape[1], model.label_vectors.shape[0]
    kinds = ["Transformer", "Pooling", "Normalize", "Dense"]
    paths = ["", "1_Pooling", "2_Normalize", "3_Dense"]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    _write(out / "modules.json", modules)
    _write(
        out / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False}
    )
    _write(
        out / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": model.pooling == "cls",
            "pooling_mode_mean_tokens": model.pooling == "mean",
        },
    )
    os.makedirs(out / "2_Normalize", exist_ok=True)
    _write(
        out / "3_Dense" / "config.json",
        {
            "in_features": width,
            "out_features": labels,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    weight = (LOGIT_SCALE * model.label_vectors.detach()).cpu().contiguous()
    save_file({"linear.weight": weight.to(torch.float32)}, out / "3_Dense" / "model.safetensors")


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
