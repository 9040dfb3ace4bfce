"""Tune any module privately, given a function that returns one loss per example.

    from hushtune import core

    tuned = core.tune(
        network,                                         # any torch.nn.Module
        lambda network, batch: cross_entropy(network(batch["x"]), batch["y"], reduction="none"),
        {"x": images, "y": labels},                      # the private data
        public={"x": noise, "y": some_labels},           # made-up examples of the same kind
        epsilon=2.0,
        ledger="runs/digits/ledger.jsonl",
    )

The module is changed in place. The steps, the clip, the noise and the ledger are those of
`hushtune train`; `hushtune privacy` reads the ledger, and `replay` makes the module again from it.
"""

from hushtune.core.tuning import Tuned, replay, tune

__all__ = ["Tuned", "replay", "tune"]
