"""How much of a step's forward passes is padding and dummy rows, on real texts.

    python benchmarks/buckets.py DATA/sst2/train.jsonl DATA/trec/train.jsonl [--model MINILM]

For Poisson samples of several expected sizes, prints as Markdown how many tokens the micro-batches
have for every token of a text, how many micro-batches a step needs, and the same for micro-batches
of the longest text's length alone. Only lengths matter, so no model is run.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from hushtune.demo.demonstration import encoder_folder
from hushtune.sizing import costs
from hushtune.tasks.batches import Batcher, Shape, bucket_shapes

BATCHES = (8, 64, 256, 1000)
STEPS = 60


def lengths_of(path, tokenizer, longest):
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [min(longest, len(ids)) for ids in tokenizer(texts)["input_ids"]]


def measure(lengths, shapes, batch, random):
    """Tokens computed for every token of a text, and micro-batches a step."""
    batcher = Batcher(lengths, lambda length: length, shapes, 0)
    computed = real = passes = 0
    for _ in range(STEPS):
        rows = np.flatnonzero(random.random(len(lengths)) < batch / len(lengths))
        for places, _, shape in batcher.batches(rows):
            computed += shape.rows * shape.length
            real += sum(lengths[row] for row in rows[places])
            passes += 1
    return computed / real, passes / STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--model", default=encoder_folder())
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    random = np.random.default_rng(0)
    print("| data | moves | units a step | tokens ÷ real | micro-batches | one length ÷ real |")
    print("|---|---|---:|---:|---:|---:|")
    for path in options.data:
        lengths = lengths_of(path, tokenizer, options.max_length)
        for moves in ("few", "all"):
            overhead, tokens = costs(torch.device("cpu"), all_move=moves == "all")
            for batch in BATCHES:
                shapes = bucket_shapes(
                    max_length=options.max_length,
                    tokens=tokens,
                    sequences=1,
                    expected_rows=batch,
                    overhead=overhead,
                )
                one = [Shape(min(batch, tokens // options.max_length), options.max_length)]
                found, passes = measure(lengths, shapes, batch, random)
                alone, _ = measure(lengths, one, batch, random)
                name = path.parent.name or path.name
                print(f"| {name} | {moves} | {batch} | {found:.2f} | {passes:.0f} | {alone:.1f} |")


if __name__ == "__main__":
    main()
