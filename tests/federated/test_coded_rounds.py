"""DR-Encoder's rounds: what is released, and what is made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from local import LocalClients, Told, configuration

from hushtune import opening
from hushtune import session as sessions
from hushtune.config import Config, ConfigError, check
from hushtune.config.federated_checks import check_federated
from hushtune.federated.codecs import LinearCodec, Prior, moments
from hushtune.federated.first_order import making
from hushtune.federated.first_order.coded import CodedUpdate
from hushtune.federated.first_order.flat import Flat
from hushtune.federated.first_order.gradients import ExampleGradients, LocalTraining
from hushtune.federated.server import federate
from hushtune.guarantee import describe_guarantee
from hushtune.models.load import hash_tensors
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.boundary import Boundary
from hushtune.run import replay
from hushtune.tasks.data import LabelledText, read_labelled_text


@pytest.fixture
def run(encoder_folder, reviews, tmp_path):
    """Makes configuration and clients of a run of coded updates."""

    def make(method: dict[str, Any] | None = None, **federated: Any):
        config = configuration(encoder_folder, reviews, tmp_path, **federated)
        settings = {"name": "dr-encoder", "directions": "auto", "steps": 4} | (method or {})
        config = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, tune="lora"),
            method=dataclasses.replace(config.method, **settings),
            privacy=dataclasses.replace(config.privacy, mechanism="gaussian"),
        )
        return config, LocalClients(reviews, config, tmp_path), Told()

    return make


def record_of(config: Config) -> ledgers.Record:
    return ledgers.read(Path(config.output) / "ledger.jsonl")


def adapter_of(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def assert_replays(config: Config, tmp_path: Path) -> None:
    replay(Path(config.output) / "ledger.jsonl", model=None, out=tmp_path / "again")
    assert adapter_of(tmp_path / "again") == adapter_of(Path(config.output))


def data_of(config: Config, reviews: str) -> LabelledText:
    return read_labelled_text(reviews, config.data, config.task, with_units=True)


@pytest.mark.parametrize("codec", ["linear", "identity"])
@pytest.mark.parametrize("trust", ["server", "nobody"])
@pytest.mark.parametrize("level", ["example", "client"])
def test_a_run_ends_like_any_other(run, level, trust, codec, tmp_path):
    config, clients, told = run(level=level, trust=trust, codec=codec)
    summary = federate(config, clients, told)
    assert told.faults == []
    record = record_of(config)
    assert len(record.releases) == record.charges == 4
    guarantee = describe_guarantee(record)
    assert guarantee["epsilon"] == summary["epsilon"] <= 4.0
    assert guarantee["unit"] == level
    dimension = sum(each.numel() for each in opening.resume(record.header).parameters.values())
    size = dimension if codec == "identity" else round(dimension / 8)
    assert guarantee["codes"] == {
        "codec": codec,
        "dimension": dimension,
        "size": size,
        "moment_rounds": 0 if codec == "identity" else 1,
    }
    assert {len(values) for values in record.releases.values()} == {size}
    beside = guarantee["epsilon_beside"]
    assert guarantee["epsilon"] < beside["rdp"]
    if level == "client":
        assert beside["gdp"] == pytest.approx(guarantee["epsilon"], rel=1e-2)
    else:
        assert beside["gdp"] is None
    assert_replays(config, tmp_path)


@pytest.fixture
def without_noise(monkeypatch):
    monkeypatch.setattr(Boundary, "publish", lambda self, total: tuple(total))


def test_without_noise_and_codec_a_step_follows_the_mean_of_clipped_gradients(
    run, without_noise, reviews
):
    config, clients, told = run(
        {"steps": 1, "batch": 60.0, "optimizer": "sgd", "learning_rate": 0.5}, codec="identity"
    )
    federate(config, clients, told)
    header = record_of(config).header
    clip = header["plan"]["clip_norm"]
    before = opening.resume(header)
    data = data_of(config, reviews)
    gradients = ExampleGradients(before.loaded.readout, before.parameters, data)
    total = np.zeros(gradients.flat.dimension)
    for row in range(60):
        gradient = gradients.of_row(row)
        total += gradient * min(1.0, clip / np.linalg.norm(gradient))
    expected = gradients.flat.values() - 0.5 * total / 60
    session = opening.resume(header)
    session.update().replay(record_of(config).releases)
    moved = ExampleGradients(session.loaded.readout, session.parameters, data).flat.values()
    assert np.abs(moved - gradients.flat.values()).max() > 1e-4
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_the_first_round_makes_the_prior(run, without_noise, reviews):
    config, clients, told = run({"steps": 2, "batch": 60.0})
    federate(config, clients, told)
    record = record_of(config)
    session = opening.resume(record.header)
    update = session.update()
    data = data_of(config, reviews)
    gradients = ExampleGradients(session.loaded.readout, session.parameters, data)
    clip, layers = session.plan.clip_norm, gradients.flat.layers
    of_rows = [moments(gradients.of_row(row), clip, layers) for row in range(60)]
    start = hash_tensors(session.parameters.items())
    update.apply(0, record.releases[0])
    assert hash_tensors(session.parameters.items()) == start  # moments move nothing
    noise = session.plan.noise_of_mean * np.sqrt(2) / clip
    expected = Prior.from_moments(np.mean(of_rows, axis=0), clip, layers, noise)
    np.testing.assert_allclose(update.prior.deviations, expected.deviations, rtol=1e-5)
    np.testing.assert_allclose(update.prior.means, expected.means, rtol=1e-5, atol=1e-12)
    assert update.prior != Prior.from_json(record.header["public_prior"])


@pytest.mark.parametrize("trust", ["server", "nobody"])
def test_what_is_made_of_a_release_knows_of_all_the_noise_in_it(run, trust, monkeypatch):
    """Each of three clients adds the whole of it, where nobody is trusted."""
    config, _, _ = run(trust=trust)
    # With more noise than moments can have, nothing would depend on how much.
    privacy = dataclasses.replace(config.privacy, epsilon=100.0)
    session = opening.begin(dataclasses.replace(config, privacy=privacy), units=60)
    plan, update = session.plan, session.update()
    clip, layers = plan.clip_norm, Flat(session.parameters).layers
    noise = plan.noise_of_mean * (np.sqrt(3) if trust == "nobody" else 1)
    unit = plan.grid / plan.expected_units
    released = np.full(plan.directions, round(2 * noise / unit))
    update.apply(0, released.tolist())
    seen = unit * released[: 2 * len(layers)] * np.sqrt(2) / clip
    assert update.prior == Prior.from_moments(seen, clip, layers, noise * np.sqrt(2) / clip)

    told: list[float] = []
    decode = LinearCodec.decode

    def watched(self, code, noise):
        told.append(noise)
        return decode(self, code, noise)

    monkeypatch.setattr(LinearCodec, "decode", watched)
    update.apply(1, released.tolist())
    _, gain = update._codec_of(update.prior, 1)
    assert told == [pytest.approx(noise / gain, rel=1e-12)]


def test_with_a_public_prior_no_round_is_spent_on_moments(run):
    config, clients, told = run(prior="public")
    federate(config, clients, told)
    record = record_of(config)
    session = opening.resume(record.header)
    update = session.update()
    update.replay(record.releases)
    assert update.prior == Prior.from_json(record.header["public_prior"])
    assert describe_guarantee(record)["codes"]["moment_rounds"] == 0
    start = opening.resume(record.header)
    start.update().apply(0, record.releases[0])
    assert hash_tensors(start.parameters.items()) != record.header["start_sha256"]


def test_moments_that_were_lost_leave_the_public_prior(run, tmp_path):
    config, clients, told = run(least_replies=3)
    clients.spoils[11, 0] = lambda answer: []
    federate(config, clients, told)
    record = record_of(config)
    assert sorted(record.releases) == [1, 2, 3]
    update = opening.resume(record.header).update()
    update.replay(record.releases)
    assert update.prior == Prior.from_json(record.header["public_prior"])
    assert_replays(config, tmp_path)


@pytest.mark.parametrize("stopped", [0, 1, 2])
def test_a_server_that_is_stopped_goes_on_with_the_next_round(run, stopped, tmp_path):
    class Stopped(Exception):
        pass

    def stop(answer):
        raise Stopped

    config, clients, told = run()
    clients.spoils[12, stopped] = stop
    with pytest.raises(Stopped):
        federate(config, clients, told)
    summary = federate(config, clients, told)
    assert summary["rounds_skipped"] == 1
    assert sorted(record_of(config).releases) == sorted({0, 1, 2, 3} - {stopped})
    assert_replays(config, tmp_path)


@pytest.fixture
def session(run):
    """A session of an example-level run, and its configuration."""
    config, _, _ = run()
    return opening.begin(config, units=60), config


def test_an_examples_gradient_has_the_same_bits_whoever_is_beside_it(session, reviews):
    session, config = session
    data = data_of(config, reviews)
    others = LabelledText(
        ["great" * 20, data.texts[5], "bad"], np.array([0, data.labels[5], 1]), np.arange(3)
    )
    alone = ExampleGradients(session.loaded.readout, session.parameters, data).of_row(5)
    beside = ExampleGradients(session.loaded.readout, session.parameters, others).of_row(1)
    assert np.array_equal(alone, beside)
    assert np.any(alone)


def test_a_clients_own_training_leaves_the_parameters_as_they_were(session, reviews):
    session, config = session
    data = data_of(config, reviews)
    gradients = ExampleGradients(session.loaded.readout, session.parameters, data)
    start = hash_tensors(session.parameters.items())
    rows = np.arange(6)
    update = LocalTraining(gradients, learning_rate=0.1, batch=6).of_rows(rows)
    assert hash_tensors(session.parameters.items()) == start
    single = 0.1 * gradients.flat.vector(gradients.of(rows.tolist()))
    np.testing.assert_allclose(update, single, atol=1e-12)
    several = LocalTraining(gradients, learning_rate=0.1, batch=2).of_rows(rows)
    assert hash_tensors(session.parameters.items()) == start
    assert not np.allclose(several, update)
    assert not np.any(LocalTraining(gradients, learning_rate=0.1, batch=2).of_rows(rows[:0]))


def test_parameters_are_put_back_when_training_fails(session, reviews, monkeypatch):
    session, config = session
    data = data_of(config, reviews)
    gradients = ExampleGradients(session.loaded.readout, session.parameters, data)
    start = hash_tensors(session.parameters.items())
    of, calls = gradients.of, []

    def fail(rows):
        calls.append(rows)
        if len(calls) == 2:
            raise RuntimeError("a private sentence")
        return of(rows)

    monkeypatch.setattr(gradients, "of", fail)
    with pytest.raises(RuntimeError):
        LocalTraining(gradients, learning_rate=0.1, batch=2).of_rows(np.arange(6))
    assert hash_tensors(session.parameters.items()) == start


def test_codes_are_as_long_as_updates_and_drawn_anew_each_round(session):
    session, _ = session
    update = session.update()
    rng = np.random.default_rng(0)
    draws = update.prior.draw(rng, 200)
    codes = np.stack([update.encode(draw, 1) for draw in draws])
    ratio = np.square(codes).sum(axis=1).mean() / np.square(draws).sum(axis=1).mean()
    assert 0.9 < ratio < 1.1
    assert not np.allclose(codes[0], update.encode(draws[0], 2))


def test_whose_own_training_it_is_follows_from_who_is_protected(session, reviews):
    """A header cannot have an example-level plan with one vector for all examples of a client."""
    session, config = session
    data = data_of(config, reviews)
    slopes = session.slopes(data, session.update())
    values, unit_of_row = slopes(np.arange(5), 1)
    assert values.shape == (5, session.plan.directions)
    assert unit_of_row.tolist() == [0, 1, 2, 3, 4]
    values, unit_of_row = slopes(np.arange(0), 1)
    assert values.shape == (0, session.plan.directions)


def test_an_auto_encoder_that_loses_more_than_a_projection_is_refused(run, monkeypatch):
    monkeypatch.setattr(making, "_TRAINING_STEPS", 20)
    config, clients, told = run(codec="autoencoder")
    with pytest.raises(ConfigError, match="to reach a mean cosine of"):
        federate(config, clients, told)
    assert not Path(config.output).exists()
    assert clients.asked == {}


def test_an_auto_encoders_run_is_replayed_from_its_ledger(run, monkeypatch, tmp_path):
    monkeypatch.setattr(making, "require_accepted", lambda *_, **__: None)
    monkeypatch.setattr(making, "_TRAINING_STEPS", 3)
    config, clients, told = run(codec="autoencoder")
    federate(config, clients, told)
    assert told.faults == []
    session = opening.resume(record_of(config).header)
    update = session.update()
    draws = update.prior.draw(np.random.default_rng(0), 50)
    codes = np.stack([update.encode(draw, 1) for draw in draws])
    ratio = np.square(codes).sum(axis=1).mean() / np.square(draws).sum(axis=1).mean()
    assert 0.7 < ratio < 1.4
    # Nobody trains it again.
    monkeypatch.setattr(making, "train", None)
    assert_replays(config, tmp_path)


REFUSED = {
    "compression": ({}, {"compression": 0.5}),
    "autoencoder's": ({}, {"codec": "autoencoder", "compression": 6.0}),
    "identity's": ({}, {"codec": "identity", "compression": 8.0}),
    "too short": ({}, {"compression": 1e6}),
    "moment_rounds": ({"steps": 2}, {"moment_rounds": 2}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_codec_can_do_is_refused_before_anything_is_charged(run, what):
    method, federated = REFUSED[what]
    config, clients, told = run(method, **federated)
    with pytest.raises(ConfigError):
        federate(config, clients, told)
    assert not (Path(config.output) / "ledger.jsonl").exists()


SETTINGS = {
    "mechanism": (lambda c: {"privacy": dataclasses.replace(c.privacy, mechanism="laplace")}),
    "directions": (lambda c: {"method": dataclasses.replace(c.method, directions=4)}),
    "optimizer": (lambda c: {"method": dataclasses.replace(c.method, optimizer="adamw")}),
    "estimator": (lambda c: {"method": dataclasses.replace(c.method, estimator="one-sided")}),
    "objective": (lambda c: {"task": dataclasses.replace(c.task, objective="accuracy")}),
    "local_batch": (lambda c: {"federated": dataclasses.replace(c.federated, local_batch=0)}),
    "moment_rounds": (lambda c: {"federated": dataclasses.replace(c.federated, moment_rounds=0)}),
    "local_learning_rate": (
        lambda c: {"federated": dataclasses.replace(c.federated, local_learning_rate=0.0)}
    ),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_that_do_not_go_with_codes_are_refused(run, what):
    config, _, _ = run()
    check_federated(config)
    with pytest.raises(ConfigError, match=what):
        check_federated(dataclasses.replace(config, **SETTINGS[what](config)))


def test_coded_rounds_are_for_federated_runs(run):
    config, _, _ = run()
    alone = dataclasses.replace(config, federated=dataclasses.replace(config.federated, clients=0))
    with pytest.raises(ConfigError, match="hushtune federate"):
        check(alone)
    with pytest.raises(ConfigError, match="hushtune federate"):
        sessions.begin(alone, units=60)


def test_adapters_in_16_bits_are_refused(run):
    config, clients, told = run()
    lora = dataclasses.replace(config.model.lora, dtype="bfloat16")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, lora=lora))
    with pytest.raises(ConfigError, match="float32"):
        federate(config, clients, told)
    assert torch.is_grad_enabled()


def test_a_clients_round_is_one_vector_of_its_own_training(run, reviews):
    config, _, _ = run(level="client")
    session = opening.begin(config, units=60)
    data = data_of(config, reviews)
    slopes = session.slopes(data, session.update())
    values, unit_of_row = slopes(np.arange(5), 1)
    assert values.shape == (1, session.plan.directions)
    assert unit_of_row.tolist() == [0]
    # Rows come in a new order each time, so that several steps end elsewhere.
    config, _, _ = run(level="client", local_batch=1, local_learning_rate=0.5)
    session = opening.begin(config, units=60)
    slopes = session.slopes(data, session.update())
    found = [slopes(np.arange(12), 1)[0] for _ in range(4)]
    assert any(not np.array_equal(found[0], each) for each in found[1:])


def test_moments_of_any_update_are_as_long_as_the_clip_at_most(session):
    session, _ = session
    update, layers, clip = session.update(), session.update().prior.layers, session.plan.clip_norm
    # The longest there are: all of the length in one layer of equal numbers.
    worst = np.zeros(session.settings.dimension)
    worst[: layers[0].size] = 10 * clip
    assert np.linalg.norm(update.encode(worst, 0)) == pytest.approx(clip, rel=1e-12)
    draws = update.prior.draw(np.random.default_rng(0), 20)
    assert all(np.linalg.norm(update.encode(10 * draw, 0)) < clip for draw in draws)


def test_a_code_that_is_released_without_noise_moves_by_what_it_stands_for(run):
    config, _, _ = run({"optimizer": "sgd", "learning_rate": 0.5, "schedule": "constant"})
    session = opening.begin(config, units=60)
    flat = Flat(session.parameters)
    prior = Prior.from_json(session.header["public_prior"])
    codec_of = making.codec_maker(session.settings, config.seed, 8.0, None)
    update = CodedUpdate(flat, session.plan, session.settings, prior, codec_of, noise=0.0)
    codec, _ = codec_of(prior, 2)
    # Of these the code leaves nothing out.
    kept = codec.decode(codec.encode(prior.draw(np.random.default_rng(0), 1)[0]), 0.0)
    unit = session.plan.grid / session.plan.expected_units
    released = np.rint(update.encode(kept, 2) / unit).astype(int).tolist()
    start = flat.values()
    update.apply(2, released)
    np.testing.assert_allclose(start - flat.values(), 0.5 * kept, atol=1e-6)
    assert np.abs(kept).max() > 1e-4
