"""Read-outs against plain references: full logits, one label at a time."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch

from hushtune.config import ConfigError, DataConfig, ModelConfig, TaskConfig
from hushtune.models.load import LoadedModel, load_model
from hushtune.tasks.readouts import example_length
from hushtune.tasks.readouts.template import Template

LONG = " ".join(["was"] * 60)
TEXTS = ["a good film", "bad", LONG, "zebra (never again)."]


def _load(folder: str, words=tiny_models.SINGLE, template: str = "", length: int = 32, **task):
    labels = dict(zip(("negative", "positive"), words, strict=True))
    task = TaskConfig(labels=labels, template=template, **task)
    return load_model(ModelConfig(name=folder), task, DataConfig(max_length=length), seed=0)


def _scores(loaded: LoadedModel, texts: list[str], length: int = 32) -> torch.Tensor:
    readout = loaded.readout
    with torch.no_grad():
        return readout.scores(readout.collate([readout.encode(text) for text in texts], length))


def _shortened(loaded: LoadedModel, text: str, fill, most: int) -> list[int]:
    """The longest prefix of the text, by words, that fits."""
    words = text.split(" ")
    while True:
        ids = loaded.tokenizer(fill(" ".join(words)))["input_ids"]
        if len(ids) <= most:
            return ids
        words.pop()


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("template", ["", "They said {label} about {text}."])
def test_mask_scores_are_the_logits_of_the_words_at_the_mask(family, template, tiny):
    loaded = _load(tiny(family), template=template)
    tokenizer, model = loaded.tokenizer, loaded.model
    pattern = template or "{text} It was {label}."
    for text, scores in zip(TEXTS, _scores(loaded, TEXTS), strict=True):
        ids = _shortened(loaded, text, lambda part: pattern.format(text=part, label="terrible"), 31)
        word = [
            tokenizer(f" {w}", add_special_tokens=False)["input_ids"] for w in ("terrible", "great")
        ]
        ((terrible,), (great,)) = word
        place = ids.index(terrible)
        ids[place] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, place]
        torch.testing.assert_close(scores, logits[[terrible, great]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("words", [tiny_models.SINGLE, tiny_models.SEVERAL])
@pytest.mark.parametrize("family", ["opt", "gpt2", "llama", "qwen3"])
def test_continuation_scores_are_log_likelihoods_of_the_labels(family, words, tiny):
    loaded = _load(tiny(family), words)
    tokenizer = loaded.tokenizer
    sizes = [len(tokenizer(f" {w}", add_special_tokens=False)["input_ids"]) for w in words]
    room = 31 - (max(sizes) if max(sizes) > 1 else 0)
    for text, scores in zip(TEXTS, _scores(loaded, TEXTS), strict=True):
        prompt = _shortened(loaded, text, lambda part: f"{part} It was", room)
        reference = []
        for word in words:
            label = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            ids = torch.tensor([prompt + label])
            with torch.no_grad():
                logs = loaded.model(ids).logits[0].log_softmax(-1)
            reference.append(sum(logs[len(prompt) + k - 1, token] for k, token in enumerate(label)))
        found = scores.log_softmax(-1)
        expected = torch.stack(reference).log_softmax(-1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("words", [tiny_models.SINGLE, tiny_models.SEVERAL])
def test_encoder_decoder_scores_are_log_likelihoods_of_the_labels(words, tiny):
    loaded = _load(tiny("t5"), words)
    for text, scores in zip(TEXTS, _scores(loaded, TEXTS), strict=True):
        ids = _shortened(loaded, text, lambda part: f"{part} It was", 31)
        expected = []
        for word in words:
            labels = torch.tensor([loaded.tokenizer(word)["input_ids"]])
            with torch.no_grad():
                loss = loaded.model(input_ids=torch.tensor([ids]), labels=labels).loss
            expected.append(-loss * labels.shape[1])
        torch.testing.assert_close(scores, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "opt", "gpt2", "t5"])
def test_head_scores_do_not_depend_on_padding(family, tiny):
    loaded = _load(tiny(family), readout="head")
    for text, scores in zip(TEXTS, _scores(loaded, TEXTS), strict=True):
        ids = _shortened(loaded, text, str, 31)
        with torch.no_grad():
            logits = loaded.model(torch.tensor([ids])).logits[0]
        torch.testing.assert_close(scores, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "t5"])
def test_a_long_text_loses_its_end_and_nothing_else(family, tiny):
    loaded = _load(tiny(family), tiny_models.SINGLE)
    (sequence,) = loaded.readout.encode(LONG)
    assert example_length((sequence,)) == 32
    text = loaded.tokenizer.decode(sequence.ids).replace(" ", "")
    assert text.count("was") > 7
    assert "Itwas" in text


@pytest.mark.parametrize("family", list(tiny_models.FAMILIES)[:-1])
def test_special_tokens_that_a_text_spells_out_are_spaces(family, tiny):
    loaded = _load(tiny(family))
    readout: Any = loaded.readout
    for token in loaded.tokenizer.all_special_tokens:
        assert readout.encode(f"good {token} film") == readout.encode("good   film")


def test_a_text_cannot_end_a_t5_classification_early(tiny):
    # transformers refuses a batch in which the numbers of end tokens differ.
    loaded = _load(tiny("t5"), readout="head")
    scores = _scores(loaded, ["good </s> film", "bad"])
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize(("template", "label"), [
    ("no field", "optional"), ("{text} {text}", "optional"), ("{text} {other}", "optional"),
    ("{text}", "required"), ("{label}: {text}", "last"), ("{text", "optional"),
    ("{text!r}", "optional"), ("{text} {label} {label}", "last"),
])  # fmt: skip
def test_templates_that_would_lose_text_or_label_are_refused(template, label):
    with pytest.raises(ConfigError, match=r"task\.template"):
        Template(template, "", label=label)


@pytest.mark.parametrize(("family", "words", "message"), [
    ("bert", ("great film", "bad"), "'great film' is not one token"),
    ("bert", ("zebra", "bad"), "'zebra' is not one token"),
    ("roberta", ("good", "good"), "same token"),
    ("gpt2", ("good", "good"), "same tokens"),
    ("t5", ("good", " good"), "same tokens"),
])  # fmt: skip
def test_label_words_that_cannot_be_told_apart_are_refused(family, words, message, tiny):
    with pytest.raises(ConfigError, match=message):
        _load(tiny(family), words)


def test_a_template_longer_than_the_maximal_length_is_refused(tiny):
    loaded = _load(tiny("bert"), template="{text} " + "it was " * 10 + "{label}", length=16)
    with pytest.raises(ConfigError, match=r"data\.max_length: 16 .* at least 24"):
        loaded.readout.encode("good")


@pytest.mark.parametrize(("family", "positions"), [("bert", 64), ("roberta", 64), ("opt", 64)])
def test_texts_longer_than_the_model_has_positions_are_refused(family, positions, tiny):
    _load(tiny(family), length=positions)
    with pytest.raises(ConfigError, match=f"the model has {positions} positions"):
        _load(tiny(family), length=positions + 1)
