"""Sums of clipped gradients, against one backward pass an example."""

from __future__ import annotations

import weakref
from contextlib import ExitStack

import first_order
import numpy as np
import pytest
import torch
from first_order import clipped_one_by_one, prepared, require_own_clipped_gradients
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hushtune.comparison import gradients
from hushtune.tasks.batches import Shape

WORDS = ("--task.labels", "negative", "terrible", "positive", "great")
#: Labels of several tokens, so that each has a sequence of its own.
PHRASES = ("--task.labels", "negative", "terrible film", "positive", "great story and truly")


@pytest.fixture
def arguments(run_arguments) -> list[str]:
    return [*run_arguments, *first_order.FLAGS]


@pytest.fixture(autouse=True)
def _opacus():
    pytest.importorskip("opacus")


def with_adapters_that_do_something(comparison) -> None:
    """Where B is zero, as it is at first, A has no gradient."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in comparison.parameters.items():
            if ".lora_B." in name:
                parameter.normal_(0, 0.1, generator=generator)


@pytest.mark.parametrize("tune", ["head", "full", "lora", "last-1", "bias"])
def test_sums_are_of_each_examples_own_clipped_gradient(arguments, tune, monkeypatch):
    monkeypatch.setattr(gradients, "_BLOCK_ROWS", 16)
    comparison, data = prepared(arguments, "--model.tune", tune)
    with_adapters_that_do_something(comparison)
    require_own_clipped_gradients(comparison, data, np.arange(0, 60, 2))


@pytest.mark.parametrize(
    ("family", "tune", "labels"),
    [
        ("bert", "full", WORDS),
        ("bert", "head", WORDS),
        ("opt", "full", WORDS),
        ("opt", "full", PHRASES),
        ("opt", "lora", PHRASES),
        ("gpt2", "full", PHRASES),
        ("qwen3", "full", WORDS),
        ("t5", "lora", WORDS),
        ("gpt2", "prefix", WORDS),
    ],
)
def test_language_models_too_with_their_tied_weights(tiny, arguments, family, tune, labels):
    flags = ("--model.name", tiny(family), *labels, "--model.tune", tune)
    comparison, data = prepared(arguments, *flags)
    with_adapters_that_do_something(comparison)
    assert comparison.loaded.readout.sequences == (2 if labels is PHRASES else 1)
    require_own_clipped_gradients(comparison, data, np.arange(0, 24, 2))


def test_linear_layers_and_embeddings_never_hold_an_examples_gradient(arguments):
    comparison, data = prepared(arguments, "--model.tune", "full")
    names = {id(parameter): name for name, parameter in comparison.parameters.items()}
    with ExitStack() as closing:
        source = comparison.gradients(data, closing)
        held = {names[id(each)] for each in source._hooks.with_gradients()}
    assert held == {name for name in names.values() if "LayerNorm" in name}


def test_a_tied_embedding_and_nothing_else_of_its_kind_holds_them(tiny, arguments):
    flags = ("--model.name", tiny("qwen3"), *WORDS, "--model.tune", "full")
    comparison, data = prepared(arguments, *flags)
    names = {id(parameter): name for name, parameter in comparison.parameters.items()}
    with ExitStack() as closing:
        source = comparison.gradients(data, closing)
        held = {names[id(each)] for each in source._hooks.with_gradients()}
    assert {name for name in held if "norm" not in name} == {"model.embed_tokens.weight"}


# Relative positions and prompts are looked up once for all examples.
@pytest.mark.parametrize(("family", "tune"), [("t5", "full"), ("gpt2", "prompt")])
def test_parameters_without_a_gradient_for_each_example_are_refused(tiny, arguments, family, tune):
    flags = ("--model.name", tiny(family), *WORDS, "--model.tune", tune)
    comparison, data = prepared(arguments, *flags)
    with pytest.raises(ValueError, match="does not find each example's own gradient"):
        comparison.gradients(data, ExitStack())


def test_wrong_norms_are_found_before_the_first_step(arguments, monkeypatch):
    from hushtune.comparison.hooks import GhostHooks

    comparison, data = prepared(arguments, "--model.tune", "lora")
    before = {name: each.detach().clone() for name, each in comparison.parameters.items()}
    right = GhostHooks.NORM_SAMPLERS[nn.Linear]

    rank = comparison.config.model.lora.r

    def of_the_next_example(layer, *given):
        # For A alone, which has no gradient while B is zero.
        turn = int(layer.out_features == rank)
        return {each: norms.roll(turn) for each, norms in right(layer, *given).items()}

    monkeypatch.setitem(GhostHooks.NORM_SAMPLERS, nn.Linear, of_the_next_example)
    with pytest.raises(ValueError, match=r"own gradient in this model \(their norms are others\)"):
        comparison.gradients(data, ExitStack())
    # The trial moves the parameters, and puts them back.
    assert all(torch.equal(each, before[name]) for name, each in comparison.parameters.items())


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_an_example_that_is_not_finite_counts_as_zero(arguments, tune):
    comparison, data = prepared(arguments, "--model.tune", tune)
    words = comparison.loaded.readout.model.get_submodule("encoder").get_input_embeddings().weight
    strange = np.array(["story" in text.split() for text in data.texts])
    rows = np.arange(60)
    assert 5 < strange.sum() < 55
    with ExitStack() as closing:
        source = comparison.gradients(data, closing)
        with torch.no_grad():
            words[comparison.loaded.tokenizer.convert_tokens_to_ids("story")] = float("inf")
        found = source.clipped_sum(rows, 5.0)
        none = source.clipped_sum(rows[strange], 5.0)
    expected, norms = clipped_one_by_one(comparison, data, rows[~strange], 5.0)
    assert np.isfinite(norms).all()
    assert not np.isfinite(clipped_one_by_one(comparison, data, rows[strange], None)[1]).any()
    wrong = gradients.norm_of([one - other for one, other in zip(found, expected, strict=True)])
    assert wrong < 1e-5 * gradients.norm_of(expected)
    assert not any(each.any() for each in none)


class Allocated(TorchDispatchMode):
    """Most bytes of new tensors that are alive at a time, and bytes of the largest one."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.largest = self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self._note(each.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self._now += size
        self.largest = max(self.largest, size)
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def test_a_pass_needs_far_less_than_all_gradients_of_its_examples(
    arguments, encoder_folder, tmp_path
):
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    tokenizer.save_pretrained(tmp_path / "wide")
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=len(tokenizer), num_hidden_layers=4, **wide)).save_pretrained(
        tmp_path / "wide"
    )
    flags = ("--model.name", str(tmp_path / "wide"), "--model.tune", "full", "--method.batch", "32")
    comparison, data = prepared(arguments, *flags)
    rows = 32
    comparison.shapes = [Shape(rows, comparison.shapes[-1].length)]
    sizes = [4 * each.numel() for each in comparison.parameters.values()]
    with ExitStack() as closing:
        source = comparison.gradients(data, closing)
        with Allocated() as allocated:
            source.clipped_sum(np.arange(60), 1.0)
    # Beside activations: the sum so far, the micro-batch's sum, and one that the first pass drops.
    assert 2 * sum(sizes) < allocated.peak < rows * sum(sizes) / 2
    assert max(sizes) <= allocated.largest < rows * max(sizes) / 2
