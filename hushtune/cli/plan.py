"""`hushtune plan [run.yaml] [flags]`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hushtune.cli.arguments import parse_run
from hushtune.privacy import PrivacyPlan


def run(arguments: Sequence[str]) -> int:
    """Show noise, ε, expected time and memory; the data's rows are counted and nothing else."""
    config, as_json = parse_run("plan", arguments)
    from hushtune import config as configuration
    from hushtune import session as sessions
    from hushtune.estimate import estimate
    from hushtune.report.terminal import describe_session
    from hushtune.report.words import show
    from hushtune.tasks.data import count_units

    configuration.check(config)
    session = sessions.begin(config, units=count_units(config.data.train, config.data))
    expected = estimate(session)
    plan, probe = session.plan, session.probe
    assert probe is not None
    curve = _curve(plan) if isinstance(plan, PrivacyPlan) else []
    result: dict[str, Any] = {
        "noise_multiplier": getattr(plan, "noise_multiplier", None),
        "sampling_probability": plan.sampling_probability,
        "steps": plan.steps,
        "directions": plan.directions,
        "epsilon": curve[-1][1] if curve else None,
        "delta": getattr(plan, "delta", None),
        "epsilon_after_steps": curve,
        "clip_norm": getattr(plan, "clip_norm", None),
        "expected_seconds": round(expected.seconds, 1),
        "expected_peak_mib": expected.peak_mib,
        "micro_batch_shapes": [[shape.rows, shape.length] for shape in session.shapes],
        "parameters_left_out": probe.left_out,
        "shared_frozen_layers": probe.prefix.depth,
        "slope_agreement": probe.slopes.agreement,
    }
    if as_json:
        print(json.dumps(result))
        return 0
    show(
        "",
        describe_session(session)
        | {
            "ε over steps": ", ".join(f"{value:.3g} after {steps}" for steps, value in curve)
            or None,
            "expected": f"about {expected.seconds:.0f} s of training, "
            f"{expected.peak_mib} MiB at peak",
            "left out": f"{len(probe.left_out)} parameters that the loss does not read"
            if probe.left_out
            else None,
            "shared": f"{probe.prefix.depth} frozen layers run once for all directions"
            if probe.prefix.depth
            else None,
        },
    )
    return 0


def _curve(plan: PrivacyPlan) -> list[tuple[int, float]]:
    """ε after one step and after each quarter of the plan."""
    points = sorted({1, *(max(1, plan.steps * part // 4) for part in range(1, 5))})
    return [(steps, plan.epsilon(steps)) for steps in points]
