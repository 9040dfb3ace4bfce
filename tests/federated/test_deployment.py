"""The same app on a SuperLink with SuperNodes: TLS, authentication, processes of their own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import write_reviews
from deployment import deployed, write_node_key
from local import configuration

from hushtune.federated.apps import write_app
from hushtune.files import write_config
from hushtune.guarantee import describe_guarantee
from hushtune.privacy import ledger as ledgers
from hushtune.run import replay

pytest.importorskip("flwr")


@pytest.mark.timeout(600)
def test_two_owners_behind_a_superlink(encoder_folder, tmp_path: Path):
    public = write_reviews(tmp_path / "public.jsonl", 20)
    config = configuration(encoder_folder, public, tmp_path, clients=2, timeout=200.0)
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, steps=2))
    write_app(config, tmp_path / "app")
    write_config(tmp_path / "agreed.yaml", config)
    with deployed(tmp_path) as deployment:
        deployment.superlink()
        for number, rows in enumerate((30, 40)):
            name = f"owner{number}"
            data = write_reviews(tmp_path / f"{name}.jsonl", rows)
            write_node_key(tmp_path, name)
            deployment.register(name)
            settings = f'data="{data}" folder="{tmp_path / name}-copy" epsilon=4.0 trust="server"'
            agreed = f' run="{tmp_path}/agreed.yaml"' if number else ""
            deployment.supernode(name, settings + agreed)
        write_node_key(tmp_path, "stranger")
        stranger = deployment.supernode("stranger", 'data="x" folder="y" epsilon=4.0')
        run = deployment.run(tmp_path / "app")
        ended = deployment.wait(run, seconds=400)
        assert ended == "finished:completed", deployment.said("superlink")
        assert stranger.wait(timeout=60) != 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["clients"] == 2
    assert summary["rounds_skipped"] == 0
    ledger = tmp_path / "run" / "ledger.jsonl"
    record = ledgers.read(ledger)
    assert sorted(record.releases) == [0, 1]
    assert describe_guarantee(record)["population"] == 70
    assert describe_guarantee(record)["epsilon"] <= 4.0
    replay(ledger, model=None, out=tmp_path / "again")
    one, other = (
        (tmp_path / folder / "model" / "label_vectors.safetensors").read_bytes()
        for folder in ("run", "again")
    )
    assert one == other
