"""Refusing what has no meaning, before any work is done, in one line that says what would do."""

import math
from numbers import Integral, Real

MECHANISMS = ("gaussian", "laplace")
ADJACENCIES = ("add-or-remove-one", "replace-one")


def expect(condition: bool, name: str, value: object, accepted: str) -> None:
    """Raise `ValueError` naming the setting, its value and what is accepted, unless `condition`."""
    if not condition:
        raise ValueError(f"Expected {name}={value!r} to be {accepted}.")


def is_real(value: object) -> bool:
    """Whether `value` is a finite number. Booleans are settings, not numbers."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_positive_integer(value: object) -> bool:
    """Whether `value` is an integer of at least 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def check_release(
    *, mechanism: str, sampling_probability: float, steps: int, directions: int
) -> None:
    """Check what releases are, apart from their noise and their guarantee.

    Raises:
        ValueError: one line naming the first setting that is out of range.
    """
    expect(mechanism in MECHANISMS, "mechanism", mechanism, "one of " + ", ".join(MECHANISMS))
    expect(
        is_real(sampling_probability) and 0 < sampling_probability <= 1,
        "sampling_probability",
        sampling_probability,
        "above 0 and at most 1",
    )
    expect(is_positive_integer(steps), "steps", steps, "an integer of at least 1")
    expect(is_positive_integer(directions), "directions", directions, "an integer of at least 1")


def check_guarantee(*, delta: float, adjacency: str) -> None:
    """Raise `ValueError` unless δ is in [0, 1) and the adjacency is known."""
    expect(adjacency in ADJACENCIES, "adjacency", adjacency, "one of " + ", ".join(ADJACENCIES))
    expect(is_real(delta) and 0 <= delta < 1, "delta", delta, "at least 0 and below 1")


def check_delta_of_gaussian(delta: float) -> None:
    """Raise `ValueError` unless δ is above 0: gaussian noise has no pure ε."""
    expect(delta > 0, "delta", delta, "above 0 for gaussian noise (laplace accepts 0)")


def check_plan(
    *,
    mechanism: str,
    sampling_probability: float,
    steps: int,
    delta: float,
    adjacency: str,
    directions: int,
) -> None:
    """Check everything that `epsilon` and `calibrate` have in common.

    Raises:
        ValueError: one line naming the first setting that cannot be accounted.
    """
    check_release(
        mechanism=mechanism,
        sampling_probability=sampling_probability,
        steps=steps,
        directions=directions,
    )
    check_guarantee(delta=delta, adjacency=adjacency)
    if mechanism == "gaussian":
        check_delta_of_gaussian(delta)
    elif delta > 0:
        expect(
            directions == 1,
            "directions",
            directions,
            "1 for laplace noise with delta > 0 (with delta=0, which gives pure epsilon, any number"
            " is accepted)",
        )
        expect(
            adjacency == "add-or-remove-one",
            "adjacency",
            adjacency,
            "add-or-remove-one for laplace noise with delta > 0 (with delta=0, which gives pure"
            " epsilon, both adjacencies are accepted)",
        )


def check_noise_multiplier(value: float) -> None:
    """Raise `ValueError` unless `value` is a positive finite number."""
    expect(is_real(value) and value > 0, "noise_multiplier", value, "above 0 and finite")


def check_epsilon(value: float) -> None:
    """Raise `ValueError` unless `value` is a positive finite number."""
    expect(is_real(value) and value > 0, "epsilon", value, "above 0 and finite")


def check_noise_scale_integer(value: int | None) -> None:
    """Raise `ValueError` unless `value` is None or an integer of at least 1."""
    expect(
        value is None or is_positive_integer(value),
        "noise_scale_integer",
        value,
        "None or an integer of at least 1",
    )
