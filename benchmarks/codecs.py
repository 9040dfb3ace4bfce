"""How much of a real update each codec keeps, beside what it keeps of synthetic ones.

    python benchmarks/codecs.py --data DATA [--rows 100]

Updates are gradients by LoRA's parameters of MiniLM on rows of sst2/test.jsonl, which nothing was
trained on, clipped as a run would clip them; before the first round, and where the parameters have
moved (every entry by normal noise of 0.02), since LoRA's A has no gradient while B is zero. The
codecs know moments of other rows' updates (no noise) or of public text. Prints Markdown.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from utility import EXAMPLES, minilm

from hushtune.config.reading import load
from hushtune.federated.codecs import LinearCodec, Prior, cosine_on_draws, moments, train
from hushtune.federated.codecs.acceptance import cosine, projection_cosine
from hushtune.federated.codecs.randomness import generator
from hushtune.federated.first_order.gradients import ExampleGradients
from hushtune.loading import load_moving
from hushtune.probe import dummy_data
from hushtune.tasks.data import read_labelled_text


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of sst2/")
    parser.add_argument("--model", default=minilm(), help="the encoder; MiniLM if left out")
    parser.add_argument("--rows", type=int, default=100, help="held-out rows")
    parser.add_argument("--steps", type=int, default=2000, help="of an auto-encoder's training")
    chosen = parser.parse_args()
    config = load(EXAMPLES / "sst2.yaml")
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, name=chosen.model, tune="lora")
    )
    loaded, _, parameters = load_moving(config)
    data = read_labelled_text(
        str(chosen.data / "sst2" / "test.jsonl"), config.data, config.task, with_units=True
    )
    print("| parameters | prior | codec | numbers | cosine, real | beyond the mean | synthetic |")
    print("|---|---|---|---|---|---|---|")
    networks = {}
    for where in ("at the start", "moved"):
        if where == "moved":
            draw = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in parameters.values():
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw))
        gradients = ExampleGradients(loaded.readout, parameters, data)
        real = updates_of(gradients, range(2 * chosen.rows))
        public = ExampleGradients(loaded.readout, parameters, dummy_data(loaded))
        sources = {"private": real[chosen.rows :], "public": updates_of(public, range(48))}
        clip = 0.25 * float(np.median(np.linalg.norm(sources["public"], axis=1)))
        held_out = clipped(real[: chosen.rows], clip)
        for name, source in sources.items():
            layers = gradients.flat.layers
            found = moments(source, clip, layers).mean(axis=0)
            prior = Prior.from_moments(found, clip, layers)
            for ratio in (8, 64):
                linear = LinearCodec(prior, round(prior.dimension / ratio), "0 round 1")
                if ratio not in networks:
                    networks[ratio] = train(prior, 1 / ratio, 0, chosen.steps).network
                trained = dataclasses.replace(
                    train(prior, 1 / ratio, 0, 0), network=networks[ratio]
                )
                for codec in (linear, trained):
                    row = of_codec(codec, prior, held_out)
                    bound = projection_cosine(codec.size, codec.dimension)
                    print(
                        f"| {where} | {name} | {codec.kind}, 1/{ratio} | {codec.size} "
                        f"| {row[0]:.3f} | {row[1]:.3f} | {row[2]:.3f} (bound {bound:.3f}) |",
                        flush=True,
                    )
    return 0


def updates_of(gradients, rows):
    return np.stack([gradients.of_row(row) for row in rows])


def clipped(updates, clip):
    lengths = np.linalg.norm(updates, axis=1, keepdims=True)
    return updates * np.minimum(1.0, clip / lengths)


def of_codec(codec, prior, updates):
    """Mean cosines: of real updates, of what they have beyond the prior's mean, of draws."""
    decoded = [codec.decode(codec.encode(each), 0.0) for each in updates]
    whole = [cosine(each, back) for each, back in zip(updates, decoded, strict=True)]
    beyond = [
        cosine(each - prior.mean, back - prior.mean)
        for each, back in zip(updates, decoded, strict=True)
    ]
    drawn = cosine_on_draws(codec, prior, generator(1, "benchmark"), 30)
    return np.mean(whole), np.mean(beyond), np.mean(drawn)


if __name__ == "__main__":
    sys.exit(main())
