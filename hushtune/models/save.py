"""Write the tuned model in the ecosystem's own formats."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from hushtune.config import ADAPTERS, ConfigError, same_data
from hushtune.models.encoder import LOGIT_SCALE, EncoderClassifier
from hushtune.models.offload import whole_state
from hushtune.report.card import model_card

if TYPE_CHECKING:
    from hushtune.session import Session

#: Where an encoder's label vectors are kept.
LABEL_VECTORS_FILE = "label_vectors.safetensors"


def save_model(session: Session, folder: Path) -> Path:
    """Write `folder/adapter` (for PEFT) or `folder/model` (for transformers), with a card."""
    target = folder / ("adapter" if session.tune in ADAPTERS else "model")
    refuse_base_folder(folder, session.config.model.name)
    out = target.with_name(target.name + ".part")  # renamed when complete
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    model: Any = session.loaded.model
    # PEFT would ask the hub whether the vocabulary has grown, which it never does here.
    options = {"save_embedding_layers": False} if session.tune in ADAPTERS else {}
    network = model.encoder if isinstance(model, EncoderClassifier) else model
    if session.tune not in ADAPTERS:
        options |= whole_state(network)
    if isinstance(model, EncoderClassifier):
        encoder: Any = model.encoder
        encoder.save_pretrained(out, **options)
        save_label_vectors(model, list(session.config.task.labels), out)
        if session.tune not in ADAPTERS:
            save_sentence_transformers_modules(model, session.loaded.readout.max_tokens, out)
    else:
        model.save_pretrained(out, **options)
    session.loaded.tokenizer.save_pretrained(out)
    header = getattr(session, "header", None)  # a comparison has none
    if header is not None:
        card = model_card(header, tune=session.tune)
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
