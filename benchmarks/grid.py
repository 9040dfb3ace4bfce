"""How far the default settings are from the best of a grid, without looking at what is best first.

    python benchmarks/grid.py DATA MODEL [--tasks sst2 trec] [--epsilon 2] [--out FILE]

DATA holds sst2/ and trec/ with train.jsonl and test.jsonl; MODEL is a sentence encoder. The
configurations are examples/sst2.yaml and examples/trec.yaml with 4 learning rates x 3 clips x 2
numbers of directions in place of `auto`, and the defaults, `--repeats` times each. Accuracies are
those on test.jsonl, and the best of the grid is the best on it: a reader who could choose like that
would have looked at the test data, so the defaults are held to more than anybody can have.

The clip is given per direction, in units of the slope that the defaults take for typical. Runs that
FILE has already are not repeated. All runs share the frozen encoder's features of the texts.
"""

import argparse
import itertools
import json
import math
import shutil
import statistics
import tempfile
from pathlib import Path

from hushtune.config import from_values, load
from hushtune.run import train

LEARNING_RATES = (0.25, 0.5, 1.0, 2.0)
CLIPS = (0.375, 0.75, 1.5)
DIRECTIONS = (16, 64)

EXAMPLES = Path(__file__).parent.parent / "examples"


class Seen:
    """What a run says while it goes on: its typical slope is wanted for the clips of others."""

    typical_slope = math.nan

    def started(self, session, charges):
        del charges
        self.typical_slope = session.settings.typical_slope

    def stepped(self, steps):
        pass

    def evaluated(self, name, metrics):
        pass


def main():
    chosen = arguments()
    found = known(chosen.out)
    for task in chosen.tasks:
        features = {}
        grid = [dict.fromkeys(("learning_rate", "clip", "directions"), "auto")]
        points = itertools.product(LEARNING_RATES, CLIPS, DIRECTIONS)
        grid += [{"learning_rate": a, "clip": c, "directions": k} for a, c, k in points]
        slope = next((each["slope"] for each in found if each["task"] == task), math.nan)
        for repeat, point in itertools.product(range(chosen.repeats), grid):
            name = {"task": task, "repeat": repeat, **point}
            if any(name.items() <= each.items() for each in found):
                continue
            result = run(chosen, name, slope, features)
            slope = result["slope"]
            found.append(result)
            with chosen.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)
    print_tables(found)


def run(chosen, name, slope, features):
    """Accuracy of one point."""
    values = load(EXAMPLES / f"{name['task']}.yaml").to_json()
    values["model"]["name"] = chosen.model
    data = Path(chosen.data) / name["task"]
    values["data"] |= {"train": str(data / "train.jsonl"), "eval": str(data / "test.jsonl")}
    values["privacy"]["epsilon"] = chosen.epsilon
    clip, directions = name["clip"], name["directions"]
    if clip != "auto":
        clip = clip * slope * math.sqrt(directions)
    values["method"] |= {
        "learning_rate": name["learning_rate"],
        "directions": directions,
        "clip_norm": clip,
    }
    values["seed"] = name["repeat"]
    folder = tempfile.mkdtemp()
    seen = Seen()
    try:
        summary = train(from_values(values | {"output": folder}), seen, features=features)
    finally:
        shutil.rmtree(folder)
    measured = ("private_accuracy", "zero_shot_accuracy", "epsilon", "seconds")
    return name | {key: summary[key] for key in measured} | {"slope": seen.typical_slope}


def print_tables(found):
    """A table for each task: rows are K and clip, columns learning rates, and the defaults."""
    for task in dict.fromkeys(each["task"] for each in found):
        accuracy = {}
        for each in found:
            if each["task"] == task:
                point = (each["directions"], each["clip"], each["learning_rate"])
                accuracy.setdefault(point, []).append(100 * each["private_accuracy"])
        means = {point: statistics.mean(values) for point, values in accuracy.items()}
        default = means.pop(("auto", "auto", "auto"))
        print(f"\n{task}: defaults {default:.1f} %, best of {len(means)} ", end="")
        print(f"{max(means.values()):.1f} %, median {statistics.median(means.values()):.1f} %\n")
        print("| K | clip | " + " | ".join(f"a = {a}" for a in LEARNING_RATES) + " |")
        print("|" + "---|" * (2 + len(LEARNING_RATES)))
        for directions, clip in itertools.product(DIRECTIONS, CLIPS):
            cells = [means.get((directions, clip, a)) for a in LEARNING_RATES]
            shown = ["" if cell is None else f"{cell:.1f}" for cell in cells]
            print(f"| {directions} | {clip} | " + " | ".join(shown) + " |")


def known(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "trec"])
    parser.add_argument("--epsilon", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("grid.jsonl"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
