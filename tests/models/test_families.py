"""Families of models through the command line: train, load elsewhere, replay, evaluate."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from commands import command
from conftest import write_reviews
from torch import Tensor

import hushtune
from hushtune.cli import main
from hushtune.config import ADAPTERS
from hushtune.run import replay
from hushtune.session import Session


@dataclass(frozen=True)
class Case:
    """A run: a family, what moves, and settings that differ from the short default."""

    family: str
    tune: str
    settings: tuple[str, ...] = ()
    words: tuple[str, str] = tiny_models.SINGLE

    def __str__(self) -> str:
        words = ["several-tokens"] if self.words != tiny_models.SINGLE else []
        values = [value for value in self.settings if not value.startswith("--")]
        return "-".join([self.family, self.tune, *words, *values])


HEAD = ("--task.readout", "head")
BFLOAT16 = ("--model.dtype", "bfloat16")
FLOAT16 = ("--model.dtype", "float16")
ZO = ("--method.name", "dp-zo", "--method.directions", "1")
DPZERO = ("--method.name", "dpzero", "--method.directions", "1")
MEZO = ("--method.name", "mezo", "--privacy.mechanism", "none")
PURE = ("--privacy.mechanism", "laplace")

CASES = [
    Case("bert", "full", DPZERO),
    Case("bert", "bias", ("--method.distribution", "normal")),
    Case("bert", "head", HEAD),
    Case("bert", "lora", HEAD),
    Case("roberta", "lora", BFLOAT16),
    Case("roberta", "full", HEAD + BFLOAT16),
    Case("roberta", "last-1"),
    Case("roberta", "head", ZO),
    Case("opt", "full", ZO + PURE),
    Case("opt", "bias", words=tiny_models.SEVERAL),
    Case("opt", "lora", HEAD + FLOAT16),
    Case("opt", "full", FLOAT16),
    Case("gpt2", "lora", BFLOAT16),
    Case("gpt2", "full", ("--method.distribution", "sphere"), words=tiny_models.SEVERAL),
    Case("gpt2", "head", HEAD + MEZO),
    Case("llama", "lora", words=tiny_models.SEVERAL),
    Case("llama", "head"),
    Case("qwen3", "full", BFLOAT16),
    Case("qwen3", "last-1", MEZO),
    Case("t5", "full"),
    Case("t5", "lora", words=tiny_models.SEVERAL),
    Case("t5", "last-1", HEAD),
    Case("t5", "lora", HEAD),
    Case("mistral", "lora"),
    Case("mistral", "full", BFLOAT16),
    Case("gemma2", "full"),
    Case("gemma3", "lora", words=tiny_models.SEVERAL),
    Case("gemma3", "last-1"),
    Case("deberta", "full"),
    Case("deberta", "lora", HEAD),
    Case("modernbert", "full"),
    Case("modernbert", "lora", HEAD),
    Case("opt", "dora"),
    Case("roberta", "dora", HEAD),
    Case("encoder", "dora"),
    Case("gpt2", "ia3"),
    Case("bert", "ia3", HEAD),
    Case("t5", "ia3", words=tiny_models.SEVERAL),
    Case("encoder", "ia3"),
    *(Case(family, "prompt") for family in ("bert", "roberta", "deberta", "modernbert")),
    *(Case(family, "prompt", HEAD) for family in ("bert", "roberta", "deberta", "modernbert")),
    *(Case(family, "prefix") for family in ("bert", "roberta")),
    *(Case(family, "prefix", HEAD) for family in ("bert", "roberta")),
    *(
        Case(family, tune, words=words)
        for tune in ("prompt", "prefix")
        for family, words in (
            ("opt", tiny_models.SINGLE),
            ("gpt2", tiny_models.SEVERAL),
            ("llama", tiny_models.SEVERAL),
            ("qwen3", tiny_models.SINGLE),
            ("gemma2", tiny_models.SEVERAL),
            ("gemma3", tiny_models.SINGLE),
            ("t5", tiny_models.SEVERAL),
            ("encoder", tiny_models.SINGLE),
        )
    ),
    *(Case(family, "prefix", HEAD) for family in ("opt", "gpt2", "llama", "qwen3")),
    Case("gpt2", "prompt", BFLOAT16),
    Case("roberta", "prompt", BFLOAT16 + HEAD),
    Case("t5", "prefix", BFLOAT16),
    Case("llama", "prefix", FLOAT16),
    Case("encoder", "head", PURE),
    Case("encoder", "lora"),
    Case("encoder", "full", BFLOAT16),
    Case("encoder", "last-1"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_reviews(tmp_path_factory.mktemp("data") / "train.jsonl", 12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_family_trains_loads_elsewhere_replays_and_evaluates(
    case: Case, tiny, data: str, tmp_path: Path, capsys
):
    run, again = tmp_path / "run", tmp_path / "again"
    folder = tiny(case.family)
    command(capsys, "train", *_flags(case, folder, data, run))
    kind = "adapter" if case.tune in ADAPTERS else "model"
    assert not (run / ({"adapter", "model"} - {kind}).pop()).exists()

    session = replay(run / "ledger.jsonl", model=None, out=again)
    files = sorted(path.relative_to(run) for path in (run / kind).rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(again) for p in (again / kind).rglob("*") if p.is_file())
    for name in files:
        assert (run / name).read_bytes() == (again / name).read_bytes(), name

    if "dpzero" in case.settings:
        assert session.settings.distribution == "sphere"
    assert any(parameter.abs().sum() > 0 for parameter in session.parameters.values())
    inputs = _inputs(session)
    with torch.no_grad():
        expected = _network(session)(**inputs)[0]
        found = _loaded_elsewhere(case, session, folder, run / kind)(**inputs)[0]
    assert torch.equal(expected, found)

    public = shutil.copy(data, tmp_path / "public.jsonl")
    result = command(capsys, "eval", str(run), "--data", str(public))
    assert result["rows"] == 12
    assert len(hushtune.load(run).predict(["a good film", "a bad book"])) == 2


def _flags(case: Case, folder: str, data: str, run: Path) -> list[str]:
    privacy = [] if "mezo" in case.settings else ["--privacy.epsilon", "4"]
    directions = [] if "--method.directions" in case.settings else ["--method.directions", "2"]
    return [
        "--model.name", folder, "--model.tune", case.tune, "--data.train", data,
        "--data.max-length", "32", "--task.labels", "negative", case.words[0],
        "positive", case.words[1], "--method.steps", "3", "--method.batch", "6",
        "--output", str(run), *privacy, *directions, *case.settings,
    ]  # fmt: skip


def _inputs(session: Session) -> dict[str, Tensor]:
    readout: Any = session.loaded.readout
    inputs = readout.collate([readout.encode("a good film"), readout.encode("bad")], 32)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if session.loaded.kind == "encoder-decoder":
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :4]
    return inputs


def _network(session: Session) -> Any:
    """The tuned network, without hushtune's own classifier around it."""
    model: Any = session.loaded.model
    return model.encoder if session.loaded.kind == "descriptions" else model


def _loaded_elsewhere(case: Case, session: Session, folder: str, saved: Path) -> Any:
    """What a person gets who has transformers and PEFT, and has never heard of hushtune."""
    import peft
    import transformers

    auto = {
        "mask": transformers.AutoModelForMaskedLM,
        "continuation": transformers.AutoModelForCausalLM,
        "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
        "head": transformers.AutoModelForSequenceClassification,
        "descriptions": transformers.AutoModel,
    }[session.loaded.kind]
    if case.tune not in ADAPTERS:
        return auto.from_pretrained(saved).eval()
    named = [value for value in case.settings if value in ("bfloat16", "float16")]
    dtype = getattr(torch, named[0]) if named else torch.float32
    plain = auto.from_pretrained(folder, dtype=dtype)
    if getattr(plain.config, "pad_token_id", None) is None:
        plain.config.pad_token_id = session.loaded.tokenizer.pad_token_id
    return peft.PeftModel.from_pretrained(plain, str(saved)).eval()


def test_a_tuned_encoder_serves_the_scores_of_its_labels_to_sentence_transformers(
    tiny, data: str, tmp_path: Path, capsys
):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    run = tmp_path / "run"
    case = Case("encoder", "full")
    command(capsys, "train", *_flags(case, tiny("encoder"), data, run))
    texts = ["a good film", "a bad book", " ".join(["was"] * 60)]
    found = sentence_transformers.SentenceTransformer(str(run / "model"), device="cpu").encode(
        texts, convert_to_tensor=True
    )
    readout = hushtune.load(run).readout
    with torch.no_grad():
        expected = readout.scores(readout.collate([readout.encode(t) for t in texts], 32))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_is_tied_to_the_embeddings_cannot_move_alone(
    tiny, data: str, tmp_path: Path, capsys
):
    for family in ("gpt2", "t5", "qwen3"):
        arguments = _flags(Case(family, "head"), tiny(family), data, tmp_path / family)
        with pytest.raises(SystemExit) as exit_:
            main(["train", *arguments])
        said = capsys.readouterr().err
        assert exit_.value.code == 1
        assert said.count("\n") == 1
        assert "model.tune: head is not accepted" in said
        assert not (tmp_path / family / "ledger.jsonl").exists()


def test_words_cannot_be_read_off_a_checkpoint_without_a_language_model_head(
    tiny, data: str, tmp_path: Path, capsys
):
    case = Case("encoder", "full", ("--task.readout", "mask"))
    with pytest.raises(SystemExit):
        main(["train", *_flags(case, tiny("encoder"), data, tmp_path / "run")])
    assert "holds no weights for cls.predictions" in capsys.readouterr().err
