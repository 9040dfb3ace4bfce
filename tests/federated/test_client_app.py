"""What a client's Flower app says where it cannot answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from local import panic

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from hushtune.config import ConfigError
from hushtune.federated.client_app import client_app
from hushtune.federated.grid import RECORD
from hushtune.federated.messages import DESCRIBE, REFUSED


@pytest.fixture
def ask(monkeypatch):
    """What an app answers whose client cannot be made."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)

    def answer(problem: Exception | Callable[[], None]) -> Any:
        def client_of(context: Context):
            if isinstance(problem, Exception):
                raise problem
            problem()

        question = Message(RecordDict({RECORD: ConfigRecord({"config": "{}"})}), 7, DESCRIBE)
        context = Context(1, 7, {}, RecordDict(), {})
        reply = client_app(client_of)(question, context)
        assert not reply.has_error()
        return dict(reply.content[RECORD])

    return answer


def test_words_of_an_error_stay_on_the_clients_own_terminal(ask, capsys):
    content = ask(PermissionError("/private/rows.jsonl"))
    assert content == {REFUSED: "has a problem; its own terminal says which"}
    assert "/private/rows.jsonl" in capsys.readouterr().err


def test_a_panic_of_compiled_code_is_an_error_like_any_other(ask, capsys):
    assert ask(panic) == {REFUSED: "has a problem; its own terminal says which"}
    assert "Panic" in capsys.readouterr().err


def test_what_its_owner_left_out_is_told(ask):
    assert ask(ConfigError("does not say data.")) == {REFUSED: "does not say data."}
