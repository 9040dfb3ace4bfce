"""`hushtune bench`: what its rows hold, what it skips, what it refuses."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
from typing import Any

import pytest
import torch
from rich.console import Console

from hushtune.bench import cases, kernels, machine, runner, tables, worker
from hushtune.bench.cases import Case
from hushtune.bench.models import SIZES, build
from hushtune.bench.workbench import Workbench
from hushtune.bench.worker import Effort
from hushtune.cli import main

TINY = {"size": "tiny", "tokens": 64, "length": 16, "micro_batch_tokens": 32}
SHORT = Effort(repetitions=2, seconds=5.0, longest=60.0)
PROMISED = {
    "case",
    "seconds_per_step",
    "forward_seconds",
    "ratio_to_forwards",
    "peak_mib",
    "inference_peak_mib",
}


def found(**other: Any) -> dict[str, Any]:
    return {"peak_mib": 150.0, "base_mib": 100.0, "largest_operation_mib": 10.0} | other


def test_rows_hold_what_is_promised_and_inference_is_measured_once():
    asked: list[Case] = []

    def measure(case: Case, _: Effort) -> dict[str, Any]:
        asked.append(case)
        return found(peak_mib=130.0) if case.method == "inference" else found()

    cases = [Case(**TINY), Case(directions=8, **TINY)]
    rows = list(runner.Runner(SHORT, measure=measure).rows(cases))
    assert [case.method for case in asked] == ["hushtune", "inference", "hushtune"]
    assert rows[0]["memory_ratio"] == pytest.approx(150 / 140)
    assert rows[0]["memory_ratio_above_base"] == pytest.approx(50 / 40)
    assert (rows[1]["directions"], rows[1]["passes"]) == (8, 16)


@pytest.mark.parametrize("method", ["hushtune", "in-place", "dp-sgd", "inference"])
@pytest.mark.parametrize("moving", ["full", "lora"])
def test_every_method_is_measured(monkeypatch: pytest.MonkeyPatch, method: Any, moving: str):
    monkeypatch.setattr(worker, "_warm_up", lambda: None)
    result = worker.measure(Case(method=method, moving=moving, **TINY), SHORT)
    assert PROMISED - {"case", "inference_peak_mib"} <= result.keys()
    assert result["ratio_to_forwards"] == result["seconds_per_step"] / result["forward_seconds"]
    assert result["repetitions"] == 2
    assert 0 < result["base_mib"] <= result["peak_mib"]


def test_a_model_too_large_for_memory_is_skipped_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(worker, "_warm_up", lambda: None)
    monkeypatch.setattr(machine, "free_bytes", lambda _: 60 * 2**30)
    monkeypatch.setattr(worker, "Workbench", lambda _: pytest.fail("It was made."))
    skipped = worker.measure(Case("66B", dtype="bfloat16"), SHORT)["skipped"]
    assert skipped.startswith("needs about 12")  # 66e9 parameters of two bytes


def test_a_step_that_would_take_long_is_skipped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "_warm_up", lambda: None)
    effort = dataclasses.replace(SHORT, longest=0.0)
    assert "skipped" in worker.measure(Case(**TINY), effort)


@pytest.mark.parametrize(
    ("size", "parameters"), [("125M", 125e6), ("1.3B", 1.3e9), ("66B", 66e9), ("175B", 175e9)]
)
def test_sizes_are_what_their_names_say(size: str, parameters: float):
    assert SIZES[size].parameters == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize("size", ["5M", "22M"])
def test_the_memory_of_a_model_is_known_before_it_is_made(size: str):
    model = build(SIZES[size], "float32", "cpu", length=16).model
    held = sum(each.numel() * each.element_size() for each in model.parameters())
    assert SIZES[size].bytes("float32") == pytest.approx(held, rel=0.02)


def test_a_quantised_model_takes_a_step():
    # On a CPU, bitsandbytes wants widths of whole blocks of 64.
    bench = Workbench(Case(moving="lora", dtype="nf4", **(TINY | {"size": "5M"})))
    weight = bench.task.model.get_submodule("base_model.model.model.decoder.layers.0.fc1").weight
    assert weight.dtype == torch.uint8
    assert bench.task.model.get_input_embeddings().weight.dtype == torch.bfloat16
    before = {name: each.detach().clone() for name, each in bench.parameters.items()}
    bench.run(1, lambda _: None)
    assert all(".lora_" in name for name in before)
    moved = {n for n, each in bench.parameters.items() if not torch.equal(before[n], each)}
    assert moved >= {name for name in before if ".lora_B." in name}  # B was zero


def test_a_sweep_varies_one_thing_at_a_time():
    for what, some in cases.sweep("5M", "cpu").items():
        fixed = {
            tuple((k, v) for k, v in case.to_json().items() if k not in (what, "estimator"))
            for case in some
        }
        assert len(fixed) == 1, what
        assert len({getattr(case, what) for case in some}) > 2


def test_the_table_for_a_gpu_is_full_parameters_and_one_quantised_model():
    some = cases.large((1, 8))
    assert {case.device for case in some} == {"cuda"}
    assert [case.size for case in some if case.moving == "full"] == ["1.3B", "6.7B", "13B", "66B"]
    assert [case.directions for case in some if case.dtype == "nf4"] == [1, 8]


def test_tables_say_why_a_case_is_missing():
    row = {"case": "66B full", "skipped": "needs about 123 GiB"}
    assert "| 66B full | skipped: needs about 123 GiB |" in tables.step_markdown([row])


def run(capsys, *arguments: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", *arguments])
    shown = capsys.readouterr()
    assert (exit_.value.code or 0) == code, shown.err
    return shown.out, shown.err


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_warm_up", lambda: None)
    monkeypatch.setattr(runner, "measure_alone", worker.measure)
    monkeypatch.setattr(kernels, "ENTRIES", 1000)


ARGUMENTS = ["--quick", "--sizes", "tiny", "--tokens", "64", "--length", "16", "--directions", "1"]


@pytest.mark.usefixtures("in_this_process")
def test_machines_get_one_line_and_people_a_table(capsys, tmp_path):
    path = tmp_path / "bench.json"
    out, err = run(capsys, *ARGUMENTS, "--json", "--out", str(path))
    result = json.loads(out)
    assert err == ""
    assert result == json.loads(path.read_text())
    measured = [row for row in result["rows"] if "skipped" not in row]
    assert {row["method"] for row in measured} == {"hushtune", "in-place", "dp-sgd"}
    assert all(row.keys() >= PROMISED for row in measured)
    assert result["machine"]["cores"] >= 1
    assert [row["dtype"] for row in result["kernels"]] == ["float32", "bfloat16"]
    shown = io.StringIO()
    Console(file=shown, width=80).print(tables.step_table(result))
    lines = shown.getvalue().splitlines()
    for row in measured:
        (line,) = (line for line in lines if line.startswith(f"{row['case']} "))
        assert f"{row['ratio_to_forwards']:.3f}" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sizes", "1B"], "sizes='1B'"),
        (["--tokens", "0"], "tokens=0"),
        (["--length", "4096"], "length=4096"),
        (["--directions", "0"], "directions="),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(capsys, arguments: list[str], named: str):
    out, err = run(capsys, *arguments, code=1)
    assert out == ""
    assert named in err
    assert err.count("\n") == 1


def test_a_worker_that_dies_is_named(monkeypatch: pytest.MonkeyPatch):
    died = subprocess.CompletedProcess([], 1, stdout="", stderr="one\nKilled\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    with pytest.raises(runner.WorkerFailed, match=r"tiny full.* ended with 1 \(Killed\)"):
        runner.measure_alone(Case(**TINY), SHORT)


@pytest.mark.slow
def test_a_case_in_a_process_of_its_own():
    (row,) = runner.Runner(SHORT).rows([Case(**TINY)])
    assert row.keys() >= PROMISED
