"""What all tests share: a tiny encoder, saved as a real checkpoint, and a small data set."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import hypothesis
import pytest

# No test may fail because a machine was slow.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell that starts tests in the background has them ignore interrupts, and processes that a test
# starts and interrupts would ignore them too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# fmt: off
WORDS = [
    "good", "bad", "great", "terrible", "fine", "awful", "film", "book", "food", "place", "was",
    "is", "the", "a", "very", "not", "it", "so", "story", "plot", "actor", "service", "never",
    "always", "again", "simply", "truly", "rather", "quite", "it", "was", "and", "but",
]
# fmt: on


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A randomly initialised BERT encoder with its tokenizer, written by save_pretrained."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def write_reviews(path: Path, rows: int, seed: int = 0) -> str:
    """JSONL with text, label (negative | positive) and user_id, learnable from single words."""
    draw = random.Random(seed)
    with path.open("w") as file:
        for row in range(rows):
            label = draw.choice(["negative", "positive"])
            words = (
                ["bad", "terrible", "awful"] if label == "negative" else ["good", "great", "fine"]
            )
            text = " ".join([*draw.choices(WORDS[8:], k=draw.randint(2, 20)), draw.choice(words)])
            value = {"text": text, "label": label, "user_id": f"u{row % (rows // 3 + 1)}"}
            file.write(json.dumps(value) + "\n")
    return str(path)


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    """A private training file of 60 rows."""
    return write_reviews(tmp_path / "train.jsonl", 60)


@pytest.fixture
def run_arguments(encoder_folder: str, reviews: str, tmp_path: Path) -> list[str]:
    """Flags of a short private run with the tiny encoder; its folder is tmp_path / "run"."""
    return [
        "--model.name",
        encoder_folder,
        "--data.train",
        reviews,
        "--data.max-length",
        "32",
        "--task.labels",
        "negative",
        "it was terrible",
        "positive",
        "it was great",
        "--privacy.epsilon",
        "4",
        "--method.steps",
        "5",
        "--method.directions",
        "4",
        "--method.batch",
        "12",
        "--output",
        str(tmp_path / "run"),
    ]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a tiny model of a family, written once; see `tiny_models`."""
    import tiny_models

    folders: dict[str, str] = {}

    def folder(family: str) -> str:
        if family not in folders:
            folders[family] = tiny_models.save(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return folder
