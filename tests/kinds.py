"""Data and flags for every kind of task."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tiny_models

FLAGS = {
    "completion": ("--data.max-completion-length", "8"),
    "multiple-choice": ("--data.max-completion-length", "8"),
    "pairs": ("--data.second", "other", "--task.labels", "no", "terrible", "yes", "great"),
}


def write(kind: str, path: Path, rows: int = 16) -> Path:
    """Rows of made-up words, in the columns of a kind."""
    draw = random.Random(0)

    def words(least: int, most: int) -> str:
        return " ".join(draw.choices(tiny_models.TEXTS[0].split(), k=draw.randint(least, most)))

    def row() -> dict[str, Any]:
        if kind == "completion":
            return {"prompt": words(2, 40), "completion": words(1, 3)}
        if kind == "multiple-choice":
            options = [words(1, 3), words(1, 3)]
            return {"text": words(2, 40), "choices": options, "label": draw.randint(0, 1)}
        if kind == "chat":
            asked, said = {"role": "user"}, {"role": "assistant"}
            turns = [{**turn, "content": words(1, 4)} for turn in (asked, said) for _ in (0,)]
            return {"messages": turns * draw.randint(1, 3)}
        if kind == "pairs":
            return {
                "text": words(2, 30),
                "other": words(2, 30),
                "label": draw.choice(("no", "yes")),
            }
        return {"text": words(2, 40)}

    path.write_text("".join(json.dumps(row()) + "\n" for _ in range(rows)), encoding="utf-8")
    return path
