"""Mistakes 2 and 13: batches that are not Poisson samples, and empty ones that crash or go missing.

Every statistical check raises a false alarm with probability 1e-6.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from insider import Insider, flagged, make_config, train_run, watch

from hushtune.privacy.boundary import Boundary
from hushtune.privacy.sampling import PoissonSampler

FALSE_ALARM = 1e-6
UNITS, STEPS = 60, 50


def check_poisson(seen: Insider, encoder: str, data: str, folder: Path) -> None:
    """What reaches the boundary in a run looks like independent coins, by step and by unit."""
    config = make_config(encoder, data, folder / "run", steps=STEPS, directions=1, batch=12.0)
    probability = train_run(config).header["plan"]["sampling_probability"]
    taken = np.zeros((STEPS, UNITS))
    for step, units in zip(taken, seen.units, strict=True):
        step[units] = 1
    share = scipy.stats.binomtest(int(taken.sum()), taken.size, probability)
    assert share.pvalue > FALSE_ALARM, "units do not take part as often as accounted"
    for axis, count, name in ((1, UNITS, "sizes of batches"), (0, STEPS, "turns of units")):
        deviation = (taken.sum(axis=axis) - count * probability) ** 2
        spread = deviation.sum() / (count * probability * (1 - probability))
        distribution = scipy.stats.chi2(taken.shape[1 - axis])
        two_sided = 2 * min(distribution.cdf(spread), distribution.sf(spread))
        assert two_sided > FALSE_ALARM, f"{name} are not binomial"


def check_secret(encoder: str, data: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Two runs with the same public seed; they sample alike by chance once in 2^60 runs."""
    samples = []
    for name in ("one", "other"):
        np.random.seed(0)
        with patch.context() as context:
            seen = watch(context)
            train_run(make_config(encoder, data, folder / name, batch=30.0, steps=1))
        samples.append(seen.sampled[0].tolist())
    assert samples[0] != samples[1], "samples can be computed from what is public"


def check_empty(seen: Insider, encoder: str, data: str, folder: Path) -> None:
    """A run in which a step takes nobody with probability above 1 - 1e-4."""
    config = make_config(encoder, data, folder / "run", batch=1e-4, steps=4)
    try:
        record = train_run(config)
    except Exception as error:
        raise AssertionError("an empty batch stops the run") from error
    assert sum(map(len, seen.sampled)) <= 2, "the empty batch was not accepted"
    assert sorted(record.releases) == list(range(4)), "a step without a release"
    least = record.header["plan"]["noise_scale"] / 1e6
    # Noise that small on a whole vector has a probability far below 1e-6.
    assert all(max(map(abs, values)) > least for values in record.releases.values()), "no noise"


def test_batches_are_poisson_samples(encoder_folder, reviews, tmp_path, monkeypatch):
    check_poisson(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_samples_are_secret(encoder_folder, reviews, tmp_path, monkeypatch):
    check_secret(encoder_folder, reviews, tmp_path, monkeypatch)


def test_an_empty_batch_is_a_step_like_any_other(encoder_folder, reviews, tmp_path, monkeypatch):
    check_empty(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def shuffled_epochs(sampler: PoissonSampler) -> np.ndarray:
    """Fixed batches of a shuffled data set, one after the other."""
    remaining = vars(sampler).setdefault("remaining", [])
    if not remaining:
        remaining.extend(np.random.default_rng().permutation(UNITS).reshape(-1, 12))
    return np.sort(remaining.pop())


def fixed_size(sampler: PoissonSampler) -> np.ndarray:
    """As many as expected, drawn anew in each step."""
    return np.sort(np.random.default_rng().choice(UNITS, size=12, replace=False))


def twice_as_many(sampler: PoissonSampler) -> np.ndarray:
    """A Poisson sample, of another probability than the accounted one."""
    return np.flatnonzero(np.random.default_rng().random(UNITS) < 0.4)


@pytest.mark.parametrize("fault", [shuffled_epochs, fixed_size, twice_as_many])
def test_the_check_flags(fault, encoder_folder, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr(PoissonSampler, "sample", fault)
    with flagged("are not binomial|as often as accounted"):
        check_poisson(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_the_check_flags_a_sampler_with_the_public_seed(
    encoder_folder, reviews, tmp_path, monkeypatch
):
    def seeded(sampler: PoissonSampler) -> np.ndarray:
        return np.flatnonzero(np.random.default_rng(0).random(UNITS) < 0.5)

    monkeypatch.setattr(PoissonSampler, "sample", seeded)
    with flagged("computed from what is public"):
        check_secret(encoder_folder, reviews, tmp_path, monkeypatch)


def test_the_check_flags_a_crash_on_an_empty_batch(encoder_folder, reviews, tmp_path, monkeypatch):
    release = Boundary.release

    def crash(self, scalars, *rest):
        np.concatenate(list(scalars))  # needs at least one array
        return release(self, scalars, *rest)

    monkeypatch.setattr(Boundary, "release", crash)
    with flagged("stops the run"):
        check_empty(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_the_check_flags_an_empty_batch_without_noise(
    encoder_folder, reviews, tmp_path, monkeypatch
):
    release = Boundary.release

    def skip(self, scalars, *rest):
        return release(self, scalars, *rest) if len(scalars) else (0,) * scalars.shape[1]

    monkeypatch.setattr(Boundary, "release", skip)
    with flagged("no noise"):
        check_empty(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_the_check_flags_drawing_until_somebody_takes_part(
    encoder_folder, reviews, tmp_path, monkeypatch
):
    sample = PoissonSampler.sample

    def insist(self: PoissonSampler) -> np.ndarray:
        sampled = sample(self)
        return sampled if len(sampled) else np.array([0])

    monkeypatch.setattr(PoissonSampler, "sample", insist)
    with flagged("not accepted"):
        check_empty(watch(monkeypatch), encoder_folder, reviews, tmp_path)
