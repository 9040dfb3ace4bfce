"""Prompts and prefixes: how they start, what they write, and what cannot work is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from torch import Tensor
from virtual_tokens import COUNT, LABELS, TEXTS, configured, load, logits, losses_of, tokens

from hushtune import probe
from hushtune import session as sessions
from hushtune.config import ConfigError, check
from hushtune.loading import load_moving
from hushtune.models.load import LoadedModel
from hushtune.models.moving import base_network
from hushtune.sizing import bytes_a_token
from hushtune.tasks.batches import bucket_shapes
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import likelihood
from hushtune.tasks.texts import Pair
from hushtune.zo.estimators import moves
from hushtune.zo.probe import Slopes

HEAD = {"readout": "head"}


@pytest.mark.parametrize("tune", ["prompt", "prefix"])
@pytest.mark.parametrize("family", ["opt", "gpt2", "llama", "mistral", "gemma3", "t5"])
def test_a_completion_is_written_as_it_is_scored(family, tune, tiny):
    loaded = load(tiny(family), tune, kind="completion")
    readout: Any = loaded.readout
    # Of several lengths, and two of one.
    prompts = [*TEXTS, "was"]
    found = readout.complete(prompts)
    for prompt, text in zip(prompts, found, strict=True):
        written: list[int] = []
        while len(written) < 8 and loaded.tokenizer.eos_token_id not in written:
            before = tokens(loaded, prompt)
            if loaded.kind == "encoder-decoder":
                next_logits = logits(loaded, before, tune, [*written, 0])[-1]
            else:
                next_logits = logits(loaded, before + written, tune)[-1]
            written.append(int(next_logits.argmax()))
        assert loaded.tokenizer.decode(written, skip_special_tokens=True).strip() == text
    assert len({*found}) > 1


@pytest.mark.parametrize("tune", ["prompt", "prefix"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_logits_are_made_a_block_of_positions_at_a_time(family, tune, tiny, monkeypatch):
    monkeypatch.setattr(likelihood, "_BLOCK_ROWS", 4)
    loaded = load(tiny(family), tune, kind="completion")
    texts = [loaded.readout.text_of(text) for text in TEXTS]
    losses_of(loaded, texts)  # finds out whether the model's logits can be made so
    seen: list[int] = []
    head = loaded.model.get_output_embeddings()  # type: ignore[operator]
    head.register_forward_hook(lambda _, __, output: seen.append(output.shape[:-1].numel()))
    losses_of(loaded, texts)
    assert max(seen) == 4 < sum(seen)


@pytest.mark.parametrize("tune", ["prompt", "prefix"])
@pytest.mark.parametrize("family", ["gpt2", "bert", "encoder", "t5"])
def test_virtual_tokens_come_from_the_public_seed_alone(family, tune, tiny):
    def start(seed: int, noise: int) -> Tensor:
        torch.manual_seed(noise)
        config = dataclasses.replace(configured(tiny(family), tune), seed=seed)
        loaded, _, parameters = load_moving(config)
        (name,) = (each for each in parameters if "prompt_encoder." in each)
        if tune == "prompt":
            embeddings = base_network(loaded).get_input_embeddings().weight  # type: ignore[operator]
            special = embeddings[loaded.tokenizer.all_special_ids]
            for row in parameters[name]:
                assert (row == embeddings).all(dim=1).any()
                assert not (row == special).all(dim=1).any()
        return parameters[name].detach()

    one = start(0, 0)
    assert one.dtype == torch.float32
    assert len(one) == COUNT == len(one.unique(dim=0))
    assert torch.equal(one, start(0, 1))
    assert not torch.equal(one, start(1, 0))
    if tune == "prefix":
        assert 0.01 < one.std() < 0.03


@pytest.mark.parametrize("tune", ["prompt", "prefix"])
def test_a_model_is_told_which_of_two_texts_a_token_is_of(tune, tiny, tmp_path: Path):
    folder = tiny_models.with_types(tiny("bert"), tmp_path / "typed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pair = Pair("a very good film", "so bad")

    def loaded(**task: str) -> LoadedModel:
        config = configured(folder, tune, **task)
        data = dataclasses.replace(config.data, second="other")
        return load_moving(dataclasses.replace(config, data=data))[0]

    head = loaded(readout="head")
    inputs = head.readout.collate([head.readout.encode(pair)], 24)
    plain = tokenizer(pair.first, pair.second, return_tensors="pt", return_token_type_ids=True)
    assert plain["token_type_ids"].sum() == 3
    with torch.inference_mode():
        expected = head.model(**plain).logits
        torch.testing.assert_close(head.readout.scores(inputs), expected, rtol=1e-4, atol=1e-6)
    # A template is one text, and PEFT would warn of types that it cannot use.
    mask = loaded().readout
    with torch.inference_mode():
        assert mask.scores(mask.collate([mask.encode(pair)], 24)).isfinite().all()


def test_a_prefix_has_the_shape_of_the_decoder(tiny, tmp_path: Path):
    # PEFT alone would take d_model / num_heads for the width of a head, and count the encoder.
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("t5"))
    tokenizer.save_pretrained(tmp_path)
    settings = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 3, "num_layers": 1}
    settings |= {"num_decoder_layers": 3, "decoder_start_token_id": 0}
    config = transformers.T5Config(vocab_size=len(tokenizer), pad_token_id=0, **settings)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    loaded = load(str(tmp_path), "prefix")
    prefix = dict(loaded.model.named_parameters())["prompt_encoder.default.embedding.weight"]
    assert prefix.shape == (COUNT, 2 * 3 * 3 * 8)
    assert losses_of(loaded, TEXTS).isfinite().all()


def test_a_prompt_is_as_wide_as_the_embeddings(tiny, tmp_path: Path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("opt"))
    tokenizer.save_pretrained(tmp_path)
    config = transformers.OPTConfig.from_pretrained(tiny("opt"), word_embed_proj_dim=16)
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path)
    loaded = load(str(tmp_path), "prompt")
    prompt = dict(loaded.model.named_parameters())["prompt_encoder.default.embedding.weight"]
    assert prompt.shape == (COUNT, 16)
    assert losses_of(loaded, TEXTS).isfinite().all()


@pytest.mark.parametrize(
    ("family", "tune", "settings", "reason"),
    [
        # These heads look for the last token of a text among its tokens.
        *(
            (family, "prompt", HEAD, "would depend on the padding behind a text")
            for family in ("opt", "gpt2", "llama", "qwen3")
        ),
        ("llama", "prompt", HEAD | {"dtype": "bfloat16"}, "would depend on the padding"),
        ("t5", "prompt", HEAD, "Passing input embeddings is currently not supported"),
        ("t5", "prefix", HEAD, "size of tensor"),
        ("deberta", "prefix", {}, "size of tensor"),
        ("deberta", "prefix", HEAD, "Model does not support past key values"),
        ("modernbert", "prefix", {}, "size of tensor"),
        ("modernbert", "prefix", HEAD, "Model does not support past key values"),
    ],
)
def test_what_does_not_work_is_refused_by_name(family, tune, settings, reason, tiny):
    with pytest.raises(ConfigError) as refused:
        load_moving(configured(tiny(family), tune, **settings))
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(f"model.tune: {tune} is not accepted for a ")
    plain = load_moving(configured(tiny(family), "full", **settings))[0].model
    assert type(plain).__name__ in said
    assert reason in said


def test_a_model_that_ignores_its_prefix_is_refused(tiny, monkeypatch):
    forward = transformers.BertModel.forward

    def without(self, *arguments, past_key_values=None, attention_mask=None, **rest):
        text = attention_mask[:, -rest["input_ids"].shape[1] :]
        return forward(self, *arguments, attention_mask=text, **rest)

    monkeypatch.setattr(transformers.BertModel, "forward", without)
    with pytest.raises(ConfigError, match="its scores do not depend on them"):
        load_moving(configured(tiny("encoder"), "prefix"))


@pytest.mark.parametrize("tune", ["prompt", "prefix"])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "opt"])
def test_virtual_tokens_take_positions(family, tune, tiny):
    # The models have 64.
    longest = load(tiny(family), tune, max_length=64 - COUNT)
    rows = [longest.readout.encode(" ".join(["was"] * 99))]
    with torch.inference_mode():
        assert longest.readout.scores(longest.readout.collate(rows, 64 - COUNT)).isfinite().all()
    message = rf"data.max_length: {65 - COUNT} is not accepted with {COUNT} virtual tokens; .* 64 "
    with pytest.raises(ConfigError, match=message):
        load_moving(configured(tiny(family), tune, max_length=65 - COUNT))


def test_settings_that_do_not_go_together_are_refused():
    for model, message in [
        ({"tune": "prompt", "virtual_tokens": 0}, "model.virtual_tokens: 0 is not accepted"),
        ({"tune": "prompt", "offload": "disk"}, "none with model.tune prompt"),
        ({"tune": "p-tuning"}, "prompt, prefix, head"),
    ]:
        config = configured("x", "lora")
        with pytest.raises(ConfigError, match=message):
            check(dataclasses.replace(config, model=dataclasses.replace(config.model, **model)))


@pytest.mark.parametrize(("tune", "several"), [("prompt", False), ("prefix", True)])
@pytest.mark.parametrize("family", ["gpt2", "encoder", "t5"])
def test_a_pass_has_several_directions_with_a_prefix_and_one_with_a_prompt(
    family, tune, several, tiny, monkeypatch
):
    chosen = 1e-3, Slopes(typical=1.0, agreement=1.0)
    monkeypatch.setattr(probe, "choose_scale", lambda *_, **__: chosen)
    monkeypatch.setattr(probe, "pays", lambda *_: True)
    session = sessions.begin(configured(tiny(family), tune), units=12)
    assert any(shape.directions > 1 for shape in session.shapes) is several
    assert any(shape.rows > 1 for shape in session.shapes)
    data = LabelledText(TEXTS, np.array(LABELS), np.arange(3))
    losses = session.losses(session.task(data))
    values = losses.at(np.arange(3), moves("two-sided", 4, 1e-2), charge=1)
    assert len(np.unique(values[0])) == 8
    for row in range(3):
        alone = losses.at(np.array([row]), moves("two-sided", 4, 1e-2), charge=1)
        assert np.array_equal(alone, values[[row]])


def test_micro_batches_have_room_for_virtual_tokens():
    wanted = {"max_length": 128, "tokens": 512, "sequences": 1, "expected_rows": 256}
    for plain, longer in zip(
        bucket_shapes(**wanted), bucket_shapes(**wanted, added=20), strict=True
    ):
        assert plain.length == longer.length
        assert longer.rows == 1 or longer.rows * (longer.length + 20) <= 512
        assert longer.rows <= plain.rows
    config = transformers.LlamaConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    )
    more = bytes_a_token(config, 2, 128, keeps_keys=True) - bytes_a_token(config, 2, 128)
    assert more == 2 * 3 * 2 * 2 * 16  # keys and values, layers, bytes, heads, width
