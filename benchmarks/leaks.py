"""The three leaks of DR-Encoder: what attacks get without protection, and with it.

    python benchmarks/leaks.py --data DATA [--model MINILM] [--only inversion codec membership]

DATA holds sst2/ with train.jsonl and validation.jsonl, whose rows have `text` and `label`. LoRA of
rank 8 on MiniLM's queries and values moves, with two label vectors. Noise and samples are secret
and new in every call; all else follows from --seed. Prints Markdown, a row as soon as it is known.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from utility import minilm

from hushtune.audit.canaries import toss
from hushtune.config import from_values
from hushtune.federated.codecs import IdentityCodec, LinearCodec, Prior, train
from hushtune.federated.leaks import codec as codecs
from hushtune.federated.leaks import inversion, membership
from hushtune.federated.leaks.atoms import Atoms, View
from hushtune.federated.leaks.protection import Sender, noised_moments, noised_prior
from hushtune.federated.leaks.scores import auc, auc_by_chance
from hushtune.federated.leaks.victim import Victim
from hushtune.loading import load_moving
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.boundary import Boundary
from hushtune.tasks.data import LabelledText

DELTA = 1e-5
POPULATION = 6920
#: An example is in a round with this probability, and a round is one of so many.
SAMPLED, ROUNDS = 0.04, 100
#: Rounds of training on public text before updates are attacked, so that LoRA's B is not zero.
WARM = 20
MEMBERS = 16


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"inversion": inversions, "codec": trained_codecs, "membership": memberships}
    parser.add_argument("--data", type=Path, required=True, help="folder of sst2/")
    parser.add_argument("--model", default=minilm(), help="the encoder; MiniLM if left out")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--texts", type=int, default=40, help="whose updates are inverted")
    parser.add_argument("--steps", type=int, default=1000, help="of an auto-encoder's training")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[8.0])
    parser.add_argument("--run", type=int, help="membership: only this one of the rows, from 0")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for part in chosen.only:
        parts[part](chosen)


def row(*cells):
    print("| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |")


def heading(*cells):
    print()
    row(*cells)
    print("|---" * len(cells) + "|", flush=True)


def rows_of(chosen, name, count=None):
    lines = (chosen.data / "sst2" / f"{name}.jsonl").read_text().splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    labels = np.array([int(each["label"] == "positive") for each in rows])
    return LabelledText([each["text"] for each in rows], labels, np.arange(len(rows)))


def load(chosen, data, rank=8):
    """A model as it is at first with text, and its first-layer vectors."""
    labels = {"negative": "it was terrible", "positive": "it was great"}
    model = {"name": chosen.model, "tune": "lora", "lora": {"r": rank}}
    read = {"train": "unread", "max_length": 64}
    config = from_values({"model": model, "data": read, "task": {"labels": labels}})
    loaded, _, parameters = load_moving(config)
    return Victim(loaded.readout, parameters, data), Atoms(loaded.model.encoder)


def warmed(chosen, data):
    """The same after some rounds without privacy on public text."""
    public, atoms = load(chosen, rows_of(chosen, "validation", 8 * WARM))
    optimizer = torch.optim.Adam(public.parameters.values(), lr=1e-3)
    for step in range(WARM):
        found = public.flat.tensors(public.gradient(np.arange(8 * step, 8 * step + 8)))
        for name, parameter in public.parameters.items():
            parameter.grad = found[name].float()
        optimizer.step()
    return public.of(data), atoms


def plan_of(directions, clip_norm, *, epsilon=8.0, sampled=SAMPLED, rounds=ROUNDS, population=None):
    population = population or POPULATION
    return PrivacyPlan.for_epsilon(
        epsilon=epsilon,
        delta=DELTA,
        mechanism="gaussian",
        adjacency="add-or-remove-one",
        unit="example",
        combine="mean",
        population=population,
        expected_units=sampled * population,
        steps=rounds,
        directions=directions,
        clip_norm=clip_norm,
    )


def inversions(chosen):
    """Leak 1."""
    heading("update", "tokens recovered", "texts whole", "sent text picked out")
    data = rows_of(chosen, "train")
    picked = np.random.default_rng(chosen.seed).choice(POPULATION, chosen.texts, replace=False)

    def attack(victim, atoms, updates, texts):
        """`texts`: for each update the token ids of its texts."""
        sent = [
            inversion.Sent(victim.views(update), tuple(map(len, of)))
            for update, of in zip(updates, texts, strict=True)
        ]
        first, last = texts[0][0][0], texts[0][0][-1]
        found = inversion.recover(atoms, sent, first, last)
        wanted = [[token for text in of for token in text[1:-1]] for of in texts]
        pairs = list(zip(found, wanted, strict=True))
        whole = np.mean([each == right for each, right in pairs])
        return float(np.mean([inversion.token_recall(*pair) for pair in pairs])), float(whole)

    def prepared(victim, batch):
        groups = [picked[start : start + batch] for start in range(0, len(picked), batch)]
        updates = [victim.gradient(group) for group in groups]
        texts = [[victim.readout.encode(data.texts[at])[0].ids for at in group] for group in groups]
        return np.stack(updates), texts

    victim, atoms = load(chosen, data, rank=32)
    updates, texts = prepared(victim, 1)
    short = [place for place, (text,) in enumerate(texts) if len(text) <= 32]
    name = f"first round, rank 32, {len(short)} texts of at most 32 tokens"
    row(name, *attack(victim, atoms, updates[short], [texts[at] for at in short]), "")

    victim, atoms = warmed(chosen, data)
    updates, texts = prepared(victim, 4)
    row("of 4 texts together", attack(victim, atoms, updates, texts)[0], "", "")
    updates, texts = prepared(victim, 1)
    clip_norm = 0.25 * float(np.median(np.linalg.norm(updates, axis=1)))
    # Who knows nothing: the most frequent tokens of public text, as often as there.
    public = rows_of(chosen, "validation")
    count = np.bincount(
        [token for text in public.texts for token in victim.readout.encode(text)[0].ids[1:-1]]
    )
    share = count / len(public.texts)
    order = [np.repeat(np.arange(len(share)), np.ceil(share).astype(int))]
    likely = order[0][np.argsort(-share[order[0]], kind="stable")].tolist()
    guessed = [inversion.token_recall(likely[: len(t) - 2], t[1:-1]) for (t,) in texts]
    row("guess: most frequent tokens", float(np.mean(guessed)), 0.0, 1 / len(texts))
    row("the update of another text", *attack(victim, atoms, np.roll(updates, 1, 0), texts), "")

    def identified(codec, codes):
        known = codec.encode(updates)
        return float(np.mean([inversion.most_alike(c, known) == i for i, c in enumerate(codes)]))

    identity = IdentityCodec(updates.shape[1])
    row("as it is", *attack(victim, atoms, updates, texts), identified(identity, updates))
    prior = codecs.plain_prior(victim.of(public).updates(np.arange(40)), victim.flat.layers)
    linear = LinearCodec(prior, identity.dimension // 8, chosen.seed)
    codes = linear.encode(updates)
    decoded = [linear.decode(code, 0.0) for code in codes]
    row(
        "linear 1/8, no noise",
        *attack(victim, atoms, decoded, texts),
        identified(linear, codes),
    )
    for codec in (identity, linear):
        for who, sampled in (("example-level", SAMPLED), ("client-level, nobody trusted", 1.0)):
            plan = plan_of(codec.size, clip_norm, sampled=sampled)
            sender = Sender(codec, Boundary(plan))
            codes = [sender.send(update[None]) for update in updates]
            found = attack(victim, atoms, [sender.decode(code) for code in codes], texts)
            name = f"{codec.kind}, ε = 8 {who}, noise {plan.noise_multiplier:.2f} C"
            row(name, *found, identified(codec, codes))


def trained_codecs(chosen):
    """Leak 2."""
    data = rows_of(chosen, "train")
    victim, atoms = warmed(chosen, data)
    layers = victim.flat.layers
    picked = np.random.default_rng(chosen.seed + 1).choice(POPULATION, 400, replace=False)
    updates = victim.updates(picked)
    others, shadows = updates[200:], updates[100 : 100 + MEMBERS]
    flat = Prior(layers, (0.0,) * len(layers), (1.0,) * len(layers))
    clip_norm = float(np.median(np.linalg.norm(updates[100:200], axis=1)))
    rng = np.random.default_rng(chosen.seed)

    def private(members):
        # Stage 1 as one round in which every member is, out of as many: the least noise there is.
        plan = plan_of(2 * len(layers), 2**0.5, sampled=1.0, rounds=1, population=len(members))
        return noised_prior(members, layers, plan, clip_norm)

    heading("codec", "trained on", "members", "AUC", "± by chance")
    for count, size in ((64, 64), (100, 32)):
        members = updates[:count]
        for what, seen in (
            ("their updates", members),
            ("draws, noised moments", private(members).draw(rng, count)),
            ("draws, noised moments of others", private(updates[100:200]).draw(rng, count)),
        ):
            by = codecs.by_components(codecs.principal_components(seen, size))
            found = auc(codecs.scores(by, members, flat), codecs.scores(by, others, flat))
            name = f"principal components, {size} numbers"
            row(name, what, count, found, auc_by_chance(count, len(others)))
    members = updates[:MEMBERS]
    everybody = codecs.moments(np.vstack([members, others]), clip_norm, layers)
    exact = everybody[:MEMBERS].mean(axis=0)
    plan = plan_of(2 * len(layers), 2**0.5, sampled=1.0, rounds=1, population=MEMBERS)
    for what, published in (
        ("exact moments", exact),
        ("noised moments", noised_moments(members, layers, plan, clip_norm)),
    ):
        found = codecs.moment_scores(published, everybody)
        area = auc(found[:MEMBERS], found[MEMBERS:])
        row("the prior itself", what, MEMBERS, area, auc_by_chance(MEMBERS, len(others)))

    def network(seen, prior):
        return codecs.by_network(codecs.trained_on(seen, prior, 1 / 64, chosen.seed, chosen.steps))

    # An attacker's own codec, trained on updates of its own, says how hard an update is.
    shadow_prior = codecs.plain_prior(shadows, layers)
    shadow = network(shadows, shadow_prior)
    prior, noised = codecs.plain_prior(members, layers), private(members)
    synthetic = codecs.by_network(train(noised, 1 / 64, chosen.seed, chosen.steps))
    for what, used, by in (
        ("their updates", prior, network(members, prior)),
        ("draws, noised moments", noised, synthetic),
    ):
        inside, outside = (
            codecs.scores(by, some, used) - codecs.scores(shadow, some, shadow_prior)
            for some in (members, others)
        )
        chance = auc_by_chance(MEMBERS, len(others))
        row("auto-encoder 1/64", what, MEMBERS, auc(inside, outside), chance)

    heading("principal components of 8 texts' updates", "tokens recovered")
    texts = [victim.readout.encode(data.texts[at])[0].ids for at in picked[:8]]
    for what, seen in (
        ("their updates", updates[:8]),
        ("draws, noised moments", private(updates[:8]).draw(rng, 8)),
        ("updates of other texts", updates[8:16]),
    ):
        basis = codecs.principal_components(seen, 8)
        rows = torch.cat([victim.views(each)[0].rows for each in basis])
        sent = inversion.Sent([View(rows, None)], tuple(map(len, texts)))
        found = inversion.recover(atoms, [sent], texts[0][0], texts[0][-1])[0]
        row(what, inversion.token_recall(found, [t for text in texts for t in text[1:-1]]))


def memberships(chosen):
    """Leak 3."""
    heading("training", "AUC", "TPR at 1 % FPR", "ε at least", "ε", "accuracy before", "after")
    population, sampled, canaries = 2000, 0.05, 400
    data, public = rows_of(chosen, "train", population), rows_of(chosen, "validation")
    picked = np.random.default_rng(chosen.seed).choice(population, canaries, replace=False)
    # Clipped codes without noise show what of the protection is the noise's.
    first = chosen.epsilons[0]
    runs = [("averaged updates", None, False, 1)]
    runs += [(f"linear 1/{part}, clipped, no noise", first, False, part) for part in (8, 64)]
    for epsilon in chosen.epsilons:
        runs += [(f"linear 1/{part}, clipped and noised", epsilon, True, part) for part in (8, 64)]
    for place, (name, epsilon, noised, part) in enumerate(runs):
        if chosen.run is not None and place != chosen.run:
            continue
        coins = toss(canaries)
        kept, made = membership.with_canaries(data, picked, coins, labels=2)
        victim, _ = load(chosen, kept)
        readout = victim.readout
        before, at_base = membership.accuracy(readout, public), membership.losses(readout, made)
        mean = membership.plain_mean(victim, sampled * population)
        claimed = "∞"
        if epsilon is not None:
            seen = victim.of(public).updates(np.arange(40))
            clip_norm = 0.25 * float(np.median(np.linalg.norm(seen, axis=1)))
            prior = codecs.plain_prior(seen, victim.flat.layers)
            codec = LinearCodec(prior, prior.dimension // part, chosen.seed)
            terms = {"epsilon": epsilon, "sampled": sampled, "population": population}
            plan = plan_of(codec.size, clip_norm, **terms)
            boundary = Boundary(plan, add_noise=None if noised else list)
            mean = membership.private_mean(victim, Sender(codec, boundary))
            claimed = plan.epsilon() if noised else claimed
        membership.train(victim, mean, probability=sampled, rounds=ROUNDS, learning_rate=0.005)
        scores = at_base - membership.losses(readout, made)
        found = membership.guess(scores, coins, delta=DELTA, confidence=0.95)
        cells = (found.auc, found.true_positives, found.epsilon_lower_bound, claimed, before)
        row(name, *cells, membership.accuracy(readout, public))


if __name__ == "__main__":
    main()
