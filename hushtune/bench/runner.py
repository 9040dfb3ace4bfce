"""Runs cases, each in a fresh process, and puts together what they found."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hushtune.bench.cases import Case
from hushtune.bench.worker import Effort

#: From a case and the effort to what the worker found.
Measure = Callable[[Case, Effort], dict[str, Any]]


class WorkerFailed(ValueError):
    """A worker that ended without a result."""


def measure_alone(case: Case, effort: Effort) -> dict[str, Any]:
    """`hushtune.bench.worker.measure` in a fresh process.

    Raises:
        WorkerFailed: if the process ends without a result.
    """
    arguments = [json.dumps(case.to_json()), json.dumps(dataclasses.asdict(effort))]
    finished = subprocess.run(
        [sys.executable, "-m", "hushtune.bench.worker", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorkerFailed(f"{case.name}: the worker ended with {finished.returncode} ({last}).")
    return json.loads(finished.stdout.splitlines()[-1])


class Runner:
    """Measures cases one after the other.

    Args:
        effort: how long a case may take.
        tell: told of every case before it is measured.
        measure: from a case and the effort to what was found; in a process of its own if left
            out.
    """

    def __init__(
        self,
        effort: Effort,
        tell: Callable[[Case], None] = lambda _: None,
        measure: Measure | None = None,
    ) -> None:
        self._effort = effort
        self._tell = tell
        self._measure = measure or measure_alone
        self._found: dict[Case, dict[str, Any]] = {}

    def rows(self, cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
        """A row per case: what it is, its times and memory, and the memory of inference alone."""
        for case in cases:
            self._tell(case)
            yield self._row(case)

    def _row(self, case: Case) -> dict[str, Any]:
        row = {"case": case.name, **case.to_json(), "passes": case.passes}
        found = self._once(case)
        if "skipped" in found:
            return row | found
        # One micro-batch is enough to see the peak of inference, and shared by many cases.
        alone = dataclasses.replace(case.inference(), tokens=case.rows_a_pass * case.length)
        inference, largest = self._once(alone), found["largest_operation_mib"]
        above, inference_above = (
            each["peak_mib"] - each["base_mib"] for each in (found, inference)
        )
        return (
            row
            | found
            | {
                "inference_peak_mib": inference["peak_mib"],
                "memory_ratio": found["peak_mib"] / (inference["peak_mib"] + largest),
                # Without what Python and its libraries hold before there is a model.
                "memory_ratio_above_base": above / (inference_above + largest),
            }
        )

    def _once(self, case: Case) -> dict[str, Any]:
        if case not in self._found:
            self._found[case] = self._measure(case, self._effort)
        return self._found[case]
