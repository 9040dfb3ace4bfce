"""Tables and progress for the terminal; public values only.

How long a single step takes follows from how many units were drawn, so it is not shown: the bar
moves by hundredths of the run and by at least ten steps, and the time left is an average over all
steps so far, in half minutes. Where the output is not a terminal a line is printed for every tenth
of the run.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from hushtune.opening import RunSession, RunSettings
from hushtune.plain import PlainPlan
from hushtune.report.words import console, guarantee_line, metric_text, show
from hushtune.settling import Plan

#: What clients send, by whom they trust.
_TRUST = {
    "server": "the server sees the sum of each without noise, and adds the noise",
    "nobody": "each adds the whole noise to its own sum before it leaves",
}


class TerminalProgress:
    """Shows a run's progress; quiet where a machine reads the result."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._steps = 0
        self._began_with = 0
        self._start: float | None = None

    def started(self, session: RunSession, charges: int) -> None:
        """Print what is about to happen."""
        self.began(describe_session(session), session.plan.steps, charges)

    def began(self, rows: Mapping[str, object], steps: int, charges: int = 0) -> None:
        """Print the run's public facts and get ready to show its progress.

        Args:
            charges: steps charged before.
        """
        self._steps = steps
        self._start = None
        if self._quiet:
            return
        show("", rows)
        if charges:
            console.print(f"[bold]resuming[/bold] after {charges} charged steps")
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                console=console,
                transient=True,
                auto_refresh=False,
            )
            self._task = self._bar.add_task("", total=100, completed=0)

    def stepped(self, charges: int) -> None:
        """Show that so many steps are charged."""
        if self._quiet:
            return
        if self._bar is None:
            if charges % max(10, self._steps // 10) == 0:
                console.print(f"step {charges} of {self._steps}")
            return
        if self._start is None:
            self._start, self._began_with = time.monotonic(), charges
            self._bar.start()
        every = max(10, self._steps // 100)
        if charges % every == 0 or charges == self._steps:
            percent = 100 * charges // self._steps
            left = self._time_left(self._start, charges)
            self._bar.update(self._task, completed=percent, description=left, refresh=True)
        if charges == self._steps:
            self.ended()

    def ended(self) -> None:
        """Give the terminal back, whether all steps were taken or not."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _time_left(self, start: float, charges: int) -> str:
        done = charges - self._began_with
        if done < 0.05 * self._steps:
            return ""
        seconds = (time.monotonic() - start) / done * (self._steps - charges)
        return f"about {math.ceil(seconds / 30) / 2:g} min left"

    def evaluated(self, name: str, metrics: Mapping[str, float]) -> None:
        """Print metrics."""
        if not self._quiet:
            for metric, value in metrics.items():
                shown = metric_text(metric, value)
                console.print(f"{name} {metric.replace('_', ' ')}  [bold]{shown}[/bold]")


class FederatedProgress(TerminalProgress):
    """Shows in addition who is there and what went wrong; faults also where a machine reads."""

    def waiting(self, there: int, wanted: int) -> None:
        """Print how many clients there are."""
        if not self._quiet:
            console.print(f"{there} of {wanted} clients are there")

    def fault(self, words: str) -> None:
        """Print it where errors go."""
        print(words, file=sys.stderr, flush=True)


def describe_session(session: RunSession) -> dict[str, Any]:
    """The run's public facts in words."""
    moving = sum(parameter.numel() for parameter in session.parameters.values())
    federated = session.config.federated
    rows = describe_plan(session.config.method.name, session.plan, session.settings)
    if federated.clients and federated.trust == "nobody":
        rows["noise"] += f", at each of {federated.clients} clients"
    return {
        "model": session.config.model.name,
        "moving": f"{moving:,} parameters ({session.tune}), read at: {session.loaded.kind}",
        "clients": f"{federated.clients}; {_TRUST[federated.trust]}" if federated.clients else None,
    } | rows


def describe_plan(method: str, plan: Plan, settings: RunSettings) -> dict[str, Any]:
    """Method, steps, noise and guarantee in words."""
    rows = {
        "method": f"{method}, {settings.described(plan.directions)}",
        "steps": f"{plan.steps}, each about {plan.expected_units:.0f} of {plan.population} units "
        f"(q = {plan.sampling_probability:.4g}), learning rate {settings.learning_rate:.3g} "
        f"({settings.update})",
    }
    if isinstance(plan, PlainPlan):
        return rows | {"privacy": "[bold red]none[/bold red]"}
    return rows | {
        "noise": f"{plan.mechanism}, {plan.noise_multiplier:.4g} × clip {plan.clip_norm:.4g}",
        "guarantee": guarantee_line(plan.epsilon(), plan.delta, plan.unit, plan.adjacency),
    }
