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
from hushtune.privacy.failing import panics_as_errors
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.registry import RegisteredRun
from hushtune.privacy.sampling import PoissonSampler, representable_probability
from hushtune.privacy.steps import Charged, Slopes


class UnusableShare(Exception):
    """What a client sent cannot be its share of a round; in words that go on after its name."""


@dataclass(frozen=True)
class RoundTerms:
    """What a round's privacy rests on besides the plan; public, in the ledger's header.

    Attributes:
        trust: "server" or "nobody", see above.
        by_client: whether a client is the unit of privacy.
        examples: where it is, how many of its rows a client looks at in a round, expected.
        least_replies: with fewer, nothing is released.

    Raises:
        ValueError: a trust that nobody has made sound.
    """

    trust: str
    by_client: bool
    examples: float
    least_replies: int

    def __post_init__(self) -> None:
        if self.trust not in ("server", "nobody"):
            raise ValueError(f"Expected trust={self.trust!r} to be server or nobody.")

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> RoundTerms:
        """Those of a federated run."""
        federated = header["config"]["federated"]
        return cls(
            trust=federated["trust"],
            by_client=federated["clients"] > 0 and federated["level"] == "client",
            examples=federated["examples"],
            least_replies=federated["least_replies"],
        )


def packed_share(values: Sequence[int], plan: PrivacyPlan) -> bytes:
    """A client's integers as they leave it: as many bytes for each, whatever they are.

    A trusted server gets sums without noise, and whoever watches the network sees how long a
    message is. In a format that has fewer bytes for smaller numbers, that would tell of the sums.

    Args:
        values: of a `ClientShare`, so within int64.
    """
    width = plan.bytes_a_number
    most = 2 ** (8 * width - 1) - 1
    numbers = np.clip(np.array(values, dtype=np.int64), -most, most)
    return numbers.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def unpacked_share(sent: Any, plan: PrivacyPlan) -> list[int]:
    """What was packed.

    Raises:
        UnusableShare: if it was not.
    """
    width = plan.bytes_a_number
    if not isinstance(sent, bytes) or len(sent) % width:
        raise UnusableShare("did not send integers")
    numbers = np.frombuffer(sent, dtype=np.uint8).reshape(-1, width)
    whole = np.zeros((len(numbers), 8), dtype=np.uint8)
    whole[:, 8 - width :] = numbers
    # Their highest byte has the sign, and shifting down repeats it.
    return (whole.view("<i8")[:, 0] >> 8 * (8 - width)).tolist()


class ClientShare:
    """What one client adds to a round.

    Args:
        plan: of the run.
        terms: of its rounds.
        units: how many units of sampling the client holds; its rows, where it is the unit itself.
        failed: told of what went wrong with a unit; private.
    """

    def __init__(
        self,
        plan: PrivacyPlan,
        terms: RoundTerms,
        *,
        units: int,
        failed: Callable[[Exception], None],
    ) -> None:
        self._terms = terms
        self._failed = failed
        probability = plan.sampling_probability
        if terms.by_client:
            # Which of its rows a client looks at is its own business, and amplifies nothing.
            probability = representable_probability(min(1.0, terms.examples / max(units, 1)))
        self._sampler = PoissonSampler(units=units, probability=probability)
        self._boundary = Boundary(plan)

    def of_round(self, slopes: Slopes, charge: int) -> tuple[int, ...]:
        """K integers, with noise unless the server is trusted; the charge must be durable.

        Whoever gets them sees whether there are any, and no noise covers that. So what fails with
        some unit's text does not fail the round: a unit whose vector cannot be computed has zeros.
        """
        values, unit_of_row = self._values(slopes, self._sampler.sample(), charge)
        if self._terms.by_client:
            unit_of_row = np.zeros_like(unit_of_row)
        total = self._boundary.bounded_sum(values, unit_of_row)
        return tuple(total) if self._terms.trust == "server" else self._boundary.publish(total)

    def _values(
        self, slopes: Slopes, units: np.ndarray, charge: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if (found := self._tried(slopes, units, charge)) is not None:
            return found
        # Numbers of a unit are the same bits alone as among others; that of all rows of a client
        # has no parts.
        parts = [] if self._terms.by_client else units[:, None]
        alone = [self._tried(slopes, unit, charge) for unit in parts]
        whole = [each for each in alone if each is not None]
        if not whole:
            return np.zeros((0, self._boundary.plan.directions)), np.zeros(0, dtype=np.int64)
        values, unit_of_row = zip(*whole, strict=True)
        return np.concatenate(values), np.concatenate(unit_of_row)

    def _tried(
        self, slopes: Slopes, units: np.ndarray, charge: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        try:
            with panics_as_errors():
                return slopes(units, charge)
        except Exception as error:
            self._failed(error)
            return None


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

    def share(self, sent: Any, *, units: int) -> list[int]:
        """The integers that a client sent.

        Args:
            sent: as it arrived, whatever it is.
            units: how many units the client said it has.

        Raises:
            UnusableShare: if that cannot be the client's share.
        """
        values = unpacked_share(sent, self._plan)
        if len(values) != self._plan.directions:
            raise UnusableShare(
                f"sent {len(values)} numbers, {self._plan.directions} were asked for"
            )
        if self._terms.trust == "server":
            # Those of k units are at most k times as long as that of one.
            at_most = 1 if self._terms.by_client else units
            if not self._plan.admits(values, units=at_most):
                raise UnusableShare("sent a vector that is longer than its units' clips")
        return values

    def round(
        self, collect: Callable[[int], Sequence[Sequence[int]]]
    ) -> tuple[int, tuple[int, ...] | None]:
        """Charge a round, collect the clients' shares, release; returns index and integers.

        Args:
            collect: from the charge's index to the shares that can be used (`share`).

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
