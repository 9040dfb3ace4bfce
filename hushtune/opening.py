"""Sessions of either kind: zeroth-order, or of coded updates.

What a run needs of its session is `RunSession`; `begin` and `resume` know which kind a
configuration or a header asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from hushtune import session as sessions
from hushtune.config import Config
from hushtune.models.load import LoadedModel
from hushtune.privacy.steps import Slopes
from hushtune.settling import Plan
from hushtune.tasks.data import LabelledText
from hushtune.tasks.task import TextTask

_CODED = "dr-encoder"


class RunUpdate(Protocol):
    """Takes in what was released; post-processing."""

    def replay(self, releases: Mapping[int, Sequence[int]]) -> None:
        """`apply` what charges released, in the order that they have there."""
        ...

    def apply(self, charge: int, released: Sequence[int]) -> None:
        """Take in what charge `charge` released."""
        ...


class RunSession(Protocol):
    """A model before the first step, and all that is fixed for the run."""

    @property
    def config(self) -> Config: ...
    @property
    def loaded(self) -> LoadedModel: ...
    @property
    def tune(self) -> str: ...
    @property
    def parameters(self) -> dict[str, nn.Parameter]: ...
    @property
    def settings(self) -> RunSettings: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def header(self) -> dict[str, Any]: ...

    def task(self, data: LabelledText) -> TextTask:
        """The model's task on `data`, for evaluation."""
        ...

    def update(self) -> Any:
        """A `RunUpdate`, from before the first release."""
        ...

    def read(self, data: LabelledText) -> object:
        """Read `data` as steps will, without a forward pass; raises whatever cannot be read."""
        ...

    def slopes(self, data: LabelledText, update: Any, *, ahead: bool = True) -> Slopes:
        """What a step asks for of `data`, where the update has moved the parameters to.

        Args:
            ahead: whether what frozen layers return may be computed now, for all rows.
        """
        ...

    def require_isolation(self) -> None:
        """Try on this machine that examples do not touch each other."""
        ...


class RunSettings(Protocol):
    """A method's settings, resolved."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def update(self) -> str: ...

    def described(self, directions: int) -> str:
        """What is released, in words."""
        ...


def begin(config: Config, *, units: int, try_isolation: bool = True) -> RunSession:
    """A new session, of the kind that the method needs; raises what it raises.

    Args:
        units: as for `hushtune.session.begin`.
        try_isolation: likewise.
    """
    if config.method.name == _CODED:
        from hushtune.federated.first_order import session as coded

        return coded.begin(config, units=units)
    return sessions.begin(config, units=units, try_isolation=try_isolation)


def resume(header: dict[str, Any], *, model: str | None = None) -> RunSession:
    """The session that a ledger's header describes; raises what its kind raises.

    Args:
        model: where the base model is, if not where it was.
    """
    if header.get("config", {}).get("method", {}).get("name") == _CODED:
        from hushtune.federated.first_order import session as coded

        return coded.resume(header, model=model)
    return sessions.resume(header, model=model)
