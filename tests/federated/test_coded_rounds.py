"""DR-Encoder's rounds: what is released, and what is made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from local import LocalClients, Told, configuration

from hushtune.federated.server import federate
from hushtune.guarantee import describe_guarantee
from hushtune.privacy import ledger as ledgers
from hushtune.run import replay


@pytest.fixture
def run(encoder_folder, reviews, tmp_path):
    """Makes configuration and clients of a run of coded updates."""

    def make(tune: str = "lora", **federated: Any):
        config = configuration(encoder_folder, reviews, tmp_path, **federated)
        config = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, tune=tune),
            method=dataclasses.replace(config.method, name="dr-encoder", directions="auto"),
            privacy=dataclasses.replace(config.privacy, mechanism="gaussian"),
        )
        return config, LocalClients(reviews, config, tmp_path), Told()

    return make


@pytest.mark.parametrize("codec", ["linear", "identity"])
@pytest.mark.parametrize("trust", ["server", "nobody"])
@pytest.mark.parametrize("level", ["example", "client"])
def test_a_run_ends_like_any_other(run, level, trust, codec, tmp_path):
    config, clients, told = run(level=level, trust=trust, codec=codec)
    summary = federate(config, clients, told)
    assert told.faults == []
    record = ledgers.read(Path(config.output) / "ledger.jsonl")
    assert len(record.releases) == record.charges == 4
    guarantee = describe_guarantee(record)
    assert guarantee["epsilon"] == summary["epsilon"] <= 4.0
    replay(Path(config.output) / "ledger.jsonl", model=None, out=tmp_path / "again")
    one, other = (
        (folder / "adapter" / "adapter_model.safetensors").read_bytes()
        for folder in (Path(config.output), tmp_path / "again")
    )
    assert one == other
