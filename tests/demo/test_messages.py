"""The demo's messages are reproducible, well labelled, and look like what must not leak."""

import hashlib
import json
import re
from collections import Counter

import pytest

from hushtune.demo import grammar, messages, phrases_shared, values
from hushtune.demo.messages import LABELS, generate, write

ACCOUNT = re.compile(r"OS-?\d{4}-?\d{4}")

# Changes only on purpose: every figure that was reported for the demo depends on these texts.
DIGEST = "f8cccc1fce144d02772e254f97ded96c0fe50b055687a31cc67e00f1bc1bc164"


@pytest.fixture(scope="module")
def sample():
    return generate(3000, seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    paths = write(tmp_path_factory.mktemp("demo") / "data", seed=3, train=1500, test=300)
    return [
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in paths
    ]


def test_messages_are_the_same_on_every_machine():
    joined = "\n".join(
        f"{message.customer}\t{message.label}\t{message.text}" for message in generate(200, seed=0)
    )
    assert hashlib.sha256(joined.encode("utf-8")).hexdigest() == DIGEST


def test_a_seed_fixes_the_messages_and_another_seed_changes_them():
    assert generate(50, seed=5) == generate(50, seed=5)
    assert generate(50, seed=5) != generate(50, seed=6)


def test_intents_are_about_equally_frequent(sample):
    counts = Counter(message.label for message in sample)
    assert counts.keys() == LABELS.keys()
    # Binomial(3000, 1/6): mean 500, standard deviation 20.
    assert all(abs(count - 500) < 100 for count in counts.values())


def test_no_text_occurs_twice(sample):
    assert len({message.text for message in sample}) == len(sample)


def test_messages_keep_to_their_length_and_most_are_short(sample):
    lengths = [len(message.text.split()) for message in sample]
    assert min(lengths) >= 8
    assert max(lengths) <= 60
    assert sum(length < 40 for length in lengths) > 0.8 * len(lengths)


def test_messages_carry_personal_details(sample):
    def share(pattern):
        return sum(bool(re.search(pattern, message.text)) for message in sample) / len(sample)

    assert share(ACCOUNT) > 0.7
    assert share(r"07700 900\d{3}") > 0.05
    assert share(r"\w+@[\w.]+") > 0.05
    assert share(r"£\d+") > 0.2


def test_a_customer_keeps_one_account_number(sample):
    numbers = {}
    for message in sample:
        for number in ACCOUNT.findall(message.text):
            numbers.setdefault(message.customer, set()).add(number)
    assert numbers
    assert all(len(known) == 1 for known in numbers.values())


def test_some_customers_write_much_more_than_others(sample):
    counts = Counter(message.customer for message in sample)
    assert all(re.fullmatch(r"c\d{4}", customer) for customer in counts)
    assert min(counts.values()) == 1
    assert max(counts.values()) == 24
    assert len(sample) / len(counts) > 3


def test_every_slot_is_filled_and_every_choice_made(sample):
    assert not [message.text for message in sample if re.search(r"[<>{}|]", message.text)]


@pytest.mark.parametrize("kind", ["_DIRECT", "_INDIRECT", "_ASIDES", "_AMBIGUOUS"])
def test_every_intent_has_distinct_phrases_of_each_kind(kind):
    banks = getattr(messages, kind)
    assert banks.keys() == LABELS.keys()
    assert all(len(set(bank)) == len(bank) >= 2 for bank in banks.values())


def test_no_procedure_stands_for_two_intents():
    assert values.PROCEDURES.keys() == LABELS.keys()
    names = [name for procedures in values.PROCEDURES.values() for name in procedures]
    assert len(set(names)) == len(names)


def test_ambiguous_pairs_name_intents():
    assert all(len(set(pair) & LABELS.keys()) == 2 for pair in phrases_shared.AMBIGUOUS)


def test_an_unknown_slot_is_refused():
    with pytest.raises(KeyError, match="altitude"):
        grammar.fill("It is <altitude> here.", {}, messages.Random(0))


def test_train_and_test_share_neither_texts_nor_customers(files):
    train, test = files
    assert (len(train), len(test)) == (1500, 300)
    for column in ("text", "customer"):
        assert not {row[column] for row in train} & {row[column] for row in test}


def test_files_hold_the_generated_messages(files):
    train, test = files
    assert train == [vars(message) for message in generate(1500, seed=3)]
    assert all(row.keys() == {"text", "label", "customer"} for row in test)
    assert {row["label"] for row in test} == LABELS.keys()


def test_writing_twice_gives_the_same_bytes(tmp_path):
    first = write(tmp_path / "first", seed=2, train=60, test=20)
    second = write(tmp_path / "second", seed=2, train=60, test=20)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_negative_counts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="count=-1"):
        generate(-1, seed=0)
    with pytest.raises(ValueError, match="test=-1"):
        write(tmp_path / "none", train=1, test=-1)
    assert not (tmp_path / "none").exists()
