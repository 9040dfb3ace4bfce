"""A Flower client app that answers for an owner of data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hushtune.federated.grid import RECORD  # first: it sets what Flower reads when it is imported

# isort: split
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hushtune.config import ConfigError
from hushtune.federated.client import Client, failed_answer
from hushtune.federated.messages import DESCRIBE, REFUSED, ROUND
from hushtune.privacy.failing import panics_as_errors


def client_app(client_of: Callable[[Context], Client]) -> ClientApp:
    """The app.

    Args:
        client_of: who answers, by the context that Flower gives a node; called for each message. A
            ConfigError of it is told to the server.
    """
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        question = message.content.get(RECORD)
        content: Any = {REFUSED: "was asked nothing that it can read"}
        if isinstance(question, ConfigRecord):
            asked: Any = dict(question)
            try:
                with panics_as_errors():
                    content = client_of(context).answer(message.metadata.message_type, asked)
            except ConfigError as refusal:
                content = {REFUSED: str(refusal)}
            except Exception as error:
                # Flower would send its text to the server.
                content = failed_answer(error)
        return Message(RecordDict({RECORD: ConfigRecord(content)}), reply_to=message)

    app.query(DESCRIBE.partition(".")[2])(answer)
    app.train()(answer)
    assert ROUND == "train"
    return app
