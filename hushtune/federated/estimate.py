"""What a federated run asks of a client: seconds, memory and bytes of a round."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from hushtune.config import Config
from hushtune.estimate import Load, estimate
from hushtune.federated.first_order.gradients import ExampleGradients
from hushtune.federated.first_order.session import CodedSession
from hushtune.federated.grid import bytes_of
from hushtune.federated.messages import ROUND, packed
from hushtune.memory import peak_memory
from hushtune.opening import RunSession
from hushtune.privacy import PrivacyPlan, chain
from hushtune.privacy.rounds import packed_share
from hushtune.probe import dummy_data
from hushtune.session import Session

#: Public texts whose gradients are timed.
_TIMED = 8


@dataclass(frozen=True)
class ClientEstimate:
    """What one client is expected to do in a round.

    Attributes:
        rows: that it looks at.
        seconds: that it computes, on a machine like this one.
        peak_mib: resident memory of its process.
        bytes_to_client, bytes_back: of the messages of a round, as Flower serialises them.
        bytes_at_first: of the first round's message to a client, with the ledger's header.
    """

    rows: float
    seconds: float
    peak_mib: int
    bytes_to_client: int
    bytes_back: int
    bytes_at_first: int


def estimate_client(session: RunSession, units: int) -> ClientEstimate:
    """Look at public text and at messages of numbers as large as the plan's.

    Args:
        units: of all clients.
    """
    config, plan = session.config, session.plan
    assert isinstance(plan, PrivacyPlan)
    of_client = max(1, units // config.federated.clients)
    rows = plan.expected_units / config.federated.clients
    if config.federated.by_client:
        rows = min(config.federated.examples, float(of_client))
    if isinstance(session, CodedSession):
        seconds, peak = _gradients(session, rows), peak_memory()
    else:
        assert isinstance(session, Session)
        found = estimate(session, load=Load(of_client, rows, plan.steps))
        seconds, peak = found.seconds / plan.steps, found.peak_mib
    first, head = chain.make_line(chain.genesis("estimate"), {"header": session.header})
    first += chain.make_line(head, {"charge": 0})[0]
    at_first = bytes_of({"first": 0, "lines": packed(first)}, ROUND)
    return ClientEstimate(rows, seconds, peak, *_bytes(config, plan), at_first)


def _gradients(session: CodedSession, rows: float) -> float:
    """Seconds of so many rows, each with its gradient and its code."""
    gradients = ExampleGradients(
        session.loaded.readout, session.parameters, dummy_data(session.loaded)
    )
    update = session.update()
    codes = 1.0 if session.config.federated.by_client else rows
    first = session.settings.moment_rounds
    found = update.encode(gradients.of_row(0), first)  # warms up
    start = time.perf_counter()
    for row in range(_TIMED):
        gradients.of_row(row)
    computed = time.perf_counter()
    for _ in range(_TIMED):
        update.encode(np.ones(session.settings.dimension), first)
    encoded = time.perf_counter()
    del found
    return (rows * (computed - start) + codes * (encoded - computed)) / _TIMED


def _bytes(config: Config, plan: PrivacyPlan) -> tuple[int, int]:
    # Numbers as long as those of a run; which ones makes no difference.
    rng = np.random.default_rng(0)
    noise = plan.noise_scale * math.sqrt(config.federated.noises)
    released = np.rint(noise * rng.standard_normal(plan.directions)).astype(np.int64).tolist()
    step = max(0, plan.steps // 2)
    head, lines = chain.genesis("estimate"), b""
    for content in ({"release": step, "values": released}, {"charge": step + 1}):
        line, head = chain.make_line(head, content)
        lines += line
    down = {"first": 2 * step, "lines": packed(lines)}
    back = {"charge": step + 1, "values": packed_share([0] * plan.directions, plan)}
    return bytes_of(down, ROUND), bytes_of(back, ROUND)
