"""An owner lets a SuperNode run the app that was read, and no other that a SuperLink sends."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import write_reviews
from deployment import Deployment, deployed, write_node_key
from local import configuration

from hushtune.config import Config
from hushtune.federated.apps import write_app
from hushtune.files import write_config
from hushtune.privacy import ledger as ledgers

pytest.importorskip("flwr")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OWNERS = ("owner0", "owner1")

#: An app that leaves a file wherever it is imported.
_OTHER = """
import os
from pathlib import Path
Path(os.environ["FLWR_HOME"], "was-here").touch()
"""


@contextlib.contextmanager
def unchangeable(folder: Path) -> Iterator[None]:
    """Nothing can be put into the folder meanwhile, not even by root."""
    done = subprocess.run(["chattr", "+i", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this file system, or this user, cannot make a folder unchangeable")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)


def install(deployment: Deployment, app: Path, home: Path) -> None:
    """What docs/federated.md tells an owner to do."""
    deployment.flwr("build", "--app", str(app), home=home)
    (built,) = app.parent.glob("*.fab")
    deployment.flwr("install", str(built), home=home)
    built.unlink()


def test_an_app_that_is_not_installed_is_not_run(encoder_folder, tmp_path: Path):
    public = write_reviews(tmp_path / "public.jsonl", 20)
    config = configuration(encoder_folder, public, tmp_path, clients=2, timeout=60.0)
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, steps=1))
    other: Config = dataclasses.replace(config, output=str(tmp_path / "other-run"))
    write_app(config, tmp_path / "app")
    write_app(other, tmp_path / "other")
    with (tmp_path / "other" / "hushtune_run" / "apps.py").open("a") as module:
        module.write(_OTHER)
    write_config(tmp_path / "agreed.yaml", config)
    with deployed(tmp_path) as deployment, contextlib.ExitStack() as stack:
        deployment.superlink()
        homes = [tmp_path / f"{name}-home" for name in OWNERS]
        for name, home in zip(OWNERS, homes, strict=True):
            home.mkdir()
            install(deployment, tmp_path / "app", home)
            stack.enter_context(unchangeable(home / "apps"))
            write_node_key(tmp_path, name)
            deployment.register(name)
            data = write_reviews(tmp_path / f"{name}.jsonl", 30)
            settings = f'data="{data}" folder="{tmp_path / name}-copy" epsilon=4.0 trust="server"'
            deployment.supernode(name, f'{settings} run="{tmp_path}/agreed.yaml"', home=home)
        refused = deployment.run(tmp_path / "other")
        assert deployment.wait(refused, seconds=400).startswith("finished:failed")
        assert (tmp_path / "flwr" / "was-here").exists()  # at the server it ran
        assert not any((home / "was-here").exists() for home in homes)
        assert not (tmp_path / "other-run" / "ledger.jsonl").exists()
        run = deployment.run(tmp_path / "app")
        ended = deployment.wait(run, seconds=400)
        assert ended == "finished:completed", deployment.said("superlink")
    assert sorted(ledgers.read(tmp_path / "run" / "ledger.jsonl").releases) == [0]
