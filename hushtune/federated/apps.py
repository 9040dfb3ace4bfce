"""The Flower apps of a run on a SuperLink with SuperNodes, and the folder that `flwr run` takes.

The run's configuration travels in the app. Where an owner's data is, what it allows and where its
node keeps the copy of the ledger, is said to the owner's own SuperNode and nobody else:

    flower-supernode … --node-config 'data="/data/rows.jsonl" folder="/var/hushtune" epsilon=2.0'

with `trust="server"` where the server may see sums without noise, and `delta` where more than 1e-5
is allowed. `model="/models/base"` says where the base model is, if not where the run's
configuration says, and `run="/etc/run.yaml"` is the configuration whose columns, labels and unit
are agreed to; an owner who trusts nobody has to say both.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hushtune.config import Config, ConfigError, from_values, load, require
from hushtune.federated.client import AtWork, Client, Owner
from hushtune.federated.client_app import client_app
from hushtune.federated.grid import GridClients
from hushtune.federated.server import federate
from hushtune.report.terminal import FederatedProgress
from hushtune.tasks.data import read_labelled_text

# isort: split
from flwr.app import Context
from flwr.server import ServerApp
from flwr.serverapp import Grid

#: Where the run's configuration is among the app's settings.
_RUN = "hushtune-run"

#: What a SuperNode's configuration may say.
_NODE = ("data", "folder", "epsilon", "delta", "trust", "model", "run")

#: What Flower itself may put there.
_FLOWERS_OWN = ("partition-id", "num-partitions")

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "hushtune-run"
version = "1.0.0"
description = "A federated run of hushtune"
license = "Apache-2.0"
dependencies = ["hushtune[federated]=={version}"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "hushtune"

[tool.flwr.app.components]
serverapp = "hushtune_run.apps:server"
clientapp = "hushtune_run.apps:client"

[tool.flwr.app.config]
{name} = {run}
"""

_MODULE = '''\
"""The apps of this run; all of it is in hushtune and in pyproject.toml."""

from hushtune.federated.apps import client, server

__all__ = ["client", "server"]
'''


def write_app(config: Config, folder: Path) -> None:
    """Write the Flower app of a run, for `flwr run`.

    Names of folders in the configuration are made absolute: they are on the server's machine.

    Args:
        config: of the run, checked.
        folder: a new folder.

    Raises:
        ConfigError: if it exists.
    """
    require(not folder.exists(), "app", str(folder), "a new folder; this one exists")
    run = json.dumps(_in_full(config).to_json())
    module = folder / "hushtune_run"
    module.mkdir(parents=True)
    # JSON strings are TOML strings.
    project = _PROJECT.format(version=version("hushtune"), name=_RUN, run=json.dumps(run))
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    (module / "apps.py").write_text(_MODULE, encoding="utf-8")
    (module / "__init__.py").write_text("", encoding="utf-8")


def _in_full(config: Config) -> Config:
    model, data = config.model, config.data
    if Path(model.name).is_dir():
        model = dataclasses.replace(model, name=str(Path(model.name).resolve()))
    if data.eval is not None and Path(data.eval).exists():
        data = dataclasses.replace(data, eval=str(Path(data.eval).resolve()))
    return dataclasses.replace(
        config, model=model, data=data, output=str(Path(config.output).resolve())
    )


server = ServerApp()


@server.main()
def _serve(grid: Grid, context: Context) -> None:
    config = from_values(json.loads(str(context.run_config[_RUN])), source="the app")
    federate(config, GridClients(grid), FederatedProgress())


def _client_of(context: Context) -> Client:
    return Client(_owner(dict(context.node_config)), AtWork())


def _owner(node: dict[str, Any]) -> Owner:
    """The owner that a SuperNode's configuration speaks for.

    Raises:
        ConfigError: naming what is missing or not known.
    """
    stated = {name: value for name, value in node.items() if name not in _FLOWERS_OWN}
    if unknown := sorted(stated.keys() - {*_NODE}):
        raise ConfigError(
            f"its node's configuration says {unknown[0]}; it may say {', '.join(_NODE)}."
        )
    for name in ("data", "folder", "epsilon"):
        if name not in stated:
            raise ConfigError(f"its node's configuration does not say {name}.")
    trust = stated.get("trust", "nobody")
    if trust not in ("server", "nobody"):
        raise ConfigError("its node's configuration has a trust that is not known.")
    for name in ("run", "model"):
        if trust == "nobody" and name not in stated:
            # Else the server would choose how the data is read, once, and which tokenizer reads it.
            raise ConfigError(f"its node's configuration does not say {name}, and trusts nobody.")

    return Owner(
        name="owner",
        read=lambda config: read_labelled_text(
            str(stated["data"]), config.data, config.task, with_units=True
        ),
        folder=Path(str(stated["folder"])),
        model=stated.get("model"),
        epsilon=_number(stated, "epsilon", 0.0, math.inf),
        delta=_number({"delta": 1e-5} | stated, "delta", 0.0, 1.0),
        trusts_server=trust == "server",
        agreed=_agreed(stated["run"]) if "run" in stated else None,
    )


def _number(stated: Mapping[str, Any], name: str, above: float, below: float) -> float:
    """A limit that an owner sets; nan or text would be no limit at all."""
    value = stated[name]
    if type(value) in (int, float) and above < value < below:
        return float(value)
    raise ConfigError(f"its node's configuration has no {name} that can be a limit.")


def _agreed(path: Any) -> Config:
    try:
        return load(str(path))
    except ConfigError:
        # What is wrong with it is its owner's to know, and where it is.
        raise ConfigError("its node's configuration names a run that cannot be read.") from None


client = client_app(_client_of)
