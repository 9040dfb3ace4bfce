"""Writes the measured parts of docs/performance.md and its plots.

    hushtune bench --sweep --out bench.json
    python benchmarks/performance.py bench.json [quick.json …] --out docs/

Everything between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced. Several files of
results are put together; of a case that is in more than one, the last is taken, and so are the
passes over parameters of the last file.
"""

import argparse
import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from hushtune.bench import tables

AXES = {
    "tokens": "tokens a step",
    "micro_batch_tokens": "tokens a forward pass",
    "length": "tokens a text",
    "directions": "directions K",
    "size": "parameters",
}


def parts(results):
    """The text of every part that is measured, by name."""
    rows = list({row["case"]: row for result in results for row in result["rows"]}.values())
    found = {
        "machine": machine(results),
        "command": "\n".join(f"    {result['command']}" for result in results),
        "steps": tables.step_markdown(rows),
        "device": tables.device_markdown(rows),
        "drift": tables.drift_markdown(rows),
        "kernels": tables.kernel_markdown(results[-1]["kernels"]),
    }
    sweeps = all_sweeps(results)
    return found | {f"sweep {what}": sweep_markdown(what, some) for what, some in sweeps.items()}


def all_sweeps(results):
    """By what varies; sizes of models are also in the table of steps."""
    found = {what: some for result in results for what, some in result.get("sweep", {}).items()}
    if "size" not in found:
        steps = {row["case"]: row for result in results for row in result["rows"]}
        found["size"] = [row for case, row in steps.items() if case.endswith(" full, K = 1")]
    return found


def machine(results):
    lines = []
    for result in results:
        known = dict(result["machine"])
        where = (
            f"{known.pop('processor')}, {known.pop('cores')} cores of which "
            f"{known.pop('threads')} used, {known.pop('memory_gib')} GiB"
        )
        if "gpu" in known:
            where = f"{known.pop('gpu')}, {known.pop('gpu_gib')} GiB; " + where
        versions = ", ".join(f"{name} {version}" for name, version in known.items())
        lines.append(f"{where}; {versions}.")
    return "\n".join(dict.fromkeys(lines))


def figure_name(what):
    return f"step-by-{what.replace('_', '-')}.svg"


def position(what, row):
    from hushtune.bench.models import SIZES

    return SIZES[row["size"]].parameters if what == "size" else row[what]


def sweep_markdown(what, rows):
    lines = [
        f"| {AXES[what]} | estimator | s a step | ratio | of processor time |",
        "|---:" * 5 + "|",
    ]
    for row in rows:
        cells = [f"{position(what, row):,}", row["estimator"]]
        if "skipped" in row:
            cells += [row["skipped"], "", ""]
        else:
            cells += [
                f"{row['seconds_per_step']:.3g}",
                f"{row['ratio_to_forwards']:.3f}",
                f"{row['processor_ratio']:.3f}" if row["processor_ratio"] else "",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(what, rows, path):
    """Seconds of a step and of its forward passes, against one thing."""
    figure, axes = plt.subplots(figsize=(4.2, 3.0))
    for estimator, colour in (("two-sided", "tab:blue"), ("one-sided", "tab:orange")):
        some = [row for row in rows if row["estimator"] == estimator and "skipped" not in row]
        if not some:
            continue
        at = [position(what, row) for row in some]
        label = f"step, {estimator}" if what == "directions" else "step"
        axes.plot(at, [row["seconds_per_step"] for row in some], "o-", color=colour, label=label)
        passes = [row["forward_seconds"] for row in some]
        axes.plot(at, passes, "x--", color=colour, alpha=0.6, label="its forward passes")
    axes.set(xscale="log", yscale="log", xlabel=AXES[what], ylabel="seconds")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    figure.tight_layout()
    # Without date and random identifiers, so that equal numbers give equal files.
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def rewritten(text, found):
    """The page with its measured parts replaced."""

    def block(match):
        name = match[1]
        if name not in found:
            return match[0]
        return f"<!-- begin {name} -->\n\n{found[name]}\n\n<!-- end {name} -->"

    return re.sub(r"<!-- begin (.+?) -->.*?<!-- end \1 -->", block, text, flags=re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="written by hushtune bench --out")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    results = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
    page = options.out / "performance.md"
    page.write_text(rewritten(page.read_text(encoding="utf-8"), parts(results)), encoding="utf-8")
    matplotlib.rcParams.update({"svg.hashsalt": "hushtune", "svg.fonttype": "none"})
    figures = options.out / "figures"
    figures.mkdir(exist_ok=True)
    for what, rows in all_sweeps(results).items():
        plot(what, rows, figures / figure_name(what))


if __name__ == "__main__":
    main()
