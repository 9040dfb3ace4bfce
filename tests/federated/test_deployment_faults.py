"""Processes of a deployment are killed: what was charged stays charged, and the run goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_reviews
from deployment import Deployment, deployed, write_node_key
from local import configuration

from hushtune.federated.apps import write_app
from hushtune.guarantee import describe_guarantee
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.record import begun
from hushtune.run import replay

pytest.importorskip("flwr")

_STEPS = 6


def until(holds: Callable[[], bool], deployment: Deployment, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, deployment.said("superlink")[-5000:]
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_is_killed_the_run_goes_on(encoder_folder, tmp_path: Path):
    public = write_reviews(tmp_path / "public.jsonl", 20)
    config = configuration(encoder_folder, public, tmp_path, clients=2, timeout=60.0)
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, steps=_STEPS))
    write_app(config, tmp_path / "app")
    ledger, copies = tmp_path / "run" / "ledger.jsonl", tmp_path / "copies"

    def charged(count: int) -> bool:
        """Whether so many rounds were charged; the last one is under way then."""
        record = begun(ledger)
        return record is not None and record.charges >= count

    with deployed(tmp_path) as deployment:
        superlink = deployment.superlink()
        settings = {}
        for number, rows in enumerate((30, 40)):
            name = f"owner{number}"
            data = write_reviews(tmp_path / f"{name}.jsonl", rows)
            write_node_key(tmp_path, name)
            deployment.register(name)
            folder = copies / name
            settings[name] = f'data="{data}" folder="{folder}" epsilon=4.0 trust="server"'
        nodes = {name: deployment.supernode(name, said) for name, said in settings.items()}

        deployment.run(tmp_path / "app")
        until(lambda: charged(2), deployment, seconds=200)
        os.kill(deployment.process_of("flwr-serverapp"), signal.SIGKILL)
        server_died = ledgers.read(ledger)

        deployment.run(tmp_path / "app")
        until(lambda: charged(server_died.charges + 1), deployment, seconds=200)
        superlink.kill()
        superlink.wait()
        until(lambda: not deployment.processes_of("flwr-serverapp"), deployment, seconds=60)
        link_died = ledgers.read(ledger)

        # Owners' nodes are registered still, and come back by themselves.
        deployment.superlink()
        last = deployment.run(tmp_path / "app")
        until(lambda: charged(link_died.charges + 1), deployment, seconds=200)
        os.killpg(nodes["owner0"].pid, signal.SIGKILL)
        nodes["owner0"].wait()
        deployment.supernode("owner0", settings["owner0"])
        until(lambda: deployment.status(last).startswith("finished"), deployment, seconds=400)
        assert deployment.status(last) == "finished:completed", deployment.said("superlink")

    record = ledgers.read(ledger)
    assert record.charges == _STEPS
    # What was charged when a server died is not asked for again; whatever else was completed.
    lost = {server_died.charges - 1, link_died.charges - 1}
    assert sorted(record.releases) == sorted({*range(_STEPS)} - lost)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds_skipped"] == 2
    guarantee = describe_guarantee(record)
    assert guarantee["steps_charged"] == _STEPS
    assert guarantee["epsilon"] == summary["epsilon"] <= 4.0
    lines = ledger.read_bytes()
    for name in settings:
        assert lines.startswith((copies / name / "ledger.jsonl").read_bytes())
    replay(ledger, model=None, out=tmp_path / "again")
    one, other = (
        (tmp_path / folder / "model" / "label_vectors.safetensors").read_bytes()
        for folder in ("run", "again")
    )
    assert one == other
