"""What a person may choose where the data stays with several owners; section `federated`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict


@dataclass(frozen=True)
class FederatedConfig:
    """Rounds between a server and the clients that hold the data."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    clients: int = 0
    """How many clients there are; 0: the run is not federated."""
    level: Literal["example", "client"] = "example"
    """What is protected: each example (or data.unit), or all that a client holds."""
    trust: Literal["server", "nobody", "secure-aggregation"] = "server"
    """server: it sees each client's sum and adds the noise. nobody: every client adds the whole
    noise to its own sum. secure-aggregation is refused; docs/federated.md says why."""
    examples: float = 32.0
    """With level client: how many of its examples a client looks at in a round, expected."""
    least_replies: int = 1
    """A round with fewer replies is charged and skipped."""
    timeout: float = 600.0
    """Seconds that a round waits for replies, and the run for its clients."""
    codec: Literal["linear", "identity", "autoencoder"] = "linear"
    """Of dr-encoder: how updates become shorter. identity: not at all, federated averaging."""
    compression: float | Literal["auto"] = "auto"
    """Numbers of an update for each number of its code; auto: 8, and 1 for identity."""
    prior: Literal["private", "public"] = "private"
    """What the codec knows of updates: private, noised moments of the clients' own, taken in the
    first rounds of the plan; public, those of updates on public text."""
    moment_rounds: int = 1
    """With prior private: how many of the rounds are spent on moments."""
    local_learning_rate: float = 0.02
    """With level client: η of a client's own steps."""
    local_batch: int = 8
    """With level client: examples of one of these steps."""
    heterogeneity: float = 0.5
    """α of the Dirichlet distribution by which a simulation shares out each label's rows among
    clients; small is unequal."""

    @property
    def by_client(self) -> bool:
        """Whether a client is the unit of privacy."""
        return self.clients > 0 and self.level == "client"

    @property
    def noises(self) -> int:
        """How often a release has the plan's noise: each client adds it where nobody is trusted."""
        return self.clients if self.clients > 0 and self.trust == "nobody" else 1
