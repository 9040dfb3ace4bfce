"""Weights are in memory once when a model has been loaded, and never twice before.

What counts is anonymous memory, in a process of its own: a checkpoint's pages that are mapped from
its file are the file itself, and the system takes them back when it needs them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's account of memory"
)

_LAYERS = 3
_WIDTH = 768

#: Loads the model of the first folder, so that libraries have what they need for themselves, then
#: prints what loading the second one took.
CHILD = """
import json, re, sys, threading
from hushtune.config import DataConfig, ModelConfig, TaskConfig
from hushtune.models.load import load_model

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])

def watch():
    while not done.wait(0.0005):
        seen.append(anonymous())

small, large, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
task = TaskConfig(labels={"negative": "terrible", "positive": "great"})
data = DataConfig(max_length=32)
load = lambda name: load_model(ModelConfig(name=name, **settings), task, data, seed=0)
load(small)
done, seen = threading.Event(), []
before = anonymous()
watching = threading.Thread(target=watch)
watching.start()
model = load(large)
done.set()
watching.join()
print(json.dumps({"peak": max(seen) - before, "after": anonymous() - before}))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory):
    """A tiny model and a larger one, by the number format they are stored in."""
    tokenizer = tiny_models._opt_tokenizer()
    made: dict[str, str] = {}

    def folder(kind: str) -> str:
        if kind not in made:
            path = tmp_path_factory.mktemp(kind)
            width, layers = (64, 1) if kind == "tiny" else (_WIDTH, _LAYERS)
            model = transformers.OPTForCausalLM(
                transformers.OPTConfig(
                    vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers,
                    num_attention_heads=2, ffn_dim=4 * width, max_position_embeddings=64,
                    word_embed_proj_dim=width, bos_token_id=2, eos_token_id=2, pad_token_id=1,
                )
            )  # fmt: skip
            model = model.to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
            shard = "20MB" if kind == "shards" else "1GB"
            model.save_pretrained(path, max_shard_size=shard)
            tokenizer.save_pretrained(path)
            made[kind] = str(path)
        return made[kind]

    return folder


def _taken(folders: Any, kind: str, **settings: str) -> dict[str, int]:
    arguments = [folders("tiny"), folders(kind), json.dumps(settings)]
    result = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


#: Parameters of the layers, and how many the largest matrix has.
_PARAMETERS = _LAYERS * 12 * _WIDTH**2
_LARGEST = 4 * _WIDTH**2

#: Bytes that a process takes for itself here and there.
_SLACK = 8 << 20


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("float32", "float32"), ("shards", "float32"), ("bfloat16", "bfloat16")],
)
def test_what_keeps_its_format_is_not_copied_at_all(kind, dtype, folders):
    taken = _taken(folders, kind, dtype=dtype)
    assert taken["peak"] < _SLACK < _PARAMETERS


@pytest.mark.parametrize(
    ("kind", "dtype", "size"),
    [("float32", "bfloat16", 2), ("shards", "bfloat16", 2), ("bfloat16", "float32", 4)],
)
def test_what_changes_its_format_is_there_once(kind, dtype, size, folders):
    taken = _taken(folders, kind, dtype=dtype)
    assert size * _PARAMETERS < taken["peak"] < size * _PARAMETERS + 4 * _LARGEST + _SLACK


@pytest.mark.parametrize(
    ("kind", "method", "bits"),
    [("float32", "nf4", 4.5), ("shards", "int8", 8), ("bfloat16", "int4", 5)],
)
def test_what_is_quantised_leaves_no_floats_behind(kind, method, bits, folders):
    library = {"nf4": "bitsandbytes"}.get(method, "torchao")
    pytest.importorskip(library, exc_type=ImportError)
    taken = _taken(folders, kind, quantise=method)
    weights = int(bits / 8 * _PARAMETERS)
    assert 0.9 * weights < taken["after"] < weights + _SLACK
    # A matrix is turned into codes by way of a few copies of it.
    assert taken["peak"] < weights + 8 * 4 * _LARGEST + _SLACK
