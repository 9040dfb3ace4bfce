"""Each attack gets what it is after without protection, and nothing with it.

Noise and coins are secret, so that a check of "nothing" can fail by chance: each does with a
probability of at most `CHANCE` where an attack is told nothing at all. The same statistic has to be
beyond that limit without protection.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import WORDS
from scipy import stats

from hushtune.config import from_values
from hushtune.federated.codecs import IdentityCodec, Layer, LinearCodec, Prior, train
from hushtune.federated.leaks import codec as codecs
from hushtune.federated.leaks import inversion, membership
from hushtune.federated.leaks.atoms import Atoms, View
from hushtune.federated.leaks.protection import Sender, noised_prior
from hushtune.federated.leaks.scores import auc, true_positive_rate
from hushtune.federated.leaks.victim import Victim
from hushtune.loading import load_moving
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.boundary import Boundary
from hushtune.tasks.data import LabelledText

CHANCE = 1e-4
LENGTH = 8
POPULATION = 200


@pytest.fixture
def load(encoder_folder):
    """A tiny encoder with adapters, from its public start or away from it, and `rows` of text."""

    def loaded(rows: int, *, moved: bool, rank: int = 8) -> tuple[Victim, Atoms]:
        labels = {"negative": "it was terrible", "positive": "it was great"}
        model = {"name": encoder_folder, "tune": "lora", "lora": {"r": rank}}
        data = {"train": "unread", "max_length": 32}
        config = from_values({"model": model, "data": data, "task": {"labels": labels}})
        found, _, parameters = load_moving(config)
        if moved:
            draw = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for name, each in parameters.items():
                    if ".lora_B." in name:
                        each.add_(0.1 * torch.randn(each.shape, generator=draw))
        rng = np.random.default_rng(0)
        words = sorted(set(WORDS))
        texts = [" ".join(rng.choice(words, LENGTH)) for _ in range(rows)]
        text = LabelledText(texts, rng.integers(2, size=rows), np.arange(rows))
        victim = Victim(found.readout, parameters, text)
        return victim, Atoms(found.model.get_submodule("encoder"))

    return loaded


def updates_of(victim: Victim) -> np.ndarray:
    return victim.updates(np.arange(len(victim.data.texts)))


def plan_of(directions: int, *, epsilon: float = 8.0, **changed) -> PrivacyPlan:
    terms = {"expected_units": 8.0, "steps": 100, "clip_norm": 1.0, "population": POPULATION}
    return PrivacyPlan.for_epsilon(
        epsilon=epsilon,
        delta=1e-5,
        mechanism="gaussian",
        adjacency="add-or-remove-one",
        unit="example",
        combine="mean",
        directions=directions,
        **(terms | changed),
    )


def recovered(victim: Victim, atoms: Atoms, updates: np.ndarray) -> np.ndarray:
    """(n, n) how much of each text (columns) is in what each update (rows) gave."""
    texts = [victim.readout.encode(text)[0].ids for text in victim.data.texts]
    sent = [
        inversion.Sent(victim.views(each), (len(text),))
        for each, text in zip(updates, texts, strict=True)
    ]
    found = inversion.recover(atoms, sent, texts[0][0], texts[0][-1])
    return np.array([[inversion.token_recall(f, t[1:-1]) for t in texts] for f in found])


def looks_random(recall: np.ndarray) -> float:
    """The p-value of texts having nothing to do with what was recovered from their updates.

    Texts are independent and equally long, so that any pairing is as likely as the true one.
    """
    rng, rows = np.random.default_rng(0), np.arange(len(recall))
    true = recall[rows, rows].mean()
    draws = 20_000
    as_good = sum(recall[rows, rng.permutation(rows)].mean() >= true for _ in range(draws))
    return (as_good + 1) / (draws + 1)


@pytest.mark.parametrize(("moved", "rank"), [(True, 8), (False, 12)])
def test_a_sent_update_holds_its_text_and_so_does_a_clipped_one(load, moved, rank):
    victim, atoms = load(20, moved=moved, rank=rank)
    updates = updates_of(victim)
    for scale in (1.0, 1e-3):  # what a clip does
        recall = recovered(victim, atoms, scale * updates)
        assert np.diag(recall).mean() > 0.95
        assert looks_random(recall) < CHANCE


def test_several_texts_in_one_update_are_recovered_together(load):
    victim, atoms = load(2, moved=True)
    texts = [victim.readout.encode(text)[0].ids for text in victim.data.texts]
    seen = victim.views(victim.gradient(np.arange(2)))
    sent = inversion.Sent(seen, tuple(map(len, texts)))
    found = inversion.recover(atoms, [sent], texts[0][0], texts[0][-1])[0]
    assert inversion.token_recall(found, [token for text in texts for token in text[1:-1]]) > 0.6


@pytest.mark.parametrize("codec", ["identity", "linear"])
def test_a_noised_code_does_not_hold_its_text(load, codec):
    victim, atoms = load(20, moved=True)
    updates = updates_of(victim)
    clip_norm = 0.25 * float(np.median(np.linalg.norm(updates, axis=1)))
    dimension, layers = updates.shape[1], victim.flat.layers
    used = IdentityCodec(dimension)
    if codec == "linear":
        used = LinearCodec(codecs.plain_prior(updates, layers), dimension // 8, seed=0)
    sender = Sender(used, Boundary(plan_of(used.size, clip_norm=clip_norm)))
    decoded = [sender.decode(sender.send(update[None])) for update in updates]
    assert looks_random(recovered(victim, atoms, np.stack(decoded))) > CHANCE


def test_it_is_the_noise_that_hides_the_text(load):
    victim, atoms = load(20, moved=True)
    updates = updates_of(victim)
    codec = IdentityCodec(updates.shape[1])
    sender = Sender(codec, Boundary(plan_of(codec.size), add_noise=list))
    sent = np.stack([sender.decode(sender.send(update[None])) for update in updates])
    recall = recovered(victim, atoms, sent)
    assert np.diag(recall).mean() > 0.95
    assert looks_random(recall) < CHANCE


def larger(members: np.ndarray, others: np.ndarray) -> float:
    """The p-value of members' scores being no larger than others'."""
    return float(stats.mannwhitneyu(members, others, alternative="greater").pvalue)


def priors(victim: Victim, members: np.ndarray) -> tuple[Prior, Prior, Prior]:
    """Of no scales, of exact moments, and of noised ones."""
    layers = victim.flat.layers
    clip_norm = float(np.median(np.linalg.norm(members, axis=1)))
    count = len(members)
    terms = {"expected_units": float(count), "population": count, "steps": 1}
    plan = plan_of(2 * len(layers), clip_norm=2**0.5, **terms)
    flat = Prior(layers, (0.0,) * len(layers), (1.0,) * len(layers))
    exact = codecs.plain_prior(members, layers)
    return flat, exact, noised_prior(members, layers, plan, clip_norm)


def test_principal_components_tell_whose_updates_they_are_of_and_those_of_draws_do_not(load):
    victim, _ = load(100, moved=True)
    members, others = np.split(updates_of(victim), 2)
    flat, _, noised = priors(victim, members)
    draws = noised.draw(np.random.default_rng(0), len(members))
    p_values = []
    for seen in (members, draws):
        by = codecs.by_components(codecs.principal_components(seen, len(members)))
        inside, outside = (codecs.scores(by, some, flat) for some in (members, others))
        p_values.append(larger(inside, outside))
        if seen is members:
            assert auc(inside, outside) == 1.0
    assert p_values[0] < CHANCE < p_values[1]


def test_principal_components_of_two_updates_hold_both_texts_and_those_of_draws_do_not(load):
    victim, atoms = load(20, moved=True)
    updates = updates_of(victim)
    texts = [victim.readout.encode(text)[0].ids for text in victim.data.texts]
    pairs = np.arange(20).reshape(10, 2)
    wanted = [[token for at in pair for token in texts[at][1:-1]] for pair in pairs]

    def recall(trained_on: list[np.ndarray]) -> np.ndarray:
        sent = []
        for pair, seen in zip(pairs, trained_on, strict=True):
            basis = codecs.principal_components(seen, 2)
            rows = [victim.views(each)[0].rows for each in basis]
            lengths = tuple(len(texts[at]) for at in pair)
            sent.append(inversion.Sent([View(torch.cat(rows), None)], lengths))
        found = inversion.recover(atoms, sent, texts[0][0], texts[0][-1])
        return np.array([[inversion.token_recall(f, w) for w in wanted] for f in found])

    rng = np.random.default_rng(0)
    leaking = recall([updates[pair] for pair in pairs])
    private = recall([priors(victim, updates[pair])[2].draw(rng, 2) for pair in pairs])
    assert np.diag(leaking).mean() > 0.9
    assert looks_random(leaking) < CHANCE < looks_random(private)


@pytest.mark.slow
def test_an_autoencoder_trained_on_updates_tells_whose_and_one_trained_on_draws_does_not():
    layers = (Layer("a", 200), Layer("b", 50))
    updates = Prior(layers, (0.5, 0.0), (1.0, 0.125)).draw(np.random.default_rng(0), 108)
    members, others = updates[:8], updates[8:]
    exact = codecs.plain_prior(members, layers)
    leaking = codecs.trained_on(members, exact, 1 / 8, 0, 1000, batch=8)
    private = train(exact, 1 / 8, 0, 1000, batch=8)
    p_values = []
    for codec in (leaking, private):
        by = codecs.by_network(codec)
        p_values.append(larger(*(codecs.scores(by, some, exact) for some in (members, others))))
    assert p_values[0] < CHANCE < p_values[1]


@pytest.mark.parametrize("protection", ["none", "clip", "clip and noise"])
def test_a_released_model_tells_its_canary_but_for_noise(load, protection):
    victim, _ = load(8, moved=False)
    start = victim.flat.values()
    updates = updates_of(victim)
    prior = codecs.plain_prior(updates, victim.flat.layers)
    codec = LinearCodec(prior, prior.dimension // 8, seed=0)
    clip_norm = float(np.median(np.linalg.norm(updates, axis=1)))
    # Every row is in every round: what varies from run to run is the noise alone.
    rounds = 10
    terms = {"expected_units": 8.0, "steps": rounds, "population": 8}
    plan = plan_of(codec.size, epsilon=0.5, clip_norm=clip_norm, **terms)
    # Runs that differ in one row, over and over: they are independent, as the p-value asks for.
    coins = np.arange(24) % 2 == 0
    scores = []
    for coin in coins:
        victim.flat.put(start)
        kept, made = membership.with_canaries(
            victim.data, np.array([0]), np.array([coin]), labels=2
        )
        training = victim.of(kept)
        base = membership.losses(victim.readout, made)
        mean = membership.plain_mean(training, 8.0)
        if protection != "none":
            boundary = Boundary(plan, add_noise=list if protection == "clip" else None)
            mean = membership.private_mean(training, Sender(codec, boundary))
        membership.train(training, mean, probability=1.0, rounds=rounds, learning_rate=0.01)
        scores.extend(base - membership.losses(victim.readout, made))
    told = larger(np.array(scores)[coins], np.array(scores)[~coins])
    # ε = 0.5 allows hardly more than chance.
    assert told > CHANCE if protection == "clip and noise" else told < CHANCE


@pytest.mark.parametrize(("right", "most"), [(50, 0.5), (95, 6.0)])
def test_guesses_that_are_mostly_right_bound_epsilon_and_random_ones_do_not(right, most):
    coins = np.arange(100) % 2 == 0
    scores = np.where(coins, 1.0, 0.0)
    scores[right:] = 1.0 - scores[right:]
    found = membership.guess(scores, coins, delta=1e-5, confidence=0.95)
    assert (found.epsilon_lower_bound > 1.0) == (right > 50)
    assert found.epsilon_lower_bound < most


def test_scores_are_what_they_are_called():
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == 3.5 / 4
    others = np.arange(100.0)
    members = np.array([98.5, 99.5, 97.0, 98.0])
    assert true_positive_rate(members, others, at=0.01) == 0.5
    assert inversion.token_recall([5, 5, 7], [5, 7, 7, 9]) == 0.5
    assert inversion.most_alike(np.array([0.0, 2.0]), np.array([[9.0, 1.0], [0.0, 0.1]])) == 1


def test_rows_of_a_gradient_are_the_mean_of_each_rows_own(load):
    victim, _ = load(3, moved=True)
    each = updates_of(victim)
    together = victim.gradient(np.arange(3))
    assert np.allclose(together, each.mean(axis=0), atol=1e-5)
