"""Clients behind a Flower grid: questions and answers as Flower messages, counted in bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

# Neither Flower nor the engine of its simulation may tell anybody that there is a run.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.serverapp import Grid

from hushtune.federated.messages import Answer

#: The name of what a message holds.
RECORD = "hushtune"

#: Seconds between looks for answers.
_LOOK = 0.05


class GridClients:
    """The nodes of a grid, as `hushtune.federated.messages.Clients`.

    Args:
        grid: of a Flower run.

    Attributes:
        sent, received: bytes of all messages so far, as they are serialised.
        answers: how many there were.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.sent = 0
        self.received = 0
        self.answers = 0

    def ids(self) -> list[int]:
        """Nodes that are there now."""
        return sorted(self._grid.get_node_ids())

    def ask(
        self, kind: str, contents: Mapping[int, Mapping[str, Any]], *, seconds: float
    ) -> Iterator[Answer]:
        """Push one message for each node, and pull until all have answered or time is up."""
        until = time.monotonic() + seconds
        waiting: dict[str, int] = {}
        for node, content in contents.items():
            record = RecordDict({RECORD: ConfigRecord(dict(content))})
            # Nobody begins with what nobody waits for any more.
            message = Message(record, node, kind, ttl=max(seconds, 1.0))
            # One at a time: of several, those that cannot be sent are left out of what is returned.
            for name in self._grid.push_messages([message]):
                waiting[name] = node
                self.sent += message_to_proto(message).ByteSize()
        while waiting:
            # What was pulled is gone, so that only answers still to come are asked for.
            for reply in self._grid.pull_messages(list(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node is not None:
                    self.received += message_to_proto(reply).ByteSize()
                    self.answers += 1
                    yield Answer(node, _content(reply), gone=_is_gone(reply))
            if time.monotonic() > until:
                return
            if waiting:
                time.sleep(_LOOK)


def bytes_of(content: Mapping[str, Any], kind: str) -> int:
    """Of a message with this content, as it is serialised, outside of a Flower run."""
    # Numbers and names as long as those that a SuperLink gives.
    metadata = Metadata(
        run_id=2**63,
        message_id="",
        src_node_id=2**63,
        dst_node_id=2**63,
        reply_to_message_id="0" * 64,
        group_id="",
        created_at=time.time(),
        ttl=600.0,
        message_type=kind,
    )
    record = RecordDict({RECORD: ConfigRecord(dict(content))})
    message: Any = Message  # what Flower itself makes messages with is not in its types
    return message_to_proto(message(record, metadata=metadata)).ByteSize()


def _content(reply: Message) -> Mapping[str, Any] | None:
    """What a reply says. Why a client failed is not for the server: it may quote private text."""
    if reply.has_error() or RECORD not in reply.content:
        return None
    record = reply.content[RECORD]
    return dict(record) if isinstance(record, ConfigRecord) else None


def _is_gone(reply: Message) -> bool:
    """Whether the SuperLink answered for a node that it has not heard of for too long."""
    return reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE
