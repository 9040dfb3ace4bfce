"""The example in docs/trainer.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from training import classifier, labelled, tokenizer

DOCS = Path(__file__).parents[2] / "docs" / "trainer.md"


def test_the_example_runs(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    [example] = re.findall(
        r"test_trainer_documentation\.py -->\n```python\n(.*?)```", DOCS.read_text(), re.S
    )
    monkeypatch.chdir(tmp_path)

    def compute_metrics(found: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))}

    names = {
        "model": classifier(tiny("bert")),
        "tokenizer": tokenizer(tiny("bert")),
        "tokenised": datasets.Dataset.from_list(labelled(120)),
        "validation": datasets.Dataset.from_list(labelled(20, seed=1)),
        "compute_metrics": compute_metrics,
    }
    exec(example, names)
    assert names["result"].guarantee["epsilon"] <= 2.0
    assert "eval_accuracy" in capsys.readouterr().out
    for name in ("model.safetensors", "ledger.jsonl", "privacy.json", "README.md"):
        assert (tmp_path / "out" / name).exists()
