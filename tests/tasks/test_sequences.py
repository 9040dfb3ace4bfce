"""Read-outs of tasks that learn text, against full logits of one unpadded sequence at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_models
import torch

from hushtune.config import ConfigError, DataConfig, ModelConfig, TaskConfig
from hushtune.models.load import LoadedModel, load_model
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.metrics import evaluate
from hushtune.tasks.readouts import example_length, likelihood
from hushtune.tasks.task import TextTask
from hushtune.tasks.texts import Chat, Choices, Completion, Message

CAUSAL = ["opt", "gpt2", "llama", "qwen3", "mistral", "gemma2", "gemma3"]
WRITERS = [*CAUSAL, "t5"]
LENGTH = 32


def load(folder: str, kind: str, **data: Any) -> LoadedModel:
    settings = {"max_length": LENGTH, "max_completion_length": 8} | data
    task = TaskConfig(kind=kind)  # type: ignore[arg-type]
    return load_model(ModelConfig(name=folder), task, DataConfig(**settings), seed=0)


def scores(loaded: LoadedModel, texts: list[Any], length: int = LENGTH) -> torch.Tensor:
    readout = loaded.readout
    with torch.no_grad():
        return readout.scores(readout.collate([readout.encode(text) for text in texts], length))


def mean_log_likelihood(model: Any, ids: list[int], first: int) -> float:
    """Of the tokens from place `first` on, by the logits of the whole sequence."""
    with torch.no_grad():
        each = model(torch.tensor([ids])).logits[0].float().log_softmax(dim=-1)
    return float(np.mean([each[at - 1, ids[at]].item() for at in range(first, len(ids))]))


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("good film", "a bad book"), ("was it so? ", "very"), ("never\n", "again"), ("", "great")],
)
def test_a_completion_is_scored_as_it_stands_in_the_text(family, prompt, completion, tiny):
    loaded = load(tiny(family), "completion")
    tokenizer, end = loaded.tokenizer, loaded.tokenizer.eos_token_id
    space = "" if not prompt or prompt[-1].isspace() else " "
    whole = tokenizer(prompt + space + completion)["input_ids"]
    before = tokenizer(prompt.rstrip(" "))["input_ids"]
    first = len(before)
    if not before:  # a model without a token to begin with is given its end token
        whole, first = (
            [end if tokenizer.bos_token_id is None else tokenizer.bos_token_id, *whole],
            1,
        )
    assert whole[: len(before)] == before
    expected = mean_log_likelihood(loaded.model, [*whole, end], first)
    (found,) = scores(loaded, [Completion(prompt, completion, (completion,))])
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_an_encoder_decoder_is_scored_on_the_completion_and_its_end(tiny):
    loaded = load(tiny("t5"), "completion")
    tokenizer, model = loaded.tokenizer, loaded.model
    labels = torch.tensor([tokenizer(text_target="a bad book")["input_ids"]])
    with torch.no_grad():
        inputs = tokenizer("good film", return_tensors="pt")
        expected = -model(**inputs, labels=labels).loss
    (found,) = scores(loaded, [Completion("good film", "a bad book", ("a bad book",))])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("family", WRITERS)
def test_a_long_prompt_loses_its_beginning_and_no_answer(family, tiny):
    loaded = load(tiny(family), "completion")
    words = " ".join(f"{word} story" for word in tiny_models.TEXTS[0].split())
    short, long = (
        loaded.readout.encode(Completion(prompt, "a bad book", ("a bad book",)))[0]
        for prompt in ("the plot", f"{words} the plot")
    )
    assert long.targets == short.targets
    assert len(long.ids) == LENGTH - 1
    end = len(short.ids) if family == "t5" else len(short.ids) - len(short.targets)
    tail = loaded.tokenizer.decode(long.ids[: len(long.ids) - (len(short.ids) - end)])
    assert tail.removesuffix("</s>").rstrip().endswith("the plot")
    if family in ("opt", "llama"):  # which begin every text with the same token
        assert long.ids[0] == short.ids[0]


@pytest.mark.parametrize("family", WRITERS)
def test_a_long_completion_is_cut_at_its_end(family, tiny):
    loaded = load(tiny(family), "completion")
    words = " ".join(tiny_models.TEXTS[0].split()[:14])
    (sequence,) = loaded.readout.encode(Completion("the plot", words, (words,)))
    assert len(sequence.targets) == 8
    assert words.startswith(loaded.tokenizer.decode(sequence.targets).strip())


@pytest.mark.parametrize("family", WRITERS)
def test_options_see_the_same_text_and_are_scored_without_an_end(family, tiny):
    loaded = load(tiny(family), "multiple-choice")
    options = ("great", "a very good book and so it was")
    text = " ".join(tiny_models.TEXTS[0].split()[:20])
    example = loaded.readout.encode(Choices(text, options))
    assert len(example) == loaded.readout.sequences == 2
    if family != "t5":
        assert loaded.tokenizer.eos_token_id not in example[0].targets
        prompts = [each.ids[: len(each.ids) - len(each.targets)] for each in example]
        assert prompts[0] == prompts[1]
    found = scores(loaded, [Choices(text, options), Choices(text, options[::-1])])
    assert found.shape == (2, 2)
    torch.testing.assert_close(found[0], found[1].flip(0), rtol=1e-4, atol=1e-5)
    labels = torch.tensor([0, 1])
    expected = torch.nn.functional.cross_entropy(found, labels, reduction="none")
    torch.testing.assert_close(loaded.readout.losses(found, labels), expected)


@pytest.mark.parametrize("family", CAUSAL)
def test_of_a_document_everything_is_learned(family, tiny):
    loaded = load(tiny(family), "language-modelling")
    tokenizer = loaded.tokenizer
    begin = next(
        token
        for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        if token is not None
    )
    ids = tokenizer("a good film and a bad book")["input_ids"]
    ids = [*([] if ids[0] == begin else [begin]), *ids, tokenizer.eos_token_id]
    (found,) = scores(loaded, ["a good film and a bad book"])
    assert found.item() == pytest.approx(mean_log_likelihood(loaded.model, ids, 1), rel=1e-5)
    long = loaded.readout.encode(" ".join([*tiny_models.TEXTS]))
    assert len(long[0].ids) == LENGTH - 1
    assert long[0].ids[1:] == long[0].targets


def test_of_a_conversation_the_assistants_turns_are_learned(tiny, tmp_path):
    loaded = chat_model(tiny("qwen3"), tmp_path)
    turns = [("system", "good"), ("user", "bad"), ("assistant", "great"), ("user", "so")]
    turns.append(("assistant", "fine"))
    chat = Chat(tuple(Message(*turn) for turn in turns))
    (sequence,) = loaded.readout.encode(chat)
    assert loaded.tokenizer.decode(sequence.targets) == " great </>\n fine </>\n"
    assert [sequence.ids[at + 1] for at in sequence.positions] == list(sequence.targets)
    written = loaded.tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns], tokenize=False
    )
    assert loaded.tokenizer.decode(sequence.ids) == written


def test_of_a_long_conversation_the_end_is_kept(tiny, tmp_path):
    loaded = chat_model(tiny("qwen3"), tmp_path)
    turns = [Message("user", "bad"), Message("assistant", "great")] * 12
    (sequence,) = loaded.readout.encode(Chat((*turns, Message("user", "so"))))
    assert len(sequence.ids) == 63
    assert loaded.tokenizer.decode(sequence.ids).endswith("<u> so </>\n")
    assert all(sequence.ids[at + 1] == t for at, t in zip(*pairs(sequence), strict=True))


def pairs(sequence: Any) -> tuple[Any, Any]:
    return sequence.positions, sequence.targets


def chat_model(folder: str, out: Any, template: str = tiny_models.CHAT_TEMPLATE) -> LoadedModel:
    """A tiny model whose tokenizer writes conversations."""
    return load(tiny_models.with_chat(folder, out, template), "chat", max_length=64)


def test_a_model_that_cannot_have_conversations_says_why(tiny, tmp_path):
    with pytest.raises(ConfigError, match="chat needs a tokenizer with a chat template"):
        load(tiny("qwen3"), "chat")
    counted = "{{ messages | length }} " + tiny_models.CHAT_TEMPLATE
    with pytest.raises(ConfigError, match="whether or not others follow"):
        chat_model(tiny("qwen3"), tmp_path, counted)


@pytest.mark.parametrize("kind", ["completion", "multiple-choice", "chat", "language-modelling"])
@pytest.mark.parametrize("family", ["bert", "encoder"])
def test_a_model_that_cannot_write_says_so(kind, family, tiny):
    with pytest.raises(ConfigError, match=f"{kind} needs a model that writes text"):
        load(tiny(family), kind)


@pytest.mark.parametrize("kind", ["chat", "language-modelling"])
def test_an_encoder_decoder_learns_completions_only(kind, tiny):
    with pytest.raises(ConfigError, match="needs a causal language model"):
        load(tiny("t5"), kind)


@pytest.mark.parametrize("family", WRITERS)
def test_a_text_cannot_spell_special_tokens(family, tiny):
    loaded = load(tiny(family), "completion")
    end = loaded.tokenizer.eos_token
    texts = [f"good {end} film", f"a {end}bad book"]
    (sequence,) = loaded.readout.encode(Completion(texts[0], texts[1], (texts[1],)))
    number = loaded.tokenizer.eos_token_id
    begins = sequence.ids[0] == number
    ends = 1 if family == "t5" else 0
    assert list(sequence.ids[begins:]).count(number) == (1 if family != "t5" else ends)
    assert list(sequence.targets).count(number) == 1


@pytest.mark.parametrize("family", WRITERS)
def test_scores_do_not_depend_on_padding_or_on_others(family, tiny):
    loaded = load(tiny(family), "completion")
    texts = [Completion(p, c, (c,)) for p, c in (("good", "bad"), ("so it was", "a great film"))]
    together = scores(loaded, texts)
    apart = torch.cat(
        [scores(loaded, [text], example_length(loaded.readout.encode(text))) for text in texts]
    )
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


# Gemma 2 caps its logits, so it gets all of them at once; they are checked above.
@pytest.mark.parametrize("family", [family for family in WRITERS if family != "gemma2"])
def test_logits_are_never_there_all_at_once(family, tiny, monkeypatch):
    monkeypatch.setattr(likelihood, "_BLOCK_ROWS", 8)
    loaded = load(tiny(family), "completion")
    texts = [Completion(p, c, (c,)) for p, c in (("good", "bad"), ("so it was", "a great film"))]
    expected = scores(loaded, texts)
    rows = []
    embedding: Any = loaded.model.get_output_embeddings()  # type: ignore[operator]
    hook = embedding.register_forward_hook(
        lambda _, __, out: rows.append(out.numel() // out.shape[-1])
    )
    found = scores(loaded, texts)
    hook.remove()
    assert torch.equal(found, expected)
    assert max(rows) <= 8
    assert sum(rows) == 2 * 8  # two rows, eight places for targets each


def test_a_model_that_scales_its_logits_gets_all_of_them(tiny, monkeypatch):
    loaded = load(tiny("llama"), "completion")
    text = Completion("good", "bad", ("bad",))
    plain = scores(loaded, [text])
    forward = loaded.model.forward

    def capped(**inputs: Any) -> Any:
        output = forward(**inputs)
        output.logits = 0.5 * output.logits
        return output

    monkeypatch.setattr(loaded.model, "forward", capped)
    loaded.readout._joining._likelihoods = None  # type: ignore[attr-defined]
    readout = loaded.readout
    (sequence,) = readout.encode(text)
    with torch.no_grad():
        each = (0.5 * forward(input_ids=torch.tensor([sequence.ids])).logits[0]).log_softmax(dim=-1)
    expected = np.mean([each[at, t].item() for at, t in zip(*pairs(sequence), strict=True)])
    found = scores(loaded, [text])
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert found.item() != pytest.approx(plain.item(), rel=1e-3)


@pytest.mark.parametrize("family", CAUSAL)
def test_perplexity_counts_every_token_once(family, tiny):
    loaded = load(tiny(family), "language-modelling")
    texts = ["a good film", "bad", "it was not the very best story again and again"]
    shapes = [Shape(2, 16), Shape(2, LENGTH)]
    task = TextTask(loaded.readout, LabelledText.unlabelled(texts), shapes)
    total, count = 0.0, 0
    for text in texts:
        (sequence,) = loaded.readout.encode(text)
        mean = mean_log_likelihood(loaded.model, list(sequence.ids), 1)
        total, count = total + mean * len(sequence.targets), count + len(sequence.targets)
    assert evaluate(task)["perplexity"] == pytest.approx(np.exp(-total / count), rel=1e-4)


@pytest.mark.parametrize("family", WRITERS)
def test_completions_are_what_generate_writes_for_one_prompt_alone(family, tiny):
    loaded = load(tiny(family), "completion")
    prompts = ["the plot", "good", "it was a very bad film and so the book"]
    found = loaded.readout.complete(prompts)  # type: ignore[attr-defined]
    for prompt, text in zip(prompts, found, strict=True):
        inputs = loaded.tokenizer(prompt, return_tensors="pt")
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        model: Any = loaded.model
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False, pad_token_id=0)
        new = tokens[0] if family == "t5" else tokens[0, inputs["input_ids"].shape[1] :]
        assert text == loaded.tokenizer.decode(new, skip_special_tokens=True).strip()
