"""How a simulation shares out a data set among clients, and what it says if it comes to nothing."""

from __future__ import annotations

import numpy as np
import pytest
from local import Told, configuration

from hushtune.federated.simulation import share_out, simulate
from hushtune.federated.usable import partition
from hushtune.tasks.data import LabelledText


def made_up(units: int = 400, rows_a_unit: int = 3) -> LabelledText:
    rows = units * rows_a_unit
    unit_of_row = np.arange(rows) // rows_a_unit
    return LabelledText([f"text {row}" for row in range(rows)], unit_of_row % 4, unit_of_row)


@pytest.mark.parametrize("clients", [2, 10, 100])
def test_every_row_is_with_one_client_and_units_stay_whole(clients: int):
    data = made_up()
    shares = share_out(data, clients, alpha=0.5, seed=1)
    assert len(shares) == clients
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(data.texts)))
    owners: dict[int, int] = {}
    for client, rows in enumerate(shares):
        for unit in data.unit_of_row[rows].tolist():
            assert owners.setdefault(unit, client) == client


def test_who_gets_what_follows_from_the_seed():
    data = made_up()
    one, again, other = (share_out(data, 5, alpha=0.5, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_small_alpha_is_unequal():
    data = made_up(units=4000, rows_a_unit=1)

    def spread(alpha: float) -> float:
        shares = share_out(data, 10, alpha=alpha, seed=3)
        counts = np.array([np.bincount(data.labels[rows], minlength=4) for rows in shares])
        return float(counts.std(axis=0).mean())

    assert spread(0.1) > 2 * spread(100.0)


def test_a_share_is_a_data_set_of_its_own():
    data = made_up()
    rows = share_out(data, 3, alpha=1.0, seed=0)[1]
    mine = partition(data, rows)
    assert list(mine.texts) == [data.texts[row] for row in rows]
    assert mine.units == len(set(data.unit_of_row[rows].tolist()))


def test_a_simulation_that_ends_before_its_run_begins_says_so(monkeypatch, tmp_path):
    simulation = pytest.importorskip("flwr.simulation")
    monkeypatch.setattr(simulation, "run_simulation", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="ended before the run began"):
        simulate(configuration("model", "data.jsonl", tmp_path), Told())
