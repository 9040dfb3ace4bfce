"""Synthetic rows: written by a run's model, in the columns it was tuned on, with its guarantee."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from commands import command

import hushtune
from hushtune import finetuning, generation
from hushtune.cli import main
from hushtune.cli.arguments import parse_run
from hushtune.comparison.folder import read_header
from hushtune.config import ConfigError
from hushtune.models.restore import TunedModel
from hushtune.report.terminal import TerminalProgress
from hushtune.tasks import generating
from hushtune.tasks.files import numbered
from hushtune.tasks.generating import Sampling, Written

WORDS = tiny_models.TEXTS[0].split()
TEMPLATE = "{label} review of a {product}:"


def rows_of(kind: str) -> list[dict[str, Any]]:
    """Private rows of a kind."""
    if kind == "chat":
        said = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "so it was"}]
        return [{"messages": said * (1 + row % 2)} for row in range(12)]
    texts = [" ".join(WORDS[row : row + 4]) for row in range(12)]
    if kind == "language-modelling":
        return [{"text": text} for text in texts]
    return [{"label": "good", "product": "book", "completion": text} for text in texts]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def flags_of(kind: str, data: str, output: Path, *more: str) -> list[str]:
    """Flags of a short run."""
    template = ["--task.template", TEMPLATE] if kind == "completion" else []
    privacy = [] if "mezo" in more else ["--privacy.epsilon", "4"]
    directions = [] if "dp-sgd" in more else ["--method.directions", "2"]
    return [
        "--data.train", data, "--task.kind", kind, "--data.max-length", LENGTHS[kind],
        "--data.max-completion-length", "8", "--method.steps", "2", "--method.batch", "6",
        "--output", str(output), *template, *privacy, *directions, *more,
    ]  # fmt: skip


#: Kind of task: family of the tiny model.
FAMILIES = {"language-modelling": "opt", "completion": "llama", "chat": "qwen3"}

LENGTHS = {"language-modelling": "16", "completion": "24", "chat": "48"}

Runs = Callable[..., Path]


@pytest.fixture(scope="module")
def runs(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Folders of finished runs, each tuned once; the private rows are beside them."""
    made: dict[tuple[str, ...], Path] = {}

    def run(kind: str, *more: str, family: str | None = None) -> Path:
        key = (kind, *more, family or "")
        if key not in made:
            folder = tmp_path_factory.mktemp(kind)
            model = tiny(family or FAMILIES[kind])
            if kind == "chat":
                model = tiny_models.with_chat(model, folder / "base")
            data = write(folder / "train.jsonl", rows_of(kind))
            flags = flags_of(kind, data, folder / "run", "--model.name", model, *more)
            finetuning.train(parse_run("train", flags)[0], TerminalProgress(quiet=True))
            made[key] = folder / "run"
        return made[key]

    return run


def prompts_of(kind: str) -> list[dict[str, Any]]:
    """Public prompts, in the form of the task's rows."""
    if kind == "language-modelling":
        return [{"text": "the plot was"}, {"text": "never"}]
    if kind == "completion":
        return [{"label": "bad", "product": "film", "source": "shop"}]
    return [{"messages": rows_of(kind)[1]["messages"]}]


@pytest.mark.parametrize("kind", FAMILIES)
def test_generated_rows_have_the_datas_columns_and_can_be_trained_on(
    kind: str, runs: Runs, tmp_path: Path, capsys: Any
):
    run, out = runs(kind), tmp_path / "synthetic.jsonl"
    prompts = write(tmp_path / "prompts.jsonl", prompts_of(kind))
    about = command(
        capsys, "generate", str(run), "--out", str(out), "--prompts", prompts, "--count", "14"
    )
    rows = read(out)
    assert len(rows) == about["rows"] == 14
    columns = list(rows_of(kind)[0])
    assert about["columns"] == columns
    assert all(list(row) == columns for row in rows)
    model = read_header(run)["config"]["model"]["name"]
    flags = flags_of(kind, str(out), tmp_path / "again", "--model.name", model)
    again = command(capsys, "train", *flags)
    assert again["epsilon"] <= 4


def test_a_prompt_stays_and_what_follows_is_written(runs: Runs):
    tuned = hushtune.load(runs("language-modelling"))
    rows = tuned.generate([{"text": "the plot was "}, {"text": "never"}], count=5)
    starts = ["the plot was", "never", "the plot was", "never", "the plot was"]
    for row, start in zip(rows, starts, strict=True):
        assert row["text"].startswith(start)
        assert len(row["text"]) > len(start)
    asked = [{"label": "bad", "product": "film", "completion": "what stands here is not looked at"}]
    (row,) = hushtune.load(runs("completion")).generate(asked)
    assert (row["label"], row["product"]) == ("bad", "film")
    assert row["completion"] not in ("", asked[0]["completion"])
    turns = rows_of("chat")[1]["messages"]
    for asked in (turns, turns[:-1], [*turns, turns[-1]]):
        (row,) = hushtune.load(runs("chat")).generate([{"messages": asked}])
        assert row["messages"][:3] == turns[:3]
        (said,) = row["messages"][3:]
        assert said["role"] == "assistant"
        assert said["content"] != turns[-1]["content"]


def test_conditions_fill_the_templates_columns_so_often(runs: Runs, tmp_path: Path, capsys: Any):
    out = tmp_path / "synthetic.jsonl"
    given = ["label=good,product=book, or two:3", "product=film: a=b,label=bad:2"]
    about = command(
        capsys, "generate", str(runs("completion")), "--out", str(out), "--conditions", *given
    )
    found = Counter((row["label"], row["product"]) for row in read(out))
    assert found == {("good", "book, or two"): 3, ("bad", "film: a=b"): 2}
    assert about["writing"]["prompts"] == given


def test_the_seed_decides_and_leaves_torchs_own_alone(runs: Runs, tmp_path: Path, capsys: Any):
    run = runs("language-modelling")
    tuned = hushtune.load(run)
    before = torch.random.get_rng_state()
    one, same, other = (tuned.generate(count=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one == same
    assert not any(row in other for row in one)
    out = tmp_path / "synthetic.jsonl"
    command(capsys, "generate", str(run), "--out", str(out), "--count", "4", "--seed", "1")
    assert read(out) == one


def test_the_file_beside_says_what_is_guaranteed_and_why(runs: Runs, tmp_path: Path, capsys: Any):
    run, out = runs("language-modelling"), tmp_path / "new" / "synthetic.jsonl"
    arguments = ["generate", str(run), "--out", str(out), "--count", "3", "--max-new-tokens", "4"]
    about = command(capsys, *arguments)
    assert about == json.loads((tmp_path / "new" / "synthetic.about.json").read_text())
    assert about["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert about["guarantee"] == json.loads((run / "privacy.json").read_text())
    assert about["model"]["base"].startswith("opt")
    assert not Path(about["model"]["base"]).is_absolute()
    assert "post-processing" in about["post_processing"]
    assert any("base model" in sentence for sentence in about["not_covered"])
    assert about["writing"]["max_new_tokens"] == 4
    out.unlink()
    with pytest.raises(SystemExit):
        main(arguments)
    shown = " ".join(capsys.readouterr().out.split())
    for term in ("3 of text", "ε = ", "δ = ", "per example", "post-processing", "not covered"):
        assert term in shown


def test_rows_of_a_run_without_privacy_or_of_dp_sgd_say_so(runs: Runs, tmp_path: Path, capsys: Any):
    plain = ("--method.name", "mezo", "--privacy.mechanism", "none")
    out = tmp_path / "plain.jsonl"
    run = runs("language-modelling", *plain)
    about = command(capsys, "generate", str(run), "--out", str(out), "--count", "2")
    assert about["guarantee"]["epsilon"] is None
    assert "WITHOUT PRIVACY" in about["post_processing"]
    run = runs("language-modelling", "--method.name", "dp-sgd")
    arguments = ["generate", str(run), "--count", "2", "--out"]
    about = command(capsys, *arguments, str(tmp_path / "compared.jsonl"))
    assert about["comparison"].startswith("comparison: ")
    assert about["guarantee"] == json.loads((run / "privacy.json").read_text())
    with pytest.raises(SystemExit):
        main([*arguments, str(tmp_path / "again.jsonl")])
    assert "comparison: " in capsys.readouterr().out


def test_an_encoder_decoder_writes_completions(runs: Runs):
    tuned = hushtune.load(runs("completion", family="t5"))
    rows = tuned.generate([{"label": "good", "product": "book"}], count=4)
    assert len({row["completion"] for row in rows}) > 1


def written(tuned: TunedModel, count: int, **settings: Any) -> list[Written]:
    """First tokens of documents."""
    readout: Any = tuned.readout
    with generating.public_randomness(0, torch.device("cpu")):
        return generating.write(
            tuned.model, tuned.tokenizer, [readout.begin("", room=8)] * count,
            most=1, sampling=Sampling(**settings),
        )  # fmt: skip


def test_tokens_are_drawn_as_the_model_has_them(runs: Runs):
    tuned = hushtune.load(runs("language-modelling"))
    readout: Any = tuned.readout
    with torch.no_grad():
        logits = tuned.model(torch.tensor([readout.begin("", room=8)])).logits[0, -1].double()
    likelihoods = logits.softmax(dim=-1)
    tuned.tokenizer.eos_token = None  # so that every token is counted
    ids = [each.ids[0] for each in written(tuned, 1200)]
    # A sampler that kept the 50 likeliest, as transformers does if not told, would show here.
    assert len(set(ids)) > 100
    common = int(likelihoods.argmax())
    expected = float(likelihoods[common])
    deviation = (expected * (1 - expected) / len(ids)) ** 0.5
    assert abs(ids.count(common) / len(ids) - expected) < 5 * deviation
    assert len({each.ids[0] for each in written(tuned, 100, top_k=3)}) == 3
    assert {each.ids[0] for each in written(tuned, 20, temperature=1e-4)} == {common}
    assert {each.ids[0] for each in written(tuned, 20, top_p=1e-6)} == {common}


def test_greedy_is_greedy_whatever_the_models_own_settings_say(runs: Runs):
    tuned = hushtune.load(runs("language-modelling"))
    readout: Any = tuned.readout

    def greedy() -> list[list[int]]:
        begins = [readout.begin("", room=8), readout.begin("the food was", room=8)]
        written = generating.write(tuned.model, tuned.tokenizer, begins, most=12)
        return [each.ids for each in written]

    before = greedy()
    assert max(before[0].count(token) for token in before[0]) > 1  # penalties would show
    own = tuned.model.generation_config
    own.num_beams, own.repetition_penalty, own.no_repeat_ngram_size = 3, 50.0, 1
    assert greedy() == before


class Said:
    """A model that says what it was told to, each time the next; then nothing more."""

    def __init__(self, tuned: TunedModel, patch: pytest.MonkeyPatch, *sayings: str) -> None:
        self._encode = lambda text: tuned.tokenizer(text, add_special_tokens=False)["input_ids"]
        self._end = tuned.tokenizer.eos_token_id
        self._sayings = list(sayings)
        patch.setattr(tuned.model, "generate", self)

    def __call__(self, *, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        said = [self._encode(self._sayings.pop(0)) for _ in input_ids]
        width = max(map(len, said)) + 1
        ended = [ids + [self._end] * (width - len(ids)) for ids in said]
        return torch.cat([input_ids, torch.tensor(ended)], dim=1)


def test_an_empty_text_is_drawn_again(runs: Runs, monkeypatch: pytest.MonkeyPatch):
    tuned = hushtune.load(runs("language-modelling"))
    Said(tuned, monkeypatch, "a good film", "", " \n", "never", "", "so it was")
    rows = tuned.generate(count=3)
    assert [row["text"] for row in rows] == ["a good film", "never", "so it was"]
    tries = generation._TRIES
    Said(tuned, monkeypatch, "a good film", *[""] * (2 * tries))
    found = tuned.generated(None, generation.Request(count=2))
    assert (len(found.rows), found.left_out, found.cut_off) == (1, 1, 0)


def test_a_document_goes_on_with_its_own_spacing(runs: Runs, monkeypatch: pytest.MonkeyPatch):
    tuned = hushtune.load(runs("language-modelling"))
    Said(tuned, monkeypatch, " was bad", ", so bad", "s\n were")
    rows = tuned.generate([{"text": "the plot "}], count=3)
    assert [row["text"] for row in rows] == [
        "the plot was bad",
        "the plot, so bad",
        "the plots\n were",
    ]


SPECIAL = tiny_models.CHAT_TEMPLATE.replace("</>", "<|endoftext|>").replace(
    "{{ message.content }}",
    "{% if message.role == 'assistant' %}<t></t> {% endif %}{{ message.content }}",
)


@pytest.mark.parametrize(
    ("template", "saying"),
    [
        (tiny_models.CHAT_TEMPLATE, "great film </>\n<u> why </>"),
        (SPECIAL, "<t></t> great film <|endoftext|>\n<u> why"),
    ],
    ids=["words", "a token"],
)
def test_a_turn_ends_where_the_chat_template_ends_it(
    template: str, saying: str, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = runs("chat")
    tuned = hushtune.load(run)
    tuned.tokenizer.chat_template = template
    readout: Any = tuned.readout
    readout._learn_surroundings()
    Said(tuned, monkeypatch, saying)
    asked = [{"messages": [{"role": "user", "content": "why"}]}]
    found = tuned.generated(numbered(asked, "rows"), generation.Request())
    assert found.rows[0]["messages"][1] == {"role": "assistant", "content": "great film"}
    assert found.cut_off == 0


def refusal(capsys: Any, *arguments: str) -> str:
    """The one line that a refused command prints."""
    with pytest.raises(SystemExit) as exit_:
        main(["generate", *arguments])
    assert exit_.value.code == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line.removeprefix("hushtune generate: ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "count: none is not accepted without prompts"),
        (("--count", "0"), "count: 0 is not accepted; it must be at least 1."),
        (("--count", "2", "--temperature", "0"), "temperature: 0.0 is not accepted"),
        (("--count", "2", "--top-p", "1.5"), "top_p: 1.5 is not accepted"),
        (("--count", "2", "--top-k", "-1"), "top_k: -1 is not accepted"),
        (("--count", "2", "--max-new-tokens", "15"), "max_new_tokens: 15 is not accepted"),
        (("--conditions", "text=a:0"), "conditions: 'text=a:0' is not accepted"),
        (("--conditions", "label=a:2"), "conditions: 'label=a:2' is not accepted"),
        (("--conditions", "text= :2"), "it must be text=VALUE:COUNT."),
        (("--conditions", "text=a,text=b:2"), "it must be text=VALUE:COUNT."),
        (("--conditions", "text=a:2", "--count", "2"), "count: 2 is not accepted"),
        (("--conditions", "text=a:2", "--prompts", "x"), 'prompts: "x" is not accepted'),
        (("--prompts", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    flags: tuple[str, ...], message: str, runs: Runs, tmp_path: Path, capsys: Any
):
    out = tmp_path / "synthetic.jsonl"
    assert message in refusal(capsys, str(runs("language-modelling")), "--out", str(out), *flags)
    assert not list(tmp_path.glob("synthetic*"))


def test_private_data_is_no_prompt_and_no_file_is_overwritten(
    runs: Runs, tmp_path: Path, capsys: Any
):
    run = runs("language-modelling")
    private = str(run.parent / "train.jsonl")
    asked = [str(run), "--count", "2", "--out"]
    out = str(tmp_path / "synthetic.jsonl")
    said = refusal(capsys, *asked, out, "--prompts", private)
    assert "not the run's private training data" in said
    before = Path(private).read_bytes()
    assert "it must be a new file" in refusal(capsys, *asked, private)
    assert Path(private).read_bytes() == before
    assert "a file ending in .jsonl" in refusal(capsys, *asked, str(tmp_path / "a.json"))


def test_prompts_are_needed_where_nothing_begins_by_itself(runs: Runs, tmp_path: Path, capsys: Any):
    out = str(tmp_path / "synthetic.jsonl")
    said = refusal(capsys, str(runs("completion")), "--out", out, "--count", "2")
    assert "it must be rows with label, product." in said
    chat = str(runs("chat"))
    assert "it must be rows with messages." in refusal(capsys, chat, "--out", out, "--count", "2")
    assert "give prompts" in refusal(capsys, chat, "--out", out, "--conditions", "messages=a:2")
    alone = [{"messages": [{"role": "assistant", "content": "so"}]}]
    prompts = write(tmp_path / "prompts.jsonl", alone)
    said = refusal(capsys, chat, "--out", out, "--prompts", prompts)
    assert said.endswith("prompts.jsonl, row 1: messages has no turn for the assistant to answer.")


def test_a_model_that_learned_no_text_generates_none(
    run_arguments: list[str], tmp_path: Path, capsys: Any
):
    with pytest.raises(SystemExit):
        main(["train", *run_arguments, "--json"])
    capsys.readouterr()
    run = tmp_path / "run"
    said = refusal(capsys, str(run), "--count", "2", "--out", str(tmp_path / "synthetic.jsonl"))
    assert said.startswith("task.kind: classification is not accepted; text is generated by runs")
    with pytest.raises(ConfigError, match=r"task\.kind: classification is not accepted"):
        hushtune.load(run).generate(count=2)


def test_nothing_is_left_of_what_was_interrupted(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generation.WritingReadOut, "write", fail)
    out = tmp_path / "synthetic.jsonl"
    with pytest.raises(SystemExit) as exit_:
        main(["generate", str(runs("language-modelling")), "--out", str(out), "--count", "2"])
    assert exit_.value.code == 130
    assert not list(tmp_path.iterdir())


def test_a_result_generates_as_the_loaded_run_does(runs: Runs):
    run = runs("language-modelling")
    tuned = hushtune.load(run)
    rows = hushtune.Result(run, tuned, {}, {}).generate(count=3, seed=5, temperature=0.7)
    assert rows == tuned.generate(count=3, seed=5, temperature=0.7)
    assert [list(row) for row in rows] == [["text"]] * 3
