"""How well a model does on private rows, with noise: the score of a run in a private search.

One release of one number: the sum over units of how well the model does on them, from −1 to 1. The
number of units is the same for all runs of a search, so a sum tells them apart as a mean would, and
costs no denominator. Centred values halve the sensitivity that values from 0 to 2 would have.
"""

from __future__ import annotations

import numpy as np

from hushtune.config import Config
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.boundary import Boundary
from hushtune.probe import isolated_shapes
from hushtune.session import Session
from hushtune.tasks.data import LabelledText
from hushtune.tasks.metrics import measure_of, score_rows
from hushtune.tasks.task import TextTask


def score_plan(config: Config, noise: float | str, *, delta: float, population: int) -> PrivacyPlan:
    """The plan of that release.

    Args:
        noise: standard deviation in units; auto: a fiftieth of them, and at least 10, with which
            two accuracies are told apart to about a point.
        delta: of the guarantee that it is a part of.
        population: number of units, as it is public.
    """
    multiplier = max(10.0, population / 50) if isinstance(noise, str) else float(noise)
    return PrivacyPlan.with_noise(
        noise_multiplier=multiplier,
        clip_norm=1.0,
        mechanism="gaussian",
        delta=delta,
        adjacency=config.privacy.adjacency,
        unit=config.protected,
        combine="mean",
        population=population,
        sampling_probability=1.0,
        steps=1,
        directions=1,
        search=None,
    )


def noised_score(session: Session, data: LabelledText, plan: PrivacyPlan) -> int:
    """The release for the session's model as it is now; the larger the better.

    What a row adds is a function of that row and the model alone: micro-batches have shapes in
    which this machine does not let rows touch each other, and prompts are completed one by one.
    """
    readout = session.loaded.readout
    task = TextTask(readout, data, isolated_shapes(readout, session.shapes))
    measure = measure_of(readout)
    _, values = score_rows(task, alone=True)
    good = np.clip(np.nan_to_num(values[:, :1] / measure.largest, nan=1.0), 0.0, 1.0)
    if measure.names == ("perplexity",):
        good = 1.0 - good
    (released,) = Boundary(plan).release(2 * good - 1, data.unit_of_row)
    return released
