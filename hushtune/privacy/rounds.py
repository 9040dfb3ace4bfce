"""A private step whose units are spread over clients: what a client adds, what the server releases.

A client samples among its own units, clips and sums as `hushtune.privacy.boundary` does for all;
sums of integers add up in any order, so that the total is the one that a single machine would have
computed. Who adds the noise is the plan's trust:

- "server": clients send their sums as they are, and the server adds the noise to the total. What
  is released is then what `PrivateSteps` would have released. A client that does not answer takes
  its units out of the round, which adds none to anybody's share.
- "nobody": every client adds the whole noise of the plan to its own sum before it leaves. ε holds
  against the server as well; the total has the noise of all who answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hushtune.privacy.boundary import Boundary, exact_sum
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.registry import RegisteredRun
from hushtune.privacy.sampling import PoissonSampler, representable_probability
from hushtune.privacy.steps import Charged, Slopes, unspoken

#: The largest number that a message may hold.
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class RoundTerms:
    """What a round's privacy rests on besides the plan; public, in the ledger's header.

    Attributes:
        trust: "server" or "nobody", see above.
        by_client: whether a client is the unit of privacy.
        examples: where it is, how many of its rows a client looks at in a round, expected.
        least_replies: with fewer, nothing is released.
    """

    trust: str
    by_client: bool
    examples: float
    least_replies: int

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> RoundTerms:
        """Those of a federated run."""
        federated = header["config"]["federated"]
        return cls(
            trust=federated["trust"],
            by_client=federated["level"] == "client",
            examples=federated["examples"],
            least_replies=federated["least_replies"],
        )


class ClientShare:
    """What one client adds to a round.

    Args:
        plan: of the run.
        terms: of its rounds.
        units: how many units of sampling the client holds; its rows, where it is the unit itself.
    """

    def __init__(self, plan: PrivacyPlan, terms: RoundTerms, *, units: int) -> None:
        self._terms = terms
        probability = plan.sampling_probability
        if terms.by_client:
            # Which of its rows a client looks at is its own business, and amplifies nothing.
            probability = representable_probability(min(1.0, terms.examples / max(units, 1)))
        self._sampler = PoissonSampler(units=units, probability=probability)
        self._boundary = Boundary(plan)

    def of_round(self, slopes: Slopes, charge: int) -> tuple[int, ...]:
        """K integers, with noise unless the server is trusted; the charge must be durable.

        Raises:
            StepFailed: `slopes` failed; nothing of what was computed is said.
        """
        return unspoken(
            lambda: self._computed(slopes, charge),
            f"round {charge} failed at this client with {{}}.",
        )

    def _computed(self, slopes: Slopes, charge: int) -> tuple[int, ...]:
        values, unit_of_row = slopes(self._sampler.sample(), charge)
        if self._terms.by_client:
            unit_of_row = np.zeros_like(unit_of_row)
        total = self._boundary.bounded_sum(values, unit_of_row)
        return self._boundary.publish(total) if self._terms.trust == "nobody" else tuple(total)


class Rounds(Charged):
    """The server's side of the rounds that the ledger's header describes.

    Args:
        ledger: open, marked private.
        registered: as for `PrivateSteps`.
    """

    def __init__(self, ledger: Ledger, registered: RegisteredRun | None = None) -> None:
        if not ledger.header["private"]:
            raise ValueError("Expected a ledger that is marked private.")
        super().__init__(ledger, registered)
        self._plan = PrivacyPlan.from_json(ledger.header["plan"])
        self._terms = RoundTerms.of(ledger.header)
        self._boundary = Boundary(self._plan)

    def problem_of(self, values: Any, *, units: int) -> str | None:
        """Why an answer cannot be a client's share; None if it can.

        Args:
            values: what the client sent.
            units: how many units it said it has.
        """
        if not isinstance(values, list) or not all(type(each) is int for each in values):
            return "did not send integers"
        if len(values) != self._plan.directions:
            return f"sent {len(values)} numbers, {self._plan.directions} were asked for"
        if not all(-_LARGEST <= each <= _LARGEST for each in values):
            return "sent a number beyond 64 bits"
        if self._terms.trust == "server":
            # Those of k units are at most k times as long as that of one.
            at_most = 1 if self._terms.by_client else units
            if not self._plan.admits([*values], units=at_most):
                return "sent a vector that is longer than its units' clips"
        return None

    def round(
        self, collect: Callable[[int], Sequence[Sequence[int]]]
    ) -> tuple[int, tuple[int, ...] | None]:
        """Charge a round, collect the clients' shares, release; returns index and integers.

        Args:
            collect: from the charge's index to the shares that can be used (`problem_of`).

        Returns:
            No integers where too few clients answered: the charge is spent and nothing released.

        Raises:
            BudgetSpent, OSError, RegistryError: as for `charge`.
        """
        charge = self.charge()
        shares = collect(charge)
        if len(shares) < max(1, self._terms.least_replies):
            return charge, None
        total = exact_sum(np.array(shares, dtype=np.int64))
        released = self._boundary.publish(total) if self._terms.trust == "server" else tuple(total)
        self.ledger.release(charge, released)
        return charge, released
