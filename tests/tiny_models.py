"""Tiny models of many families, randomly initialised, written by save_pretrained.

Every folder holds a model and a tokenizer of the kind that its family uses, trained on a few
sentences, so that transformers loads it exactly as it loads the real thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXTS = (
    "good bad great terrible fine awful film book food place was is a the very not it so story",
    "plot actor service never always again simply truly rather quite It was and but dummy text",
    "It was terrible. It was great. It was a good film and a bad book.",
)

#: Label words that are one token in every vocabulary here.
SINGLE = ("terrible", "great")

#: Label words of several tokens, of different numbers of them.
SEVERAL = ("terrible film", "great story and truly a very good book")


def save(family: str, folder: Path) -> str:
    """Write a tiny model of `family` to `folder`."""
    torch.manual_seed(0)
    make_tokenizer, make_model = FAMILIES[family]
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    model = make_model(tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            # Large enough for the few layers to matter; away from the initial zeros and ones.
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return str(folder)


#: One turn after the other, as most models for conversations have them.
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role[0] }}> {{ message.content }} </>\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def with_chat(folder: str, out: Path, template: str = CHAT_TEMPLATE) -> str:
    """Write a tiny causal model again, with a tokenizer that writes conversations."""
    import transformers

    transformers.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(out)
    return str(out)


def with_types(folder: str, out: Path) -> str:
    """Write a tiny encoder again, whose tokenizer tells which of two texts a token is of."""
    import shutil

    import transformers

    shutil.copytree(folder, out)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(out)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save_pretrained(out)
    settings = json.loads((out / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(out)


def _word_pieces() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=250, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return _wrapped(
        tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _byte_pairs(*special: str, before: str = "", after: str = "", **names: Any) -> Any:
    """Byte-level BPE; `before` and `after` are put around every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    around = [token for token in (before, after) if token]
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in (before, "$A", after) if part),
            special_tokens=[(token, special.index(token)) for token in around],
        )
    return _wrapped(tokenizer, **names)


def _unigram() -> Any:
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return _wrapped(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _wrapped(tokenizer: Tokenizer, **names: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _roberta_tokenizer() -> Any:
    from transformers import RobertaTokenizer

    trained = _byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>").backend_tokenizer
    model = json.loads(trained.to_str())["model"]
    # The family's own class: its mask takes the space before it along.
    return RobertaTokenizer(
        vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]]
    )


def _opt_tokenizer() -> Any:
    return _byte_pairs(
        "<s>",
        "<pad>",
        "</s>",
        before="</s>",
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="</s>",
    )


def _gpt2_tokenizer() -> Any:
    end = "<|endoftext|>"
    return _byte_pairs(end, bos_token=end, eos_token=end, unk_token=end)


def _llama_tokenizer() -> Any:
    return _byte_pairs("<unk>", "<s>", "</s>", before="<s>", bos_token="<s>", eos_token="</s>")


def _gemma_tokenizer() -> Any:
    return _byte_pairs(
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        before="<bos>",
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )


def _qwen_tokenizer() -> Any:
    return _byte_pairs(
        "<|endoftext|>", "<|im_end|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


#: What the configurations of most families call the same things.
_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


def _make(config: str, model: str, tokenizer: Any, **settings: Any) -> Any:
    """A model of transformers' classes of these names."""
    import transformers

    made = getattr(transformers, config)(vocab_size=len(tokenizer), **settings)
    return getattr(transformers, model)(made)


def _bert(tokenizer: Any, kind: str = "BertForMaskedLM") -> Any:
    return _make("BertConfig", kind, tokenizer, **_SMALL)


def _roberta(tokenizer: Any) -> Any:
    settings = _SMALL | {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1}
    settings |= {"bos_token_id": 0, "eos_token_id": 2}
    return _make("RobertaConfig", "RobertaForMaskedLM", tokenizer, **settings)


def _opt(tokenizer: Any) -> Any:
    settings = {name: value for name, value in _SMALL.items() if name != "intermediate_size"}
    settings |= {"ffn_dim": 48, "word_embed_proj_dim": 32}
    settings |= {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    return _make("OPTConfig", "OPTForCausalLM", tokenizer, **settings)


def _gpt2(tokenizer: Any) -> Any:
    settings = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    settings |= {"bos_token_id": 0, "eos_token_id": 0}
    return _make("GPT2Config", "GPT2LMHeadModel", tokenizer, **settings)


def _t5(tokenizer: Any) -> Any:
    settings = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
    settings |= {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return _make("T5Config", "T5ForConditionalGeneration", tokenizer, **settings)


def _decoder(family: str, tokenizer: Any, *, config: str = "Config", **settings: Any) -> Any:
    """A causal model whose queries share one head of keys and values."""
    settings = _SMALL | {"num_key_value_heads": 1} | settings
    return _make(f"{family}{config}", f"{family}ForCausalLM", tokenizer, **settings)


def _llama(tokenizer: Any) -> Any:
    return _decoder("Llama", tokenizer, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)


def _qwen3(tokenizer: Any) -> Any:
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    return _decoder("Qwen3", tokenizer, head_dim=16, tie_word_embeddings=True, **ids)


def _mistral(tokenizer: Any) -> Any:
    return _decoder("Mistral", tokenizer, sliding_window=16, bos_token_id=1, eos_token_id=2)


_GEMMA = {"head_dim": 16, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}


def _gemma2(tokenizer: Any) -> Any:
    # A low cap, so that it matters.
    return _decoder("Gemma2", tokenizer, final_logit_softcapping=1.0, **_GEMMA)


def _gemma3(tokenizer: Any) -> Any:
    layers = ["sliding_attention", "full_attention"]
    window = {"sliding_window": 16, "layer_types": layers}
    return _decoder("Gemma3", tokenizer, config="TextConfig", **window, **_GEMMA)


def _mixtral(tokenizer: Any) -> Any:
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    return _decoder("Mixtral", tokenizer, num_hidden_layers=1, num_local_experts=2, **ids)


def _deberta(tokenizer: Any) -> Any:
    settings = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
    settings |= _SMALL | {"pad_token_id": 0}
    return _make("DebertaV2Config", "DebertaV2ForMaskedLM", tokenizer, **settings)


def _modernbert(tokenizer: Any) -> Any:
    settings = _SMALL | {"num_hidden_layers": 3, "local_attention": 16, "pad_token_id": 0}
    settings |= {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    return _make("ModernBertConfig", "ModernBertForMaskedLM", tokenizer, **settings)


FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "encoder": (_word_pieces, lambda tokenizer: _bert(tokenizer, "BertModel")),
    "bert": (_word_pieces, _bert),
    "roberta": (_roberta_tokenizer, _roberta),
    "opt": (_opt_tokenizer, _opt),
    "gpt2": (_gpt2_tokenizer, _gpt2),
    "llama": (_llama_tokenizer, _llama),
    "qwen3": (_qwen_tokenizer, _qwen3),
    "t5": (_unigram, _t5),
    "mistral": (_llama_tokenizer, _mistral),
    "gemma2": (_gemma_tokenizer, _gemma2),
    "gemma3": (_gemma_tokenizer, _gemma3),
    "deberta": (_word_pieces, _deberta),
    "modernbert": (_word_pieces, _modernbert),
    "mixtral": (_llama_tokenizer, _mixtral),
}
