"""How far parameters must move for answers to change, tried on public text before the first step.

An objective without a gradient has slopes only where an answer differs between θ + λz and θ − λz.
With a small λ that is seldom, and then by 1/2λ: the fewer answers change, the noisier are slopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hushtune.models.load import LoadedModel
from hushtune.probe import Probe, make_losses
from hushtune.tasks.data import LabelledText
from hushtune.tasks.objectives import Objective
from hushtune.tasks.scored import ScoredTask
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import moves
from hushtune.zo.head_losses import HeadLosses
from hushtune.zo.losses import PROBE_CHARGE, MovedLosses
from hushtune.zo.prefix import FrozenPrefix
from hushtune.zo.probe import ProbeError, Slopes

#: λ to try.
_SCALES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)

#: Share of answers that should differ between the two ends of a direction.
_WANTED_CHANGES = 0.25

#: Texts whose answers are looked at, and directions: where each text takes a pass for every one,
#: where it takes a pass for every word as well, and where all of them are one product.
_PASSES = (16, 8)
_WRITTEN = (8, 4)
_PRODUCTS = (48, 16)


def for_objective(
    probe: Probe,
    objective: Objective,
    loaded: LoadedModel,
    scales: dict[str, float],
    directions: Directions,
    *,
    perturbation_scale: float | None,
) -> Probe:
    """What was found for the loss, made fit for an objective: λ, slopes and the way to evaluate.

    Args:
        perturbation_scale: λ, or None to choose it: the least at which enough answers change.

    Raises:
        ProbeError: if no answer changes.
    """
    shapes, prefix = probe.shapes, probe.prefix
    if objective.writes:
        # A text is written in many passes of different lengths.
        shapes, prefix = [replace(shape, directions=1) for shape in shapes], FrozenPrefix([])

    def make(objective: Objective, data: LabelledText) -> HeadLosses | MovedLosses:
        task = ScoredTask(loaded.readout, data, shapes, objective)
        return make_losses(task, probe.parameters, scales, directions, prefix, shapes)

    public = LabelledText(probe.task.texts, probe.task.labels, np.arange(probe.task.rows))
    size = _WRITTEN if objective.writes else _PASSES
    texts, count = _PRODUCTS if isinstance(probe.losses, HeadLosses) else size
    some = _some(public, texts)
    telling = make(objective.telling_apart(), some)
    tried = _SCALES if perturbation_scale is None else (perturbation_scale,)
    scale, changed = _first_enough(
        tried, lambda scale: _share_changed(telling, len(some.texts), scale, count)
    )
    if changed == 0:
        raise ProbeError(
            f"task.objective: no answer to public text changes when parameters move by {scale:g}; "
            "expected a larger method.perturbation_scale, or objective loss."
        )
    most = objective.spread / (2 * scale)
    return replace(
        probe,
        shapes=shapes,
        prefix=prefix,
        losses=make(objective, some),
        task=ScoredTask(loaded.readout, some, shapes, objective),
        perturbation_scale=scale,
        slopes=Slopes(math.sqrt(changed) * most, None, most=most),
    )


def _some(data: LabelledText, count: int) -> LabelledText:
    """So many of the texts, from all over."""
    places = np.linspace(0, len(data.texts) - 1, count).round().astype(int)
    texts = [data.texts[place] for place in places]
    return LabelledText(texts, data.labels[places], np.arange(len(texts)))


def _share_changed(
    telling: HeadLosses | MovedLosses, rows: int, scale: float, directions: int
) -> float:
    """Share of texts and directions for which the answers at θ + λz and at θ − λz differ."""
    ends = moves("two-sided", directions, scale)
    answers = telling.at(np.arange(rows), ends, charge=PROBE_CHARGE)
    return float(np.mean(answers[:, 0::2] != answers[:, 1::2]))


def _first_enough(scales: Sequence[float], share: Callable[[float], float]) -> tuple[float, float]:
    """The first λ at which enough answers change, or else the one at which most do; the share."""
    found: list[tuple[float, float]] = []
    for scale in scales:
        found.append((scale, share(scale)))
        if found[-1][1] >= _WANTED_CHANGES:
            return found[-1]
    return max(found, key=lambda pair: pair[1])
