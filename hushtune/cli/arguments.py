"""Arguments that several commands share."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from hushtune import config as configuration
from hushtune.config import Config
from hushtune.tasks.columns import column_names, with_kind
from hushtune.tasks.files import read_rows

#: Flags that every run needs, and what they are short for.
_SHORT = {"--model": "--model.name", "--data": "--data.train", "--epsilon": "--privacy.epsilon"}


def parse_run(command: str, arguments: Sequence[str], *, also: str = "") -> tuple[Config, bool]:
    """A configuration from `[run.yaml] [--section.key value …] [--json]`, flags over file.

    Where neither a file nor a flag says anything of the task, its kind follows from the names of
    the data's columns, and the same command in full is printed.

    Args:
        also: flags of the command's own, for its help.

    Returns:
        The configuration, and whether --json was given.
    """
    rest = [_in_full(argument) for argument in arguments]
    as_json = "--json" in rest
    if as_json:
        rest.remove("--json")
    config = Config()
    task_is_said = any(argument.startswith("--task.") for argument in rest)
    if rest and not rest[0].startswith("-"):
        config = configuration.load(rest.pop(0))
        task_is_said = True
    config = over_file(f"{command} [run.yaml]{also}", config, rest)
    if task_is_said or not config.data.train:
        return config, as_json
    columns = column_names(read_rows(config.data.train), config.data.train)
    config = with_kind(config, columns)
    if not as_json:
        full = ["hushtune", command, *rest, "--task.kind", config.task.kind]
        print(f"{config.task.kind}, by the columns {', '.join(columns)}; the same in full:")
        print(f"  {shlex.join(full)}\n")
    return config, as_json


def over_file(command: str, config: Config, flags: Sequence[str]) -> Config:
    """The configuration of a file, with what flags say in place of what it says."""
    rest = [_in_full(flag) for flag in flags]
    # As in the file, where `privacy: none` stands for the whole section.
    if "--privacy=none" in rest:
        rest[rest.index("--privacy=none")] = "--privacy.mechanism=none"
    for index in range(len(rest) - 1):
        if rest[index : index + 2] == ["--privacy", "none"]:
            rest[index : index + 2] = ["--privacy.mechanism", "none"]
            break
    return parse_flags(
        Config,
        rest,
        prog=f"hushtune {command}",
        default=config,
        description="Settings as in the YAML file; --json prints a machine-readable result. Short: "
        "--model, --data and --epsilon; with these alone, the names of the data's columns tell the "
        "task.",
        config=(tyro.conf.FlagConversionOff,),
    )


def _in_full(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return _SHORT.get(flag, flag) + equals + value


def parse_flags(
    target: Callable[..., Any], arguments: Sequence[str], *, prog: str, **options: Any
) -> Any:
    """`tyro.cli`, whose refusals are one line each.

    Raises:
        SystemExit: with 0 after --help, with 2 for flags that cannot be used.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(target, args=list(arguments), prog=prog, **options)
    except SystemExit as exit_:
        if exit_.code:
            command = " ".join(prog.split()[:2])
            reason = _in_one_line(complaint.getvalue())
            print(f"{command}: {reason} See {command} --help.", file=sys.stderr)
        raise


def _in_one_line(box: str) -> str:
    """What a box of tyro's complains about: its first section, and the flag it is about."""
    lines = [line.strip(" │╭╮╰╯") for line in box.splitlines()]
    sections: list[list[str]] = [[]]
    for line in filter(None, lines[1:]):  # the first line is the box's title
        if set(line) <= {"-", "─"}:
            sections.append([])
        else:
            sections[-1].append(line)
    reason, *rest = [" ".join(section) for section in sections if section]
    reason = reason.partition(" Got errors:")[0].rstrip(".!") + "."
    for section in rest:
        if flag := re.match(r"Perhaps you meant: (--\S+)", section):
            reason += f" Did you mean {flag[1]}?"
        if accepted := re.match(r"Argument helptext: (--\S+ (\[.*\]|\S+))", section):
            reason += f" Accepted: {accepted[1]}."
    return reason
