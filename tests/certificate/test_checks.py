"""Every check is seen to fail, by a change that concerns little else; then nothing is certified."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_reviews
from safetensors import safe_open
from safetensors.torch import save_file
from verifying import Runs, Verify, has_certificate, head_of, rewrite

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger

ALL = [
    "ledger",
    "ledger head",
    "private",
    "complete",
    "guarantee",
    "second accountant",
    "base model",
]
ALL += ["weights", "other files", "summary"]


def cut(run: Path, lines: int) -> None:
    """Keep the first lines of the ledger."""
    ledger = run / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:lines]))


def forge(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Another header with the same releases, and hashes that follow from each other."""
    record = ledgers.read(run / "ledger.jsonl")
    (run / "ledger.jsonl").unlink()
    change(record.header)
    with Ledger(run / "ledger.jsonl", record.header) as ledger:
        for index, values in record.releases.items():
            assert ledger.charge() == index
            ledger.release(index, values)


@pytest.fixture
def verify(capsys) -> Verify:
    return Verify(capsys)


@pytest.fixture
def runs(tiny, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Runs:
    return Runs(tiny, tmp_path_factory.getbasetemp() / "verified", tmp_path)


@pytest.fixture
def head(runs: Runs) -> Path:
    """A run that moved a head: per row, Gaussian noise."""
    return runs.copy("head")


@pytest.fixture
def lora(runs: Runs) -> Path:
    """A run that moved an adapter: per user, Laplace noise."""
    return runs.copy("lora")


@pytest.mark.parametrize("kind", ["head", "lora"])
def test_an_honest_run_passes_every_check(verify: Verify, runs: Runs, tmp_path: Path, kind: str):
    run = runs.finished(kind)
    out = tmp_path / "out"
    checks = verify.checks(run, "--out", out, "--expect", head_of(run))
    assert list(checks) == ALL
    accountant = checks.pop("second accountant")[0]
    assert accountant == {"head": "passed", "lora": "not applicable"}[kind]  # lora is pure ε
    assert {status for status, _ in checks.values()} == {"passed"}
    # Somewhere else, the model included, it is the same run.
    moved = shutil.copytree(run, tmp_path / "moved")
    base = shutil.copytree(
        ledgers.read(run / "ledger.jsonl").header["config"]["model"]["name"], tmp_path / "base"
    )
    checks = verify.checks(moved, "--model", base, "--out", out)
    assert {status for status, _ in checks.values()} == {"passed", "not applicable"}
    assert checks["ledger head"][0] == "not applicable"


@pytest.mark.parametrize("line", [1, 2, 3, 11])
def test_a_flipped_bit_in_the_ledger_is_found_on_its_line(verify: Verify, head: Path, line: int):
    ledger = head / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[line - 1])
    damaged[len(damaged) // 2] ^= 1
    ledger.write_bytes(b"".join([*lines[: line - 1], bytes(damaged), *lines[line:]]))
    failed = verify.failed(head)
    assert list(failed) == ["ledger"]
    assert failed["ledger"].startswith(f"{ledger}, line {line}: ")
    assert failed["ledger"][-1].isalpha()  # whoever prints it ends the sentence
    others = [
        status for name, (status, _) in verify.checks(head, code=1).items() if name != "ledger"
    ]
    assert set(others) == {"not applicable"}
    assert not has_certificate(head)


def test_a_header_without_what_is_certified_is_refused(verify: Verify, head: Path):
    forge(head, lambda header: header.pop("base_sha256"))
    assert verify.failed(head)["ledger"].endswith("line 1: the header lacks base_sha256")


@pytest.mark.parametrize("name", ["settings", "label_vectors"])
def test_a_header_that_cannot_be_replayed_is_refused(verify: Verify, head: Path, name: str):
    expected = {"guarantee", "base model"}
    forge(head, lambda header: header.pop(name))
    failed = verify.failed(head)
    assert failed.keys() == expected
    assert "line 1: the header cannot be used (KeyError" in failed["base model"]


def test_an_end_that_was_cut_off_is_found_by_the_expected_head(verify: Verify, head: Path):
    expected = head_of(head)
    cut(head, 9)  # header and four steps: as if the fifth had never been
    failed = verify.failed(head, "--expect", expected)
    assert failed["ledger head"].endswith(f"expected was {expected}")
    assert "ledger head" not in verify.failed(head)
    assert not has_certificate(head)


def test_a_last_release_that_was_cut_off_is_found_by_the_weights(verify: Verify, head: Path):
    cut(head, 10)
    failed = verify.failed(head)
    assert failed.keys() == {"guarantee", "weights", "summary"}
    assert "tensor linear.weight differs from the replay in 64 of 64" in failed["weights"]


@pytest.mark.parametrize("expected", ["", "12ab", "x" * 64, "0" * 63, "0" * 65])
def test_an_expected_head_that_is_no_hash_is_refused(verify: Verify, head: Path, expected: str):
    assert verify(head, f"--expect={expected}", code=1)[1].startswith("--expect: ")


def test_an_expected_head_may_be_in_capitals(verify: Verify, head: Path):
    assert verify.checks(head, "--expect", head_of(head).upper())["ledger head"][0] == "passed"


def test_a_run_without_privacy_is_not_certified(verify: Verify, runs: Runs, tmp_path: Path):
    failed = verify.failed(runs.finished("mezo"), "--out", tmp_path / "out")
    assert failed == {
        "private": "This run has no privacy: nothing was clipped and no noise added. There is "
        "nothing to certify"
    }
    assert not (tmp_path / "out").exists()


def test_a_run_whose_noise_was_injected_is_not_certified(verify: Verify, head: Path):
    forge(head, lambda header: header.update(private=False))
    assert verify.failed(head).keys() == {"private"}
    forge(head, lambda header: header.update(private="yes"))
    assert verify.failed(head).keys() == {"private"}


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda header: header["config"]["data"].update(unit="user_id"), "differ in unit"),
        (lambda header: header["plan"].update(adjacency="replace-one"), "differ in adjacency"),
        (lambda header: header["plan"].update(noise_scale=1), "the header's plan cannot be used"),
        (lambda header: header["config"].pop("data"), "the header cannot be used (KeyError"),
        (lambda header: header["config"].update(data=[]), "the header cannot be used (TypeError"),
    ],
)
def test_a_header_that_contradicts_itself_is_not_certified(
    verify: Verify, head: Path, change: Callable[[dict[str, Any]], None], because: str
):
    forge(head, change)
    assert because in verify.failed(head)["private"]


@pytest.mark.parametrize(("lines", "steps"), [(1, 0), (8, 4), (9, 4)])
def test_a_run_that_is_not_complete_is_not_certified(
    verify: Verify, head: Path, lines: int, steps: int
):
    cut(head, lines)
    failed = verify.failed(head)
    assert failed.keys() == {"complete"}
    assert f"{steps} of 5 planned steps are charged" in failed["complete"]
    assert not has_certificate(head)


def test_bytes_after_the_last_line_are_found(verify: Verify, head: Path):
    with (head / "ledger.jsonl").open("ab") as file:
        file.write(b"x")
    assert "its last line is torn" in verify.failed(head)["complete"]


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda said: said.update(epsilon=said["epsilon"] / 2), "epsilon is "),
        (lambda said: said.update(delta=1e-6), "delta is 1e-06, not 1e-05"),
        (lambda said: said.update(unit="user_id"), "unit is 'user_id', not 'example'"),
        (lambda said: said.update(population=61), "population is 61, not 60"),
        (lambda said: said.pop("adjacency"), "adjacency is None, not 'add-or-remove-one'"),
        (lambda said: said.update(extra=1), "extra is 1, not None"),
        (lambda said: said["exclusions"].pop(0), "exclusions.0 is "),
        (lambda said: said["group_privacy"][1].update(epsilon=1.0), "group_privacy.1.epsilon is"),
        (lambda said: said.update(steps_released=4), "steps_released is 4, not 5"),
    ],
)
def test_an_edited_guarantee_is_found(
    verify: Verify, head: Path, change: Callable[[dict[str, Any]], object], because: str
):
    rewrite(head / "privacy.json", change)
    failed = verify.failed(head)
    assert failed.keys() == {"guarantee"}
    assert because in failed["guarantee"]


def test_a_guarantee_that_is_not_there_is_found(verify: Verify, head: Path):
    (head / "privacy.json").write_text("[")
    assert verify.failed(head) == {"guarantee": "privacy.json is not what a run writes"}
    (head / "privacy.json").unlink()
    assert verify.failed(head) == {"guarantee": "the run folder has no privacy.json"}


def test_the_last_digits_of_epsilon_may_be_another_machines(verify: Verify, head: Path):
    rewrite(head / "privacy.json", lambda said: said.update(epsilon=said["epsilon"] * (1 + 1e-9)))
    assert verify.checks(head)["guarantee"][0] == "passed"


def test_another_base_model_is_found(verify: Verify, head: Path, tiny, tmp_path: Path):
    base = Path(shutil.copytree(tiny("encoder"), tmp_path / "base"))
    tensors = load(base / "model.safetensors")
    flip(tensors["encoder.layer.0.output.dense.weight"])
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    failed = verify.failed(head, "--model", base)
    assert failed.keys() == {"base model"}
    assert failed["base model"].startswith(f"{base}: not the base model of this ledger; ")
    assert verify.checks(head, "--model", base, code=1)["weights"][0] == "not applicable"
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert verify.failed(head, "--model", base).keys() == {"base model"}
    assert verify.failed(head, "--model", base / "nowhere").keys() == {"base model"}


def test_parameters_that_start_otherwise_are_found(verify: Verify, lora: Path):
    forge(lora, lambda header: header.update(start_sha256="0" * 64))
    assert "do not start as the ledger says" in verify.failed(lora)["base model"]


def load(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def metadata(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return file.metadata()


def flip(tensor: torch.Tensor) -> None:
    """Flip the last bit of the last entry."""
    tensor.view(-1).view(torch.int32)[-1] ^= 1


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("head", "model/model.safetensors"),
        ("head", "model/label_vectors.safetensors"),
        ("head", "model/3_Dense/model.safetensors"),
        ("lora", "adapter/adapter_model.safetensors"),
    ],
)
def test_one_flipped_bit_of_one_saved_tensor_is_found(
    verify: Verify, runs: Runs, tmp_path: Path, kind: str, file: str
):
    run = runs.copy(kind)
    tensors = load(run / file)
    name = sorted(tensors)[-1]
    flip(tensors[name])
    save_file(tensors, run / file, metadata=metadata(run / file))
    size = tensors[name].numel()
    assert verify.failed(run) == {
        "weights": f"{file}: tensor {name} differs from the replay in 1 of {size} entries"
    }
    assert not has_certificate(run)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda tensors: tensors.pop("label_vectors"), "is in one file only"),
        (lambda tensors: tensors.update(note=torch.zeros(3)), "tensor note is in one file only"),
        (lambda tensors: flip_type(tensors), "is torch.int32 of shape (2, 32), replay gives"),
    ],
)
def test_tensors_that_the_replay_does_not_have_are_found(
    verify: Verify, head: Path, change: Callable[[dict[str, torch.Tensor]], None], because: str
):
    path = head / "model" / "label_vectors.safetensors"
    tensors, words = load(path), metadata(path)
    change(tensors)
    save_file(tensors, path, metadata=words)
    assert because in verify.failed(head)["weights"]


def flip_type(tensors: dict[str, torch.Tensor]) -> None:
    """The same bytes as another type."""
    tensors["label_vectors"] = tensors["label_vectors"].view(torch.int32)


def test_text_hidden_beside_tensors_is_found(verify: Verify, head: Path):
    path = head / "model" / "label_vectors.safetensors"
    save_file(load(path), path, metadata=metadata(path) | {"note": "Ann, account 12"})
    assert verify.failed(head)["weights"].endswith("its metadata is not what the replay wrote")


def test_weights_that_cannot_be_read_are_found(verify: Verify, head: Path):
    path = head / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert verify.failed(head)["weights"].startswith("model/model.safetensors: cannot be read (")


def test_weights_that_are_missing_or_too_many_are_found(verify: Verify, head: Path, lora: Path):
    (head / "model" / "label_vectors.safetensors").rename(head / "model" / "other.safetensors")
    assert verify.failed(head) == {"weights": "model/ lacks label_vectors.safetensors"}
    shutil.copy(head / "model" / "other.safetensors", head / "model" / "label_vectors.safetensors")
    assert verify.failed(head) == {
        "weights": "model/ holds other.safetensors, which the replay did not write"
    }
    shutil.copytree(lora / "adapter", head / "adapter")
    assert verify.failed(head) == {
        "weights": "the run folder has adapter/, which is not made by this run"
    }
    shutil.rmtree(head / "model")
    assert verify.failed(head) == {"weights": "the run folder has no model/"}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "3_Dense/rows.jsonl", ".hidden"])
def test_a_file_that_the_replay_did_not_write_is_found(verify: Verify, head: Path, name: str):
    (head / "model" / name).write_text("Ann, account 12")
    assert verify.failed(head) == {
        "other files": f"model/ holds {name}, which the replay did not write"
    }


def test_a_folder_behind_a_link_is_found(verify: Verify, head: Path, tmp_path: Path):
    (tmp_path / "rows").mkdir()
    write_reviews(tmp_path / "rows" / "train.jsonl", 3)
    (head / "model" / "rows").symlink_to(tmp_path / "rows")
    assert verify.failed(head).keys() == {"other files"}


def test_settings_that_the_replay_did_not_write_are_found(verify: Verify, head: Path):
    path = head / "model" / "config.json"
    original = path.read_text()
    rewrite(path, lambda said: said.update(transformers_version="4.0.0"))
    assert verify.checks(head)["other files"][0] == "passed"
    rewrite(path, lambda said: said.update(hidden_act="relu"))
    assert verify.failed(head) == {"other files": "model/config.json is not what the replay wrote"}
    path.write_text("{")
    assert verify.failed(head).keys() == {"other files"}
    path.write_text(original)
    forge(head, lambda header: header["versions"].update(transformers="4.0.0"))
    (head / "model" / "tokenizer.json").unlink()
    failed = verify.failed(head)["other files"]
    assert "; the run was made with transformers 4.0.0, this is " in failed


def test_an_adapter_may_have_a_model_card_and_no_other_base(verify: Verify, lora: Path):
    (lora / "adapter" / "README.md").write_text("A model for reviews.")
    assert "README.md" in verify.checks(lora)["other files"][1]
    rewrite(
        lora / "adapter" / "adapter_config.json",
        lambda said: said.update(target_modules=said["target_modules"][::-1]),
    )
    assert verify.checks(lora)["other files"][0] == "passed"
    rewrite(
        lora / "adapter" / "adapter_config.json",
        lambda said: said.update(base_model_name_or_path="another/model"),
    )
    assert verify.failed(lora).keys() == {"other files"}


def test_an_edited_summary_is_found(verify: Verify, head: Path):
    path = head / "summary.json"
    for change in ({"epsilon": 1.0}, {"delta": 0.0}, {"moved_sha256": "0" * 64}):
        original = path.read_text()
        rewrite(path, lambda said, change=change: said.update(change))
        failed = verify.failed(head)
        assert failed.keys() == {"summary"}
        assert f"{next(iter(change))} is {next(iter(change.values()))!r}" in failed["summary"]
        path.write_text(original)
    path.unlink()
    assert verify.checks(head)["summary"][0] == "not applicable"


def test_a_run_that_does_not_exist_is_refused(verify: Verify, tmp_path: Path):
    ledger = tmp_path / "nowhere" / "ledger.jsonl"
    out, line = verify(tmp_path / "nowhere", code=1)
    assert (out, line) == ("", f"{ledger}: no such file or directory.\n")
