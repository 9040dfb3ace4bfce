"""What a Flower grid returns, as a server sees it."""

from __future__ import annotations

import pytest

pytest.importorskip("flwr")

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from hushtune.federated.grid import GridClients
from hushtune.federated.messages import ROUND


class Grid:
    """One node, for which the SuperLink answers that there is an error."""

    def __init__(self, code: int) -> None:
        self._code = code
        self._asked: list[Message] = []

    def push_messages(self, messages: list[Message]) -> list[str]:
        self._asked = messages
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, ids: list[str]) -> list[Message]:
        return [Message(Error(self._code, "private text"), reply_to=self._asked[0])]


@pytest.mark.parametrize("code", range(1, 9))
def test_of_an_error_it_is_known_only_whether_the_node_has_gone(code, monkeypatch):
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    (answer,) = GridClients(Grid(code)).ask(ROUND, {7: {}}, seconds=1.0)
    assert answer.client == 7
    assert answer.content is None
    assert answer.gone == (code == ErrorCode.NODE_UNAVAILABLE)
