"""Adapters on bases of four and eight bits: what is accepted, and what comes out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from conftest import write_reviews
from torch import Tensor, nn

import hushtune
from hushtune import config as configuration
from hushtune import probe
from hushtune import session as sessions
from hushtune.cli import main
from hushtune.config import ConfigError, DataConfig, ModelConfig, TaskConfig, from_values
from hushtune.models.isolation import CouplingError
from hushtune.models.load import LoadedModel, load_model
from hushtune.models.moving import moving_parameters
from hushtune.models.quantised import is_quantised_tensor
from hushtune.run import replay
from hushtune.tasks.data import LabelledText
from hushtune.zo.estimators import Move
from hushtune.zo.probe import Slopes

pytest.importorskip("bitsandbytes", exc_type=ImportError)
torchao = pytest.importorskip("torchao.quantization", exc_type=ImportError)

METHODS = ["nf4", "int8", "int4"]
LABELS = dict(zip(("negative", "positive"), tiny_models.SINGLE, strict=True))


def _opt(tokenizer: Any) -> Any:
    return transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
            ffn_dim=128, max_position_embeddings=64, word_embed_proj_dim=64, bos_token_id=2,
            eos_token_id=2, pad_token_id=1,
        )
    )  # fmt: skip


def _llama(tokenizer: Any) -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, intermediate_size=128, max_position_embeddings=64,
            bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a tiny model whose widths the quantisers accept, written once."""
    made: dict[str, str] = {}

    def folder(family: str) -> str:
        if family not in made:
            torch.manual_seed(0)
            kinds = {
                "opt": (tiny_models._opt_tokenizer, _opt),
                "llama": (tiny_models._llama_tokenizer, _llama),
            }
            make_tokenizer, make_model = kinds[family]
            path = tmp_path_factory.mktemp(family)
            tokenizer = make_tokenizer()
            model = make_model(tokenizer)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[family] = str(path)
        return made[family]

    return folder


def _library_settings(method: str, dtype: torch.dtype) -> Any:
    """What a person writes who has transformers and has never heard of hushtune."""
    if method == "nf4":
        return transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    if method == "int8":
        return transformers.TorchAoConfig(torchao.Int8WeightOnlyConfig())
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    return transformers.TorchAoConfig(PrototypeInt4WeightOnlyConfig(group_size=64))


def _load(folder: str, readout: str = "auto", **settings: str) -> LoadedModel:
    task = TaskConfig(labels=LABELS, readout=readout)
    return load_model(ModelConfig(name=folder, **settings), task, DataConfig(max_length=32), seed=0)


def _stored(method: str, folder: str, to: Path) -> str:
    """A checkpoint that transformers quantised and saved."""
    transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=_library_settings(method, torch.float32)
    ).save_pretrained(to)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return str(to)


def _command(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--json"])
    said = capsys.readouterr()
    assert not exit_.value.code, said.err
    return json.loads(said.out)


def _flags(folder: str, run: Path, data: str, *more: str, tune: str = "lora") -> list[str]:
    return [
        "--model.name", folder, "--model.tune", tune, "--data.train", data,
        "--data.max-length", "32", "--task.labels", "negative", "terrible", "positive", "great",
        "--method.steps", "3", "--method.batch", "6", "--method.directions", "2",
        "--privacy.epsilon", "4", "--output", str(run), *more,
    ]  # fmt: skip


CASES = [
    ("opt", "nf4", "float32", "auto"),
    ("opt", "int8", "float32", "bfloat16"),
    ("opt", "int4", "float32", "auto"),
    ("llama", "nf4", "bfloat16", "auto"),
    ("llama", "int8", "bfloat16", "auto"),
    ("llama", "int4", "bfloat16", "bfloat16"),
]


@pytest.mark.parametrize(("family", "method", "dtype", "adapters"), CASES)
def test_a_quantised_base_trains_replays_verifies_and_serves_elsewhere(
    family, method, dtype, adapters, wide, tmp_path: Path, capsys
):
    data = write_reviews(tmp_path / "train.jsonl", 12)
    folder, run, again = wide(family), tmp_path / "run", tmp_path / "again"
    more = ("--model.quantise", method, "--model.dtype", dtype, "--model.lora.dtype", adapters)
    _command(capsys, "train", *_flags(folder, run, data, *more))
    session = replay(run / "ledger.jsonl", model=None, out=again)
    saved = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    assert saved == (again / "adapter" / "adapter_model.safetensors").read_bytes()
    wanted = torch.bfloat16 if adapters == "bfloat16" else torch.float32
    assert {parameter.dtype for parameter in session.parameters.values()} == {wanted}
    assert any("lora_B" in n and p.abs().sum() > 0 for n, p in session.parameters.items())

    _command(capsys, "verify", str(run), "--model", folder)

    expected = _logits(session.loaded.model, session)
    restored: Any = hushtune.load(run).readout.model
    assert torch.equal(_logits(restored, session), expected)
    quantised = _elsewhere(folder, run, dtype, quantization_config=_library_settings(
        method, getattr(torch, dtype)
    ))  # fmt: skip
    plain = _elsewhere(folder, run, dtype)
    assert _agreement(_logits(quantised, session), expected) > 0.999
    assert 0.9 < _agreement(_logits(plain, session), expected) < 1


@pytest.mark.parametrize(
    ("family", "method", "tune"),
    [("opt", "nf4", "prompt"), ("llama", "int8", "prefix"), ("llama", "int4", "prompt")],
)
def test_virtual_tokens_stand_in_front_of_a_quantised_base(
    family, method, tune, wide, tmp_path: Path, capsys
):
    data = write_reviews(tmp_path / "train.jsonl", 12)
    folder, run, again = wide(family), tmp_path / "run", tmp_path / "again"
    _command(capsys, "train", *_flags(folder, run, data, "--model.quantise", method, tune=tune))
    session = replay(run / "ledger.jsonl", model=None, out=again)
    saved = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    assert saved == (again / "adapter" / "adapter_model.safetensors").read_bytes()
    assert [name.split(".")[0] for name in session.parameters] == ["prompt_encoder"]
    _command(capsys, "verify", str(run), "--model", folder)

    inputs = {"input_ids": torch.arange(5, 15).view(2, 5), "attention_mask": torch.ones(2, 5)}
    restored: Any = hushtune.load(run).readout.model
    options = {"quantization_config": _library_settings(method, torch.float32)}
    with torch.no_grad():
        expected = session.loaded.model(**inputs).logits
        assert torch.equal(restored(**inputs).logits, expected)
        found = _elsewhere(folder, run, "float32", **options)(**inputs).logits
    assert _agreement(found, expected) > 0.999


def _elsewhere(folder: str, run: Path, dtype: str, **options: Any) -> Any:
    import peft

    base = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(base, str(run / "adapter")).eval()


def _logits(model: nn.Module, session: sessions.Session) -> Tensor:
    readout: Any = session.loaded.readout
    inputs = readout.collate([readout.encode("a good film"), readout.encode("bad")], 16)
    mask = inputs["attention_mask"]
    with torch.no_grad():
        logits = model(input_ids=inputs["input_ids"], attention_mask=mask).logits
    return logits[mask.bool()].float()


def _agreement(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


@pytest.mark.parametrize("method", METHODS)
def test_every_adapter_is_found_to_move_and_other_rows_keep_every_bit(method, wide, monkeypatch):
    chosen = 1e-3, Slopes(typical=1.0, agreement=1.0)
    monkeypatch.setattr(probe, "choose_scale", lambda *_, **__: chosen)
    # Several directions a pass whatever the clock says.
    monkeypatch.setattr(probe, "pays", lambda *_: True)
    config = from_values(
        {
            "model": {"name": wide("opt"), "tune": "lora", "quantise": method},
            "data": {"train": "unused", "max_length": 32},
            "task": {"labels": LABELS},
            "method": {"directions": 4, "steps": 3, "batch": 4.0, "micro_batch_tokens": 512},
            "privacy": {"epsilon": 4.0},
        }
    )
    session = sessions.begin(config, units=12)
    assert set(session.parameters) == set(moving_parameters(session.loaded, "lora"))
    assert any(shape.rows > 1 for shape in session.shapes)
    assert any(shape.directions > 1 for shape in session.shapes)

    texts = ["good", "a very good film", " ".join(["was"] * 60), "so so so", "book"]
    moves = [Move(0, 0.0), Move(0, 1e-2), Move(1, 1e-2), Move(2, 1e-2), Move(3, 1e-2)]

    def losses(rows: list[int]) -> np.ndarray:
        data = LabelledText(texts, np.arange(len(texts)) % 2, np.arange(len(texts)))
        return session.losses(session.task(data)).at(np.array(rows), moves, charge=0)

    together = losses([0, 1, 2, 3, 4])
    assert len(np.unique(together[0])) == len(moves)
    for row in range(len(texts)):
        assert np.array_equal(losses([row]), together[[row]]), row


@pytest.mark.parametrize("method", METHODS)
def test_linear_layers_are_quantised_and_the_output_layer_is_not(method, wide):
    model: Any = _load(wide("llama"), quantise=method).model
    for name, parameter in model.named_parameters():
        wanted = "_proj.weight" in name
        assert is_quantised_tensor(parameter) == wanted, name
    assert model.lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("method", METHODS)
def test_the_base_hash_is_that_of_the_float_checkpoint(method, wide):
    assert _load(wide("opt"), quantise=method).base_hash == _load(wide("opt")).base_hash


def test_the_base_hash_does_not_depend_on_what_weights_are_converted_to_before(wide):
    one, other = (_load(wide("opt"), quantise="nf4", dtype=d) for d in ("float32", "bfloat16"))
    assert one.base_hash == other.base_hash


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_those_that_transformers_quantises_to(method, wide):
    ours: Any = _load(wide("opt"), quantise=method).model
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        wide("opt"), quantization_config=_library_settings(method, torch.float32)
    )
    for module in theirs.modules():
        # bitsandbytes evaluates in bfloat16 on some CPUs, and trains in the dtype that was asked.
        module.train(type(module).__name__ == "Linear4bit")
    inputs = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(ours(inputs).logits, theirs(inputs).logits)


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_a_checkpoint_that_is_quantised_on_disk_trains_and_replays(
    method, wide, tmp_path: Path, capsys
):
    data = write_reviews(tmp_path / "train.jsonl", 12)
    folder = _stored(method, wide("opt"), tmp_path / "stored")
    run = tmp_path / "run"
    _command(capsys, "train", *_flags(folder, run, data))
    session = replay(run / "ledger.jsonl", model=folder, out=tmp_path / "again")
    assert any(is_quantised_tensor(p) for p in session.loaded.model.parameters())
    _command(capsys, "verify", str(run), "--model", folder)
    # The same codes as those that are made here from the float checkpoint.
    session_of_float = _load(wide("opt"), quantise=method)
    stored = _load(folder)
    inputs = torch.arange(5, 25)[None]
    with torch.no_grad():
        one, other = (each.model(inputs).logits for each in (session_of_float, stored))
    assert torch.equal(one, other)
    assert stored.base_hash != session_of_float.base_hash


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_the_hash_of_a_base_that_is_quantised_on_disk_tells_its_codes_apart(
    method, wide, tmp_path: Path
):
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder = _stored(method, wide("opt"), tmp_path / "stored")
    before = _load(folder).base_hash
    path = Path(folder) / "model.safetensors"
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    codes = min(name for name, t in tensors.items() if t.dtype in (torch.uint8, torch.int8))
    tensors[codes].view(-1)[0] += 1
    save_file(tensors, path, metadata=metadata)
    assert _load(folder).base_hash != before


def test_llm_int8_is_refused_by_name(wide, tmp_path: Path):
    for value in ("llm.int8", "llm_int8", "LLM.int8()", "bitsandbytes-8bit", "8bit"):
        config = from_values(
            {
                "model": {"name": "x", "tune": "lora", "quantise": value},
                "data": {"train": "y"}, "task": {"labels": LABELS}, "privacy": {"epsilon": 1.0},
            }
        )  # fmt: skip
        with pytest.raises(ConfigError, match=r"quantise: .* is not accepted.*LLM\.int8\(\)"):
            configuration.check(config)
    stored = tmp_path / "stored"
    transformers.AutoModelForCausalLM.from_pretrained(
        wide("opt"), quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True)
    ).save_pretrained(stored)
    transformers.AutoTokenizer.from_pretrained(wide("opt")).save_pretrained(stored)
    with pytest.raises(CouplingError, match=r"quantised by LLM\.int8\(\) and couples the examples"):
        _load(str(stored))


def test_what_chooses_one_scale_for_a_batch_of_activations_is_refused(wide, tmp_path: Path):
    chosen = torchao.Int8DynamicActivationInt8WeightConfig(granularity=torchao.PerTensor())
    transformers.AutoModelForCausalLM.from_pretrained(
        wide("opt"), quantization_config=transformers.TorchAoConfig(chosen)
    ).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(wide("opt")).save_pretrained(tmp_path)
    with pytest.raises(CouplingError, match="one scale for the activations of the whole batch"):
        _load(str(tmp_path))


def test_ways_of_quantising_that_are_not_known_are_refused(wide, tmp_path: Path):
    transformers.AutoTokenizer.from_pretrained(wide("opt")).save_pretrained(tmp_path)
    config = json.loads((Path(wide("opt")) / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"model\.name: .* is quantised by gptq; it must be"):
        _load(str(tmp_path))


def test_what_is_quantised_is_not_quantised_again(wide, tmp_path: Path):
    folder = _stored("int8", wide("opt"), tmp_path)
    with pytest.raises(ConfigError, match=r'quantise: "nf4" is not accepted; .* already'):
        _load(folder, quantise="nf4")
    with pytest.raises(ConfigError, match=r'dtype: "bfloat16" is not .* from torch\.float32'):
        _load(folder, dtype="bfloat16")


@pytest.mark.parametrize("tune", ["full", "bias", "head", "last-1"])
def test_nothing_but_adapters_moves_on_a_quantised_base(tune, wide):
    config = from_values(
        {
            "model": {"name": "x", "tune": tune, "quantise": "nf4"},
            "data": {"train": "y"}, "task": {"labels": LABELS}, "privacy": {"epsilon": 1.0},
        }
    )  # fmt: skip
    with pytest.raises(ConfigError, match=rf'tune: "{tune}" is not accepted; it must be lora'):
        configuration.check(config)
    with pytest.raises(ConfigError, match=rf"tune: {tune} is not accepted for a quantised model"):
        moving_parameters(_load(wide("opt"), quantise="nf4"), tune)


def test_a_new_head_stays_a_float_and_moves_with_the_adapters(wide, tmp_path: Path, capsys):
    data = write_reviews(tmp_path / "train.jsonl", 12)
    run = tmp_path / "run"
    flags = _flags(wide("opt"), run, data, "--model.quantise", "nf4", "--task.readout", "head")
    _command(capsys, "train", *flags)
    session = replay(run / "ledger.jsonl", model=None, out=tmp_path / "again")
    assert any(".modules_to_save." in name for name in session.parameters)
    assert len(hushtune.load(run).predict(["a good film", "a bad book"])) == 2


def test_a_model_without_layers_that_fit_is_refused(tiny):
    with pytest.raises(ConfigError, match=r'quantise: "nf4" is not accepted for this model'):
        _load(tiny("opt"), quantise="nf4")
