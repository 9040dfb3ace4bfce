"""A head hash that was kept elsewhere: the only thing that shows a ledger's end was cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_steps import make_header

from hushtune.cli import main
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger

#: Of what a run's header holds, what `hushtune privacy` reads.
CONFIG = {"config": {"data": {"population": 40, "eval": None}}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of three steps; the last charge has no release."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, make_header() | CONFIG) as ledger:
        for step in range(2):
            ledger.charge()
            ledger.release(step, [step, 7])
        ledger.charge()
    return path


@pytest.fixture
def privacy(path: Path, capsys):
    """`hushtune privacy` on that ledger: exit code, what it prints, what it complains of."""

    def command(*flags: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["privacy", str(path), *flags])
        shown = capsys.readouterr()
        return int(exit_.value.code or 0), shown.out, shown.err

    return command


def hashes(path: Path) -> list[str]:
    return [json.loads(line)["hash"] for line in path.read_text().splitlines()]


def test_every_lines_hash_was_the_head_once(path: Path):
    record = ledgers.read(path)
    assert record.hashes == hashes(path)
    assert record.head == hashes(path)[-1]
    with Ledger(path, record.header) as ledger:
        assert ledger.head == record.head
    assert [record.lines_since(each) for each in record.hashes] == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("digits", [16, 40, 64])
def test_a_ledger_with_the_expected_head_is_the_same_or_has_grown(path, privacy, digits):
    for added, head in enumerate(reversed(hashes(path))):
        code, out, _ = privacy("--expect", head[:digits], "--json")
        result = json.loads(out)
        assert code == 0
        assert result["ledger_ok"] is True
        assert result["expected_head"] == ("extended" if added else "same")
        assert result["lines_added"] == added
        code, out, _ = privacy("--expect", head[:digits])
        assert code == 0
        said = f"lines added since the expected one: {added}" if added else "the expected line"
        assert said in out


def test_an_end_that_was_cut_off_shows(path, privacy):
    lines = path.read_bytes().splitlines(keepends=True)
    head = ledgers.read(path).head
    for kept in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        assert privacy()[0] == 0  # on its own the ledger looks right
        code, out, complaint = privacy("--expect", head)
        assert (code, out) == (1, "")
        assert complaint == (
            f"hushtune privacy: {path}: no line has the hash {head}; the end was cut off after "
            "that hash was noted, or this is another ledger.\n"
        )
        code, out, _ = privacy("--expect", head, "--json")
        assert code == 1
        assert json.loads(out)["ledger_ok"] is False
        assert f"no line has the hash {head}" in json.loads(out)["error"]


def test_an_end_that_was_written_anew_shows(path, privacy):
    head = ledgers.read(path).head
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    with Ledger(path, make_header() | CONFIG) as ledger:
        ledger.release(1, [1, 8])
        ledger.charge()
    assert privacy()[0] == 0
    assert privacy("--expect", head)[0] == 1


def test_a_torn_line_changes_no_head(path, privacy):
    head = ledgers.read(path).head
    path.write_bytes(path.read_bytes() + b'{"rel')
    assert json.loads(privacy("--expect", head, "--json")[1])["expected_head"] == "same"


@pytest.mark.parametrize(
    "given", ["", "abc", "0" * 15, "0" * 65, "g" * 16, "0x" + "0" * 14, "A" * 16, "0" * 16 + "\n"]
)
def test_what_cannot_be_a_hash_is_refused_in_one_line(privacy, given):
    code, out, complaint = privacy("--expect", given)
    assert (code, out) == (1, "")
    assert len(complaint.splitlines()) == 1
    assert f"--expect {given!r}: expected 16 to 64 hexadecimal digits." in complaint


def test_the_head_is_shown_whole_so_that_it_can_be_kept(path, privacy):
    head = ledgers.read(path).head
    assert head in privacy()[1].split()
    assert "expected" not in privacy()[1]
    assert json.loads(privacy("--json")[1])["ledger_head"] == head


def test_training_ends_with_the_head(run_arguments: list[str], tmp_path: Path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", *run_arguments])
    head = ledgers.read(tmp_path / "run" / "ledger.jsonl").head
    assert head in capsys.readouterr().out.split()


def test_a_run_without_privacy_has_a_head_too(tmp_path: Path, capsys):
    path = tmp_path / "plain.jsonl"
    with Ledger(path, make_header(private=False) | CONFIG) as ledger:
        ledger.charge()
        head = ledger.head
    with pytest.raises(SystemExit, match="0"):
        main(["privacy", str(path), "--expect", head[:16]])
    out = capsys.readouterr().out
    assert "no privacy" in out
    assert head in out.split()
    assert "the expected line" in out
