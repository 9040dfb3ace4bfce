"""The command line: `hushtune COMMAND …`; one module per command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

#: Command: (module, what it does).
COMMANDS = {
    "train": ("train", "adapt a model to private text, or go on where a run stopped"),
    "federate": ("federate", "rounds between a server and clients that keep their data"),
    "plan": ("plan", "noise, ε, expected time and memory; the data is only counted"),
    "tune": ("tune", "the best of several settings, chosen and paid for privately"),
    "eval": (
        "evaluate",
        "how well a run's model does: exactly if data is public, else noised",
    ),
    "generate": ("generate", "synthetic text to share, written by a run's model"),
    "privacy": ("privacy", "ε recomputed from a run's ledger alone"),
    "audit": ("audit", "an empirical lower bound on ε, from attacks on the code as it runs"),
    "replay": ("replay", "the tuned model again, from ledger and base model, bit for bit"),
    "verify": ("verify", "a run checked without its data, and a certificate of it to file"),
    "bench": ("bench", "what a step costs beside its forward passes, with random weights"),
    "demo": ("demo", "all of it in two minutes, on data made for the purpose"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exits with 0, with 1 for a refusal, with 2 for unusable arguments."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        from hushtune import __version__

        print(f"hushtune {__version__}")
        sys.exit(0)
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"hushtune: no command {name!r}.\n\n{_usage()}", file=sys.stderr)
        sys.exit(2)
    command = importlib.import_module(f"hushtune.cli.{COMMANDS[name][0]}")
    try:
        sys.exit(command.run(rest))
    except _refusals() as refusal:
        print(f"hushtune {name}: {_one_line(refusal)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        # Terminals show ^C, and a progress bar may be half drawn.
        fresh_line = "\n" if sys.stderr.isatty() else ""
        goes_on = "; the same command goes on" if name in ("train", "federate", "demo") else ""
        print(f"{fresh_line}hushtune {name}: interrupted{goes_on}.", file=sys.stderr)
        sys.exit(130)


def _refusals() -> tuple[type[Exception], ...]:
    """Errors whose message is meant for the person at the terminal."""
    from hushtune.privacy.chain import ChainError

    # ValueError covers ConfigError, DataError, ProbeError and the plan's own refusals; ChainError
    # those of ledger and registry.
    return (ValueError, ChainError, OSError)


def _one_line(refusal: Exception) -> str:
    if isinstance(refusal, OSError) and refusal.filename and refusal.strerror:
        if isinstance(refusal, FileNotFoundError) and _lacks_a_ledger(Path(refusal.filename)):
            return f"{Path(refusal.filename).parent} holds a comparison run (dp-sgd), no ledger."
        return f"{refusal.filename}: {refusal.strerror.lower()}."
    return " ".join(str(refusal).split())


def _lacks_a_ledger(missing: Path) -> bool:
    """Whether what is missing is the ledger that a comparison run never had."""
    from hushtune.comparison.folder import holds_comparison

    return missing.name == "ledger.jsonl" and holds_comparison(missing.parent)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: hushtune COMMAND …", "", *lines, "", "hushtune COMMAND --help says more."]
    )
