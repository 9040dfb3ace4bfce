"""From a configuration, and what was found on public examples, to all that is fixed for a run."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hushtune import methods
from hushtune.config import Config, resolved_delta
from hushtune.methods import Budget, Settings
from hushtune.models.load import hash_tensors
from hushtune.plain import PlainPlan
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.accounting.search import PrivateSearch
from hushtune.privacy.ledger import Ledger, LedgerError
from hushtune.privacy.registry import RegisteredRun
from hushtune.zo.directions import Directions
from hushtune.zo.probe import Slopes
from hushtune.zo.update import Update

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Plan = PrivacyPlan | PlainPlan


def settle(
    config: Config,
    budget: Budget,
    *,
    population: int,
    perturbation_scale: float,
    slopes: Slopes,
    dtypes: Iterable[torch.dtype],
    head_only: bool,
    search: PrivateSearch | None = None,
) -> tuple[Plan, Settings]:
    """Sampling, clip, noise and steps, and the method's settings.

    Args:
        budget: directions, steps and batch.
        population: number of units, as it is public.
        perturbation_scale: λ.
        slopes: of public examples, at λ.
        dtypes: of the model's parameters.
        head_only: whether only a head moves.
        search: the search that the run is part of, if any.

    Raises:
        ValueError: if no noise gives the ε that is asked for.
    """
    method, typical = config.method, slopes.typical
    estimator = methods.estimator(
        method, budget, dtypes, head_only=head_only, smooth=math.isinf(slopes.most)
    )
    clip_norm = methods.clip_norm(
        method,
        config.privacy,
        budget,
        typical,
        most=slopes.most * (2 if estimator == "one-sided" else 1),
    )
    plan = _plan(config, budget, clip_norm, population, search)
    settings = Settings(
        distribution=budget.distribution,
        estimator=estimator,
        perturbation_scale=perturbation_scale,
        update=method.update,
        learning_rate=methods.learning_rate(
            method,
            budget,
            head_only=head_only,
            typical_slope=typical,
            noise=noise_of_release(config, plan),
        ),
        schedule="linear" if method.schedule == "auto" else method.schedule,
        typical_slope=typical,
    )
    return plan, settings


def noise_of_release(config: Config, plan: Plan) -> float:
    """The standard deviation of the noise on each number of a released mean."""
    return plan.noise_of_mean * math.sqrt(config.federated.noises)


def make_header(
    config: Config,
    plan: Plan,
    settings: DataclassInstance,
    moving: Mapping[str, Tensor],
    *,
    versioned: Iterable[str],
) -> dict[str, Any]:
    """The part of a ledger's first line that every run has.

    Args:
        settings: the method's, resolved; plain values.
        moving: the parameters that move, as they start.
        versioned: the packages that the numbers of a run depend on.
    """
    return {
        "format": 1,
        # Tells apart two runs of one configuration, for a registry that adds them up.
        "run": secrets.token_hex(16),
        "private": isinstance(plan, PrivacyPlan),
        "steps": plan.steps,
        "config": config.to_json(),
        "settings": dataclasses.asdict(settings),
        "plan": plan.to_json(),
        "moving": dict.fromkeys(moving, 1.0),
        "start_sha256": hash_tensors(moving.items()),
        "public_seed": config.seed,
        "versions": {name: importlib.metadata.version(name) for name in versioned},
    }


def require_start(header: Mapping[str, Any], moving: Mapping[str, Tensor]) -> None:
    """Refuse parameters that are not those that a ledger began with.

    Raises:
        LedgerError: if they are others.
    """
    if hash_tensors(moving.items()) != header["start_sha256"]:
        raise LedgerError("the parameters that move do not start as the ledger says.")


def registered_run(ledger: Ledger, *, where: str) -> RegisteredRun | None:
    """Where the steps of a run are reserved, if its configuration names a registry.

    Args:
        ledger: the run's, open.
        where: the run folder, as the registry will list it.
    """
    config = ledger.header["config"]
    registry = config["privacy"]["registry"]
    if registry is None:
        return None
    return RegisteredRun(registry, data=config["data"]["identity"], where=where, ledger=ledger)


def make_update(
    parameters: Mapping[str, Tensor],
    scales: Mapping[str, float],
    directions: Directions,
    plan: Plan,
    settings: Settings,
) -> Update:
    """What applies a run's releases to its parameters."""
    return Update(
        parameters,
        scales,
        directions,
        unit=plan.grid / plan.expected_units,
        step_size=settings.step_size(plan.steps),
    )


def _plan(
    config: Config,
    budget: Budget,
    clip_norm: float,
    population: int,
    search: PrivateSearch | None,
) -> Plan:
    privacy = config.privacy
    if privacy.mechanism == "none":
        return PlainPlan(
            combine=config.data.combine,
            population=population,
            sampling_probability=min(1.0, budget.batch / population),
            steps=budget.steps,
            directions=budget.directions,
        )
    return make_private_plan(
        config,
        population=population,
        batch=budget.batch,
        steps=budget.steps,
        directions=budget.directions,
        clip_norm=clip_norm,
        search=search,
    )


def make_private_plan(
    config: Config,
    *,
    population: int,
    batch: float,
    steps: int,
    directions: int,
    clip_norm: float,
    search: PrivateSearch | None = None,
) -> PrivacyPlan:
    """The plan with the least noise for the configuration's ε.

    Args:
        population: number of units, as it is public.
        batch: expected units a step.
        steps, directions, clip_norm: T, K and C.
        search: the search that the run is part of, if any.

    Raises:
        ValueError: if no noise gives the ε that is asked for.
    """
    privacy = config.privacy
    assert privacy.mechanism != "none"
    return PrivacyPlan.for_epsilon(
        epsilon=privacy.epsilon or 0.0,
        delta=resolved_delta(privacy, population),
        mechanism=privacy.mechanism,
        adjacency=privacy.adjacency,
        unit=config.protected,
        combine=config.data.combine,
        population=population,
        expected_units=batch,
        steps=steps,
        directions=directions,
        clip_norm=clip_norm,
        search=search,
    )
