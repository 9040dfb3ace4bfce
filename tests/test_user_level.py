"""Privacy of whole users: one of them has half of all rows, and counts like anybody else.

Most runs here are those of the trainer with noise replaced by none and a sampler that takes the
users it is told to take, so that what one user changes can be seen.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import scipy.stats
from mistakes.insider import (
    flagged,
    make_config,
    read_data,
    train_folder,
    train_run,
    train_without_noise,
    watch,
)

from hushtune.config import Config
from hushtune.privacy import boundary as boundaries
from hushtune.privacy.boundary import combine_rows
from hushtune.privacy.plan import PrivacyPlan
from hushtune.tasks.data import LabelledText
from hushtune.zo.head_losses import HeadLosses
from hushtune.zo.losses import MovedLosses

Combine = Literal["mean", "sum"]
Row = tuple[str, str]  # user and text

#: Everybody but the heavy user, and how many rows they have.
LIGHT = {f"light {number}": 1 + number % 3 for number in range(15)}
HEAVY, HEAVY_ROWS = "heavy", sum(LIGHT.values())
USERS = [HEAVY, *LIGHT]

WORDS = ["film", "book", "food", "place", "story", "plot", "service", "never", "always", "quite"]


def make_rows() -> list[Row]:
    """Rows of all users, mixed; the first one is the heavy user's."""
    draw = random.Random(0)
    users = [user for user, count in LIGHT.items() for _ in range(count)]
    users += [HEAVY] * (HEAVY_ROWS - 1)
    draw.shuffle(users)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 20))) for _ in range(2 * HEAVY_ROWS)]
    return list(zip([HEAVY, *users], texts, strict=True))


ROWS = make_rows()


class Setting(NamedTuple):
    """What the runs of one test have in common."""

    encoder: str
    folder: Path
    combine: Combine = "mean"
    tune: str = "head"
    mechanism: str = "gaussian"
    #: Far below any slope, so that everybody is clipped.
    clip_norm: float = 1e-3

    def config(self, rows: Sequence[Row], *, steps: int = 1) -> Config:
        """A run on these rows, in a folder of its own."""
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        with (folder / "train.jsonl").open("w") as file:
            for user, text in rows:
                label = "positive" if len(text) % 2 else "negative"
                file.write(json.dumps({"text": text, "label": label, "user_id": user}) + "\n")
        config = make_config(
            self.encoder,
            str(folder / "train.jsonl"),
            folder / "run",
            tune=self.tune,
            unit="user_id",
            mechanism=self.mechanism,
            directions=4,
            batch=4.0,
            clip_norm=self.clip_norm,
            steps=steps,
        )
        data = dataclasses.replace(config.data, combine=self.combine)
        return dataclasses.replace(config, data=data)


class Step(NamedTuple):
    """A step without noise: what it released, and what reached the clip of these users."""

    plan: PrivacyPlan
    released: tuple[int, ...]
    users: list[str]
    combined: list[bytes]

    @property
    def vectors(self) -> dict[str, bytes]:
        """Each user's vector before the clip."""
        return dict(zip(self.users, self.combined, strict=True))


def step(setting: Setting, rows: Sequence[Row], taken: Sequence[str]) -> Step:
    """The first step of a run, with these users."""
    config = setting.config(rows)
    numbers = list(dict.fromkeys(user for user, _ in rows))  # as the data is read
    batch = [numbers.index(user) for user in taken]
    clip, combined = boundaries.clip_to_grid, []

    def recorded(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
        combined.extend(vector.tobytes() for vector in per_unit)
        return clip(per_unit, plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundaries, "clip_to_grid", recorded)
        session, record = train_without_noise(config, batches=[batch])
    plan = session.plan
    assert isinstance(plan, PrivacyPlan)
    return Step(plan, record.releases[0], sorted(taken, key=numbers.index), combined)


def check_bound(setting: Setting, rows: Sequence[Row]) -> None:
    """Whoever else takes part, the heavy user moves the release by an admissible vector, the one
    that it releases alone."""
    alone = step(setting, rows, [HEAVY])
    for others in (list(LIGHT), list(LIGHT)[::4], []):
        present = step(setting, rows, [HEAVY, *others])
        absent = step(setting, rows, others)
        moved = [a - b for a, b in zip(present.released, absent.released, strict=True)]
        order = 2 if setting.mechanism == "gaussian" else 1
        length = sum(abs(value) ** order for value in moved)
        assert length <= alone.plan.sensitivity**order, "a user moves more than the sensitivity"
        assert length ** (1 / order) * alone.plan.grid <= setting.clip_norm * (1 + 1e-12)
        assert tuple(moved) == alone.released, "what a user adds depends on others"
    assert any(alone.released)


def plant(patch: pytest.MonkeyPatch, bad: float, rows: int) -> None:
    """Some of the heavy user's rows, which are the first of all, have that loss at first moves."""
    for kind in (HeadLosses, MovedLosses):

        def planted(self, taken, moves, *, charge: int, original: Any = kind.at) -> np.ndarray:
            losses = original(self, taken, moves, charge=charge)
            losses[taken < rows, :2] = [bad, -bad]
            return losses

        patch.setattr(kind, "at", planted)


BOUNDED = [
    ("mean", "head", "gaussian"),
    ("sum", "head", "laplace"),
    ("mean", "last-1", "laplace"),
    ("sum", "last-1", "gaussian"),
]


@pytest.mark.parametrize(("combine", "tune", "mechanism"), BOUNDED)
def test_half_of_all_rows_move_the_sum_by_one_user(
    combine, tune, mechanism, encoder_folder, tmp_path
):
    check_bound(Setting(encoder_folder, tmp_path, combine, tune, mechanism), ROWS)


@pytest.mark.parametrize("bad", [1e300, 1.7e308, math.nan, math.inf])
@pytest.mark.parametrize("rows", [1, HEAVY_ROWS])
@pytest.mark.parametrize(("combine", "tune", "mechanism"), BOUNDED[:2])
def test_broken_and_huge_losses_move_it_no_further(
    combine, tune, mechanism, rows, bad, encoder_folder, tmp_path, monkeypatch
):
    plant(monkeypatch, bad, rows)
    check_bound(Setting(encoder_folder, tmp_path, combine, tune, mechanism), ROWS)


def every_row_for_itself(scalars: np.ndarray, unit_of_row: np.ndarray, combine: str) -> np.ndarray:
    return scalars


def mean_over_everybody(scalars: np.ndarray, unit_of_row: np.ndarray, combine: str) -> np.ndarray:
    """Each user's sum, over the number of all rows."""
    users = sorted(set(unit_of_row.tolist()))
    sums = [scalars[unit_of_row == user].sum(axis=0) for user in users]
    return np.array(sums).reshape(len(users), scalars.shape[1]) / max(1, len(scalars))


@pytest.mark.parametrize(
    ("fault", "clip_norm", "because"),
    [
        (every_row_for_itself, 1e-3, "more than the sensitivity"),
        (mean_over_everybody, 1e3, "depends on others"),
    ],
)
def test_the_check_flags(fault, clip_norm, because, encoder_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(boundaries, "combine_rows", fault)
    with flagged(because):
        check_bound(Setting(encoder_folder, tmp_path, clip_norm=clip_norm), ROWS)


def arrangements() -> dict[str, list[Row]]:
    """The same rows, each user's in the same order, in other places of the file."""
    of_user = {user: [row for row in ROWS if row[0] == user] for user in USERS}
    turns = [user for user, _ in ROWS]
    random.Random(1).shuffle(turns)
    remaining = {user: iter(rows) for user, rows in of_user.items()}
    return {
        "by user": [row for user in USERS for row in of_user[user]],
        "by user, backwards": [row for user in reversed(USERS) for row in of_user[user]],
        "mixed otherwise": [next(remaining[user]) for user in turns],
        "other texts beside": [
            (user, text if user == HEAVY else f"book {text} plot") for user, text in ROWS
        ],
        "longer texts beside": [
            (user, text if user == HEAVY else f"{text} " * 9) for user, text in ROWS
        ],
    }


def check_vectors(setting: Setting) -> None:
    """Before the clip, bit for bit."""
    expected = step(setting, ROWS, USERS).vectors
    assert len(set(expected.values())) == len(USERS)
    for taken in ([HEAVY], list(LIGHT)[:3], [HEAVY, *list(LIGHT)[5:9]]):
        for user, vector in step(setting, ROWS, taken).vectors.items():
            assert vector == expected[user], f"{user} in other company"
    for name, rows in arrangements().items():
        vectors = step(setting, rows, USERS).vectors
        same = [HEAVY] if "beside" in name else USERS
        assert [vectors[user] for user in same] == [expected[user] for user in same], name


@pytest.mark.parametrize(("combine", "tune", "mechanism"), BOUNDED)
def test_a_users_vector_depends_on_its_own_rows_alone(
    combine, tune, mechanism, encoder_folder, tmp_path
):
    check_vectors(Setting(encoder_folder, tmp_path, combine, tune, mechanism))


def rounded_to_a_common_grid(
    scalars: np.ndarray, unit_of_row: np.ndarray, combine: Combine
) -> np.ndarray:
    """The right vectors, rounded to a grid that the largest of all slopes sets."""
    grid = np.abs(scalars).max(initial=0.0) * 2.0**-40
    combined = combine_rows(scalars, unit_of_row, combine)
    return np.rint(combined / grid) * grid


@pytest.mark.parametrize("fault", [mean_over_everybody, rounded_to_a_common_grid])
def test_the_check_flags_vectors_that_share(fault, encoder_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(boundaries, "combine_rows", fault)
    with flagged("in other company"):
        check_vectors(Setting(encoder_folder, tmp_path))


STEPS = 60
FALSE_ALARM = 1e-8


def check_sampling(encoder: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Users come with all their rows or not at all, each with the probability of the plan."""
    config = Setting(encoder, folder).config(ROWS, steps=STEPS)
    data = read_data(config)
    rows_of_user = np.bincount(data.unit_of_row)
    assert rows_of_user.max() == HEAVY_ROWS == len(ROWS) / 2
    seen = watch(patch)
    plan = train_run(config).header["plan"]
    assert plan["population"] == len(USERS)
    assert 0 <= plan["sampling_probability"] - 4.0 / len(USERS) < 2**-32
    taken = np.zeros((STEPS, len(USERS)), dtype=bool)
    for turn, sampled, units in zip(taken, seen.sampled, seen.units, strict=True):
        counts = np.bincount(units, minlength=len(USERS))
        assert set(np.flatnonzero(counts)) == set(sampled.tolist()), "others than were sampled"
        turn[:] = counts > 0
        assert (counts == rows_of_user * turn).all(), "a user came in part"
    for who in (slice(None), slice(0, 1)):  # everybody; the heavy user
        share = scipy.stats.binomtest(int(taken[:, who].sum()), taken[:, who].size, 0.25)
        assert share.pvalue > FALSE_ALARM, "users do not come as often as accounted"


def test_users_are_sampled_with_all_their_rows(encoder_folder, tmp_path, monkeypatch):
    check_sampling(encoder_folder, tmp_path, monkeypatch)


def some_rows(data: LabelledText, units: np.ndarray) -> np.ndarray:
    """Every other row of the sampled users."""
    return np.flatnonzero(np.isin(data.unit_of_row, units))[::2]


def rows_as_units(data: LabelledText, units: np.ndarray) -> np.ndarray:
    """One row, whose number is the user's."""
    return units


@pytest.mark.parametrize("fault", [some_rows, rows_as_units])
def test_the_check_flags_rows_that_are_sampled(fault, encoder_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(LabelledText, "rows_of", fault)
    with flagged("came in part|others than were sampled"):
        check_sampling(encoder_folder, tmp_path, monkeypatch)


@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_the_certificate_of_a_run_names_the_user_as_its_unit(combine, encoder_folder, tmp_path):
    config = Setting(encoder_folder, tmp_path, combine).config(ROWS, steps=2)
    header = train_folder(config).header
    certificate = json.loads((Path(config.output) / "privacy.json").read_text())
    assert certificate["unit"] == header["plan"]["unit"] == "user_id"
    assert certificate["population"] == header["plan"]["population"] == len(USERS)
    assert certificate["sampling_probability"] == 4.0 / len(USERS)
    assert f"The number of units, {len(USERS)}, is public." in certificate["exclusions"]
    assert header["config"]["data"]["combine"] == combine
