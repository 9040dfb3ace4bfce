"""Arguments that several commands share."""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from hushtune import config as configuration
from hushtune.config import Config


def parse_run(command: str, arguments: Sequence[str]) -> tuple[Config, bool]:
    """A configuration from `[run.yaml] [--section.key value …] [--json]`, flags over file.

    Returns:
        The configuration, and whether --json was given.
    """
    rest = list(arguments)
    as_json = "--json" in rest
    if as_json:
        rest.remove("--json")
    config = Config()
    if rest and not rest[0].startswith("-"):
        config = configuration.load(rest.pop(0))
    for index in range(len(rest) - 1):
        if rest[index : index + 2] == ["--privacy", "none"]:
            rest[index : index + 2] = ["--privacy.mechanism", "none"]
            break
    config = tyro.cli(
        Config,
        default=config,
        args=rest,
        prog=f"hushtune {command} [run.yaml]",
        description="Settings as in the YAML file; --json prints a machine-readable result.",
        config=(tyro.conf.FlagConversionOff,),
    )
    return config, as_json
