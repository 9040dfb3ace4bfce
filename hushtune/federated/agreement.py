"""What an owner's folder keeps besides the ledger's copy: what was agreed to, and what is answered.

How many units there are, and whether the data can be read at all, depends on which columns a server
names, which labels and which unit. Enough such questions would spell out the data, and no noise
covers them. So a folder is of one agreement, the owner's own or else the first that a server asked
for, and of one run. It also keeps which rounds were answered, so that a lost copy of the ledger
makes no round anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hushtune.config import Config, from_values
from hushtune.config.settings import differences
from hushtune.federated.messages import Refusal
from hushtune.privacy.chain import make_entry_durable


def terms_of(config: Config) -> Config:
    """What a configuration asks of the data: how it is read, what a unit is, and what protects it.

    All other settings are as if nobody had said them.
    """
    data = dataclasses.replace(config.data, train="", eval=None, population=None)
    nothing = Config()
    return dataclasses.replace(
        nothing,
        data=data,
        task=config.task,
        privacy=dataclasses.replace(nothing.privacy, adjacency=config.privacy.adjacency),
        federated=dataclasses.replace(nothing.federated, level=config.federated.level),
    )


class Agreement:
    """What the file `agreed.json` in an owner's folder says; it is written when something is asked.

    Args:
        folder: the owner's.
        stated: what the owner has agreed to; none: whatever is asked for first.
    """

    def __init__(self, folder: Path, stated: Config | None = None) -> None:
        self._path = folder / "agreed.json"
        self._stated = None if stated is None else terms_of(stated)

    def check(self, config: Config, run: str | None = None) -> None:
        """Whether nothing else was agreed to before.

        Args:
            config: what is asked for.
            run: the run's name (`run_of`), once it has a ledger; "" of one that will have one.

        Raises:
            Refusal: naming the settings that are not as agreed, or if it is another run.
        """
        with self._kept() as kept:
            self._check(kept, config, run)

    def require(self, config: Config, run: str | None = None) -> None:
        """Check, and agree to it from now on; durably, and before anything is answered."""
        with self._kept() as kept:
            self._check(kept, config, run)
            kept["terms"] = terms_of(config).to_json()
            if run is not None:
                kept["run"] = run

    def _check(self, kept: Mapping[str, Any], config: Config, run: str | None) -> None:
        agreed = self._stated or (from_values(kept["terms"]) if "terms" in kept else None)
        if agreed and (different := differences(agreed, terms_of(config))):
            # Further down are the owner's own words, such as labels.
            names = {".".join(name.split(".")[:2]) for name in different}
            raise Refusal(f"agreed to other settings: {', '.join(sorted(names))}.")
        if run is not None and kept.get("run", run) != run:
            raise Refusal("has answered another run from this folder.")

    def answer(self, charge: int) -> None:
        """Note, durably, that a round is answered, and all rounds before it.

        Raises:
            Refusal: if it was before.
        """
        with self._kept() as kept:
            if charge < kept.get("answered", 0):
                raise Refusal("this round was asked for before.")
            kept["answered"] = charge + 1

    @contextlib.contextmanager
    def _kept(self) -> Iterator[dict[str, Any]]:
        """What the file says; written again if it was changed. Others wait meanwhile."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._path.read_text(encoding="utf-8") if self._path.exists() else "{}"
            kept = json.loads(before)
            yield kept
            if kept != json.loads(before):
                self._store(kept)

    def _store(self, kept: dict[str, Any]) -> None:
        unfinished = self._path.with_suffix(".unfinished")
        with open(unfinished, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self._path)
        make_entry_durable(self._path)


def run_of(header: Mapping[str, Any]) -> str:
    """What a run is known by, from its ledger's header, which may be megabytes long."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
