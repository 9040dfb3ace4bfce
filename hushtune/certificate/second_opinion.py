"""ε once more, by the accountant of google/differential-privacy (the package dp-accounting)."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

from hushtune.certificate.checks import Examination, Failed, NotApplicable
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.accounting.stopping import NegativeBinomial, Poisson

#: Both accountants round up, each on its own grid. Where rare large losses matter hushtune's may
#: be a little further above the tight value; see docs/accounting.md.
_MOST_BELOW, _MOST_ABOVE = 0.01, 0.03


def check_second_accountant(run: Examination) -> str:
    """Somebody else's code finds about the same ε for the plan."""
    assert run.found.record is not None
    plan = PrivacyPlan.from_json(run.found.record.header["plan"])
    if plan.delta == 0:
        raise NotApplicable("pure ε is a closed form; see docs/accounting.md")
    own = plan.epsilon()
    other = second_epsilon(plan) if plan.search is None else second_epsilon_of_search(plan)
    found = f"dp-accounting {importlib.metadata.version('dp-accounting')} finds ε = {other:.6g}"
    if not -_MOST_BELOW <= own / other - 1 <= _MOST_ABOVE:
        raise Failed(f"{found}, hushtune {own:.6g}")
    return f"{found}, which differs by {abs(own / other - 1):.2%}"


def second_epsilon(plan: PrivacyPlan) -> float:
    """ε of a plan with δ above 0, from a pessimistic privacy loss distribution of dp-accounting."""
    from dp_accounting import NeighboringRelation, dp_event
    from dp_accounting.pld import PLDAccountant

    relation = NeighboringRelation.ADD_OR_REMOVE_ONE
    if plan.adjacency == "replace-one":
        relation = NeighboringRelation.REPLACE_ONE
    kinds: dict[str, Any] = {
        "gaussian": dp_event.GaussianDpEvent,
        "laplace": dp_event.LaplaceDpEvent,
    }
    step = dp_event.PoissonSampledDpEvent(
        plan.sampling_probability, kinds[plan.mechanism](plan.noise_multiplier)
    )
    # Rounding adds up over steps as the interval's square times their number.
    accountant = PLDAccountant(
        relation, value_discretization_interval=min(1e-4, 0.02 / math.sqrt(plan.steps))
    )
    accountant.compose(dp_event.SelfComposedDpEvent(step, plan.steps))
    return float(accountant.get_epsilon(plan.delta))


def second_epsilon_of_search(plan: PrivacyPlan) -> float:
    """ε of the search that chose a run, by dp-accounting: of its costliest candidate alone.

    A search of several candidates is accounted for by the maximum of their curves, which costs
    hardly more, since noise is calibrated so.
    """
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    assert plan.search is not None
    stopping = plan.search.stopping
    if isinstance(stopping, Poisson):
        mean, shape = stopping.rate, math.inf  # not truncated there
    else:
        assert isinstance(stopping, NegativeBinomial)
        mean, shape = stopping.mean, stopping.shape
    largest = 0.0
    for candidate in plan.search.candidates:
        parts: list[Any] = [
            dp_event.SelfComposedDpEvent(
                dp_event.PoissonSampledDpEvent(
                    phase.sampling_probability, dp_event.GaussianDpEvent(phase.noise_multiplier)
                ),
                phase.steps,
            )
            for phase in candidate
        ]
        accountant = RdpAccountant()
        accountant.compose(
            dp_event.RepeatAndSelectDpEvent(dp_event.ComposedDpEvent(parts), mean=mean, shape=shape)
        )
        largest = max(largest, accountant.get_epsilon(plan.delta))
    return float(largest)
