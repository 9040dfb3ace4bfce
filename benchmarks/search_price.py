"""What choosing settings privately costs: the tables of docs/choosing-settings.md.

python benchmarks/search_price.py
"""

from __future__ import annotations

from hushtune.privacy.accounting import calibrate, epsilon
from hushtune.privacy.accounting.search import Training, calibrate_search
from hushtune.privacy.accounting.stopping import DISTRIBUTIONS, Stopping

DELTA = 1e-5
STEPS = Training(sampling_probability=0.1, steps=500, directions=64)


def best_among(stopping: Stopping, share: float) -> float:
    """Probability that some run is among this share of the best runs."""
    weights = [1.0]
    while weights[-1] > 1e-15 * max(weights) or len(weights) < 10:
        weights.append(weights[-1] * float(stopping.ratio(len(weights))))
    missed = sum(weight * (1 - share) ** runs for runs, weight in enumerate(weights, start=1))
    return 1 - missed / sum(weights)


def main() -> None:
    """Print a table for each ε."""
    terms = {"sampling_probability": 0.1, "steps": 500, "delta": DELTA, "mechanism": "gaussian"}
    for target in (1.0, 2.0, 8.0):
        alone = calibrate(**terms, epsilon=target)
        print(f"\nε = {target:g}; a single run takes noise {alone:.3f}\n")
        print(
            "| distribution | expected runs | in nine of ten searches | noise | by a single run's "
            "| ε of one run | in the best quarter | in the best tenth |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for mean in (3, 5, 10, 30):
            for name, with_mean in DISTRIBUTIONS.items():
                stopping = with_mean(mean)
                search = calibrate_search(
                    epsilon=target,
                    delta=DELTA,
                    stopping=stopping,
                    trainings=[STEPS],
                    noise_scale_integer=2**32,
                )
                noise = search.training(STEPS).noise_multiplier
                one = epsilon(**terms, noise_multiplier=noise)
                print(
                    f"| {name} | {mean} | {stopping.quantile(0.05)} to {stopping.quantile(0.95)} "
                    f"| {noise:.2f} | {noise / alone:.2f} | {one:.2f} "
                    f"| {best_among(stopping, 0.25):.0%} | {best_among(stopping, 0.1):.0%} |"
                )


if __name__ == "__main__":
    main()
