"""Rows of text that a tuned model writes, of the form that it was tuned on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hushtune.config import ConfigError, DataConfig, TaskConfig, require
from hushtune.tasks.formats import Row
from hushtune.tasks.generating import Sampling, public_randomness
from hushtune.tasks.prompts import read_prompts
from hushtune.tasks.readouts import Continuation, ReadOut, WritingReadOut

#: How often an empty text is drawn again before its row is left out.
_TRIES = 8


@dataclass(frozen=True)
class Request:
    """What is to be written. All of it is public.

    Attributes:
        count: rows; none: one for each prompt. Prompts are gone through again and again.
        sampling: how tokens are drawn.
        max_new_tokens: of each row; none: of completions as many as were learned, of conversations
            and documents as many as the run's maximal length leaves.
        seed: of the draws.
    """

    count: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Generated:
    """What was written.

    Attributes:
        rows: as the task reads them.
        cut_off: how many were stopped before the model ended them.
        left_out: how many are missing since the model wrote nothing, again and again.
        max_new_tokens: that a row could have.
    """

    rows: list[dict[str, Any]]
    cut_off: int
    left_out: int
    max_new_tokens: int


def generate(
    readout: ReadOut,
    task: TaskConfig,
    data: DataConfig,
    prompts: Iterable[tuple[str, Row]] | None,
    request: Request,
    *,
    after_batch: Callable[[int], None] = lambda _: None,
) -> Generated:
    """Let a tuned model write.

    Args:
        readout: the model's, of the task.
        task: what the model was tuned for.
        data: names of columns.
        prompts: public rows to go on from, each with its place for messages; none: documents
            begin with nothing.
        request: how many, and how.
        after_batch: told of every so many rows that are done.

    Raises:
        ConfigError, DataError: what cannot be used.
    """
    found = read_prompts(prompts, task, data)
    assert isinstance(readout, WritingReadOut)
    count = request.count
    if count is None:
        if prompts is None:
            raise ConfigError("count: none is not accepted without prompts; it must be at least 1.")
        count = len(found)
    require(count >= 1, "count", count, "at least 1")
    of_row = [found[row % len(found)] for row in range(count)]
    begins = [prompt.begins for prompt in of_row]
    most = request.max_new_tokens
    if most is None:
        most = readout.most_after([prompt.begins for prompt in found])
    written: dict[int, Continuation] = {}
    missing = list(range(count))
    with public_randomness(request.seed, readout.model.device):  # type: ignore[arg-type]
        for attempt in range(_TRIES):
            texts = readout.write(
                [begins[row] for row in missing],
                most=most,
                sampling=request.sampling,
                after_batch=after_batch if attempt == 0 else lambda _: None,
            )
            drawn = zip(missing, texts, strict=True)
            written |= {row: each for row, each in drawn if each.text.strip()}
            missing = [row for row in missing if row not in written]
            if not missing:
                break
    return Generated(
        [of_row[row].row(written[row].text) for row in sorted(written)],
        cut_off=sum(not each.ended for each in written.values()),
        left_out=len(missing),
        max_new_tokens=most,
    )
