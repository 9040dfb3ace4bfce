"""`hushtune plan [run.yaml] [flags]`"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from hushtune.cli.arguments import parse_run
from hushtune.config import Config
from hushtune.privacy import PrivacyPlan

#: In words, where weights are that do not fit.
_HOMES = {"cpu": "host memory", "disk": "the checkpoint's files"}


def run(arguments: Sequence[str]) -> int:
    """Show noise, ε, expected time and memory; the data's rows are counted and nothing else."""
    config, as_json = parse_run("plan", arguments)
    if config.federated.clients:
        from hushtune.cli import plan_federated

        return plan_federated.run(config, as_json=as_json)
    from hushtune import config as configuration
    from hushtune import session as sessions
    from hushtune.estimate import estimate
    from hushtune.memory import available
    from hushtune.report.terminal import describe_session
    from hushtune.report.words import show
    from hushtune.tasks.data import count_units, read_rows
    from hushtune.zo.estimators import moves

    configuration.check(config)
    needed, free = _needed(config), available()
    if needed is not None and needed > free and not as_json:
        print(f"needs about {needed >> 20} MiB, {free >> 20} MiB are free", file=sys.stderr)
    # What takes longest is tried where it counts: when training begins.
    units = count_units(config.data.train, config.data)
    session = sessions.begin(config, units=units, try_isolation=False)
    evaluation_rows = 0
    if config.data.eval is not None:
        evaluation_rows = sum(1 for _ in read_rows(config.data.eval))
    expected = estimate(session, evaluation_rows=evaluation_rows)
    plan, probe = session.plan, session.probe
    assert probe is not None
    passes_a_step = len(moves(session.settings.estimator, plan.directions, 1.0))
    sequences = session.loaded.readout.sequences
    added = config.model.columns_added
    tokens = max(shape.rows * (shape.length + added) * sequences for shape in session.shapes)
    directions_a_pass = max(shape.directions for shape in session.shapes)
    offload = config.model.offload
    curve = curve_of(plan) if isinstance(plan, PrivacyPlan) else []
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
        "needed_mib": None if needed is None else needed >> 20,
        "free_mib": free >> 20,
        "expected_peak_gpu_mib": expected.peak_gpu_mib,
        "estimator": session.settings.estimator,
        "passes_a_step": passes_a_step,
        "micro_batch_tokens": tokens,
        "directions_a_pass": directions_a_pass,
        "kept_outputs": expected.kept_outputs,
        "parameters_left_out": probe.left_out,
        "shared_frozen_layers": probe.prefix.depth,
        "weights_streamed_from": None if offload == "none" else offload,
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
            "estimator": f"{session.settings.estimator}: losses at {passes_a_step} points for "
            f"{plan.directions} directions",
            "micro-batches": f"at most {tokens} tokens, in {len(session.shapes)} shapes",
            "shared": f"{probe.prefix.depth} frozen layers run once for all directions"
            if probe.prefix.depth
            else None,
            "kept": "what frozen layers return stays in memory from step to step"
            if expected.kept_outputs
            else None,
            "together": f"up to {directions_a_pass} directions in a forward pass"
            if directions_a_pass > 1
            else None,
            "isolation": "whether examples touch each other is tried when training begins"
            if isinstance(plan, PrivacyPlan)
            else None,
            "weights": f"streamed from {_HOMES[offload]}, each once a micro-batch for all moves"
            if offload != "none"
            else None,
        },
    )
    return 0


def _needed(config: Config) -> int | None:
    """Bytes by the configuration of the model; None where that cannot be read, or is unusual."""
    from hushtune.sizing import needs

    model = config.model
    try:
        of_model = needs(
            model.name,
            model.dtype,
            all_move=model.tune == "full",
            max_length=config.data.max_length + model.columns_added,
        )
    except (OSError, ValueError, KeyError):  # loading the model says what is wrong
        return None
    tokens = config.method.micro_batch_tokens
    return of_model.peak(1024 if tokens == "auto" else tokens)


def curve_of(plan: PrivacyPlan) -> list[tuple[int, float]]:
    """ε after one step and after each quarter of the plan."""
    points = sorted({1, *(max(1, plan.steps * part // 4) for part in range(1, 5))})
    return [(steps, plan.epsilon(steps)) for steps in points]
