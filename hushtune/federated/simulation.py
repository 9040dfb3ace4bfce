"""A federated run on one machine: Flower's simulation, with a data set shared out among clients.

What a simulation shows is what a deployment would compute; it protects nobody from the machine that
it runs on, which has all the data.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hushtune.config import Config
from hushtune.federated.client import AtWork, Client, Owner
from hushtune.federated.grid import GridClients
from hushtune.federated.server import Progress, federate
from hushtune.federated.usable import partition
from hushtune.tasks.data import LabelledText, read_labelled_text

#: What a worker process keeps from message to message, by the folder of the run's copies.
_AT_WORK: dict[str, AtWork] = {}
_DATA: dict[str, LabelledText] = {}


def simulate(config: Config, progress: Progress) -> dict[str, Any]:
    """Share out `data.train` among `federated.clients` clients and lead the run.

    Rows of each label are shared out by a Dirichlet distribution (`federated.heterogeneity`), the
    rows of a unit together; who gets what follows from `seed`.

    Returns:
        The summary, with `bytes_to_clients` and `bytes_from_clients`, per client and round.

    Raises:
        What `hushtune.federated.server.federate` raises; DataError of the data.
    """
    from flwr.app import Context
    from flwr.server import ServerApp
    from flwr.serverapp import Grid
    from flwr.simulation import run_simulation

    from hushtune.federated.client_app import client_app

    copies = tempfile.mkdtemp(prefix="hushtune-copies-")
    result: list[dict[str, Any] | BaseException] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        clients = GridClients(grid)
        try:
            result.append(federate(config, clients, progress) | _traffic(clients))
        except BaseException as error:
            result.append(error)

    def client_of(context: Context) -> Client:
        return _simulated(config, copies, int(context.node_config["partition-id"]))

    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_simulation(
                server,
                client_app(client_of),
                num_supernodes=config.federated.clients,
                backend_config=_BACKEND,
            )
    finally:
        shutil.rmtree(copies, ignore_errors=True)
    if not result:
        raise RuntimeError("Flower's simulation ended before the run began.")
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


#: A worker for each core, each with one thread, and nothing of Ray's on the screen.
_BACKEND: Any = {
    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    "init_args": {"logging_level": "error", "log_to_driver": False, "include_dashboard": False},
}


def _simulated(config: Config, copies: str, number: int) -> Client:
    """A client of the simulation, in a worker process."""

    def read(_: Config) -> LabelledText:
        if copies not in _DATA:
            data = config.data
            _DATA[copies] = read_labelled_text(data.train, data, config.task, with_units=True)
        whole = _DATA[copies]
        federated = config.federated
        shares = share_out(
            whole, federated.clients, alpha=federated.heterogeneity, seed=config.seed
        )
        return partition(whole, shares[number])

    owner = Owner(
        name=str(number),
        read=read,
        folder=Path(copies) / str(number),
        trusts_server=config.federated.trust == "server",
    )
    return Client(owner, _AT_WORK.setdefault(copies, AtWork()))


def share_out(data: LabelledText, clients: int, *, alpha: float, seed: int) -> list[np.ndarray]:
    """Rows of each client, ascending; every unit's rows are with one client.

    Args:
        alpha: of the Dirichlet distribution of each label's units over clients (Hsu et al. 2019,
            arXiv:1909.06335); a unit has the label of its first row.
        seed: public.
    """
    generator = np.random.default_rng(seed)
    units, first = np.unique(data.unit_of_row, return_index=True)
    labels = data.labels[first]
    owner = np.empty(len(units), dtype=np.int64)
    for label in np.unique(labels):
        mine = generator.permutation(np.flatnonzero(labels == label))
        shares = generator.dirichlet(np.full(clients, alpha))
        cuts = np.floor(np.cumsum(shares)[:-1] * len(mine)).astype(np.int64)
        for client, some in enumerate(np.split(mine, cuts)):
            owner[some] = client
    of_row = owner[np.searchsorted(units, data.unit_of_row)]
    return [np.flatnonzero(of_row == client) for client in range(clients)]


def _traffic(clients: GridClients) -> dict[str, Any]:
    answers = max(1, clients.answers)
    return {
        "bytes_to_clients": round(clients.sent / answers),
        "bytes_from_clients": round(clients.received / answers),
    }
