"""Mistake 10: private numbers in files, on the terminal, in logs, warnings and error messages."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import sys
import traceback
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_reviews
from insider import Insider, flagged, watch

from hushtune.cli import main
from hushtune.privacy import steps as stepping
from hushtune.privacy.boundary import Boundary, clip_to_grid, exact_sum
from hushtune.privacy.ledger import LedgerError
from hushtune.privacy.steps import Steps
from hushtune.zo.head_losses import HeadLosses

#: The expected size of a batch is public, so a batch of just this size tells nothing.
UNITS, EXPECTED = 400, 200

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]*\w)")


class Outside:
    """All that a run leaves where somebody else may read it.

    Args:
        texts: by where they were found.
    """

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        numbers = {token for text in texts.values() for token in NUMBER.findall(text)}
        header = texts.get("ledger.jsonl", "").split("\n")[0]  # written before the data is used
        self.numbers = numbers - set(NUMBER.findall(header))

    def holds(self, value: float, digits: int) -> bool:
        """Whether the number stands there, in full or rounded to at least so many digits."""
        for token in self.numbers:
            shown = len(re.split("[eE]", token)[0].replace(".", "").lstrip("-0"))
            if shown < digits or not math.isclose(float(token), value, rel_tol=1e-2):
                continue
            if float(f"{value:.{shown - 1}e}") == float(token):
                return True
        return False

    def lists(self, numbers: list[int]) -> bool:
        """Whether these integers stand next to each other."""
        pattern = r"(?<!\d)" + r"\D{1,4}".join(map(str, numbers)) + r"(?!\d)"
        return any(re.search(pattern, text) for text in self.texts.values())


def arguments(encoder: str, data: str, folder: Path) -> list[str]:
    labels = ["negative", "it was terrible", "positive", "it was great"]
    return [
        *("train", "--model.name", encoder, "--data.train", data, "--output", str(folder)),
        *("--data.max-length", "32", "--task.labels", *labels, "--privacy.mechanism", "laplace"),
        *("--privacy.epsilon", "4", "--method.steps", "3", "--method.directions", "4"),
        *("--method.batch", str(EXPECTED)),
    ]


def run_and_collect(
    encoder: str, folder: Path, capfd: Any, caplog: Any
) -> tuple[Outside, BaseException | None]:
    """A run from the command line, with all that it wrote, printed, logged and warned of."""
    data = write_reviews(folder / "train.jsonl", UNITS)
    caplog.set_level(logging.DEBUG)
    error: BaseException | None = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            main(arguments(encoder, data, folder / "run"))
        except BaseException as stop:  # SystemExit where all is well
            error = stop
    printed = capfd.readouterr()
    texts = {
        "stdout": printed.out,
        "stderr": printed.err,
        "log": "\n".join(record.getMessage() for record in caplog.records),
        "warnings": "\n".join(str(each.message) for each in warned),
    }
    if error is not None and not isinstance(error, SystemExit):
        # What the interpreter would print.
        texts["traceback"] = "".join(traceback.format_exception(error))
    for path in (folder / "run").rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            texts[str(path.relative_to(folder / "run"))] = path.read_text(encoding="utf-8")
    return Outside(texts), error


def check(seen: Insider, outside: Outside, plan: Any) -> None:
    """No private number of any step is outside; a chance hit has a probability below 1e-3.

    The sums that were released are hidden in noise; the noise alone would reveal them.
    """
    for step, (scalars, units) in enumerate(zip(seen.scalars, seen.units, strict=True)):
        assert len(units) > 100
        norms = np.abs(scalars).sum(axis=1)
        aggregates = [scalars.mean(), np.abs(scalars).mean(), norms.mean(), norms.max()]
        for value in (*aggregates, (norms > plan.clip_norm).mean()):
            assert not outside.holds(value, 5), "a mean or share is outside"
        if len(units) != EXPECTED:
            assert not outside.holds(len(units), 3), "the size of a batch is outside"
        assert not outside.lists(seen.sampled[step][:5].tolist()), "a sample is outside"
        for value in [*scalars.ravel()[:400], *norms[:100]]:
            assert not outside.holds(value, 8), "an example's number is outside"
        if step < len(seen.released):
            total = exact_sum(clip_to_grid(scalars, plan))
            for value, released in zip(total, seen.released[step], strict=True):
                assert not outside.holds(value, 9), "a sum is outside"
                assert not outside.holds(released - value, 9), "noise is outside"


def watch_plan(patch: pytest.MonkeyPatch) -> list[Any]:
    """Collects the plans that boundaries are made for."""
    plans: list[Any] = []
    make = Boundary.__init__

    def noted(self, plan, **options):
        plans.append(plan)
        make(self, plan, **options)

    patch.setattr(Boundary, "__init__", noted)
    return plans


def test_no_private_number_leaves_a_run(encoder_folder, tmp_path, monkeypatch, capfd, caplog):
    plans, seen = watch_plan(monkeypatch), watch(monkeypatch)
    outside, stop = run_and_collect(encoder_folder, tmp_path, capfd, caplog)
    assert isinstance(stop, SystemExit)
    assert not stop.code
    assert len(seen.released) == 3
    for value in [integer for vector in seen.released for integer in vector]:
        # What is public is found, all of its digits, so the search works.
        assert outside.holds(value, len(str(abs(value))))
    check(seen, outside, plans[0])


def tell_size(seen: Insider, folder: Path) -> None:
    print(f"batch of {len(seen.units[-1])}")


def write_size(seen: Insider, folder: Path) -> None:
    with (folder / "run" / "steps.jsonl").open("a") as file:
        file.write(f'{{"units": {len(seen.units[-1])}}}\n')


def tell_mean(seen: Insider, folder: Path) -> None:
    print(f"mean slope {seen.scalars[-1].mean():.6g}", file=sys.stderr)


def log_largest_norm(seen: Insider, folder: Path) -> None:
    logging.getLogger("hushtune").debug("norm %.5f", np.abs(seen.scalars[-1]).sum(axis=1).max())


def write_sample(seen: Insider, folder: Path) -> None:
    (folder / "run" / "sample.txt").write_text(str(seen.sampled[-1][:20].tolist()))


def warn_of_an_example(seen: Insider, folder: Path) -> None:
    warnings.warn(f"large slope {seen.scalars[-1][7, 2]}", stacklevel=1)


def write_noise(seen: Insider, folder: Path) -> None:
    plan = seen.plans[0]
    total = exact_sum(clip_to_grid(seen.scalars[-1], plan))
    noise = [released - value for released, value in zip(seen.released[-1], total, strict=True)]
    (folder / "run" / "noise.txt").write_text(str(noise))


def test_the_check_flags_each_leak_on_its_own(encoder_folder, tmp_path, monkeypatch, capfd, caplog):
    plans, seen = watch_plan(monkeypatch), watch(monkeypatch)
    seen.plans = plans
    release = Boundary.release
    leaks = [tell_size, write_size, tell_mean, log_largest_norm, write_sample]

    def release_and_tell(self, *values):
        released = release(self, *values)
        if len(seen.units[-1]) != EXPECTED:
            for leak in [*leaks, write_noise]:
                leak(seen, tmp_path)
        return released

    monkeypatch.setattr(Boundary, "release", release_and_tell)
    outside, _ = run_and_collect(encoder_folder, tmp_path, capfd, caplog)
    for place, because in {
        "stdout": "size of a batch",
        "steps.jsonl": "size of a batch",
        "stderr": "mean or share",
        "log": "mean or share",
        "sample.txt": "a sample",
        "noise.txt": "noise",
    }.items():
        only = {name: outside.texts[name] for name in ("ledger.jsonl", place)}
        with flagged(because):
            check(seen, Outside(only), plans[0])


@pytest.mark.parametrize("warnings_pass", [False, True])
def test_a_warning_in_a_step_does_not_leave_it(
    warnings_pass, encoder_folder, tmp_path, monkeypatch, capfd, caplog
):
    plans, seen = watch_plan(monkeypatch), watch(monkeypatch)
    release = Boundary.release

    def release_and_warn(self, *values):
        released = release(self, *values)
        warn_of_an_example(seen, tmp_path)
        return released

    monkeypatch.setattr(Boundary, "release", release_and_warn)
    if warnings_pass:
        silent = types.SimpleNamespace(
            catch_warnings=contextlib.nullcontext, simplefilter=lambda _: None
        )
        monkeypatch.setattr(stepping, "warnings", silent)
    outside, _ = run_and_collect(encoder_folder, tmp_path, capfd, caplog)
    with flagged("an example's number") if warnings_pass else contextlib.nullcontext():
        check(seen, outside, plans[0])


SECRET = 0.73519264


def check_failure(outside: Outside) -> None:
    """Somebody who sees a step fail learns no private number from it."""
    assert not outside.holds(SECRET, 5), "an error message holds a loss"
    assert not outside.holds(EXPECTED + 13, 3), "an error message holds the size of a batch"


def fail_in_mid_step(kind: type[Exception], patch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise kind(f"loss {SECRET} in a batch of {EXPECTED + 13}")

    patch.setattr(HeadLosses, "at", fail)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_an_error_in_mid_step_says_nothing_private(
    kind, encoder_folder, tmp_path, monkeypatch, capfd, caplog
):
    fail_in_mid_step(kind, monkeypatch)
    outside, stop = run_and_collect(encoder_folder, tmp_path, capfd, caplog)
    assert isinstance(stop, SystemExit)
    assert stop.code == 1
    assert kind.__name__ in outside.texts["stderr"]
    check_failure(outside)


def test_the_check_flags_an_error_that_is_passed_on(
    encoder_folder, tmp_path, monkeypatch, capfd, caplog
):
    def passing_on(_, slopes, charge):
        try:
            return slopes(np.arange(EXPECTED), charge)
        except RuntimeError as error:
            raise LedgerError(f"step {charge} failed: {error}") from None

    fail_in_mid_step(RuntimeError, monkeypatch)
    monkeypatch.setattr(Steps, "_release", passing_on)
    outside, _ = run_and_collect(encoder_folder, tmp_path, capfd, caplog)
    with flagged("holds a loss"):
        check_failure(outside)


def test_the_check_flags_the_size_of_a_batch_in_an_error():
    with flagged("holds the size"):
        check_failure(Outside({"stderr": "hushtune train: 213 rows"}))
