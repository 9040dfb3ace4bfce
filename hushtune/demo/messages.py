"""Customer-support messages of an invented company, for trying hushtune without private data.

Ostrelle sells electricity, broadband, mobile plans and a payment card. Its customers write in six
intents that share most of their vocabulary, and they write names, addresses and account numbers
into nearly every message: text that nobody would want a model to remember. No sentence or person
is real, and the same seed gives the same messages everywhere.

A message is put together from phrases:

    greeting, context, the request, asides, details, closing, sign-off

Half of the requests are indirect, and an aside may mention another intent that is *not* meant. Most
messages also name the internal procedure they fall under ("a K7"), whose meaning nothing but the
labelled messages reveals; a few name nothing else. A few requests could be read as either of two
intents, and keep the label they were drawn with. So descriptions alone get about half of the
messages right, and a linear head on a small sentence encoder nearly all.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from hushtune.demo import phrases_contract, phrases_money, phrases_service, phrases_shared, values
from hushtune.demo.grammar import fill
from hushtune.demo.styles import RESTYLE, after_greeting

LABELS: dict[str, str] = {
    "cancellation": "the customer wants to cancel the contract",
    "refund": "the customer asks for money to be paid back",
    "billing_error": "the customer says that a bill is wrong",
    "relocation": "the customer is moving and has a new address",
    "fault": "the customer reports that something does not work",
    "fraud": "the customer lost a card or suspects fraud",
}
"""Intent names and what they mean, in words chosen without a look at the messages."""

# Shares of how a request is put, in percent; what is left is indirect.
AMBIGUOUS_PERCENT = 3
JARGON_PERCENT = 4
DIRECT_PERCENT = 45
# Shares of messages that also name the procedure they fall under, and of those that also mention
# an intent that is not meant, in percent.
JARGON_ASIDE_PERCENT = 85
ASIDE_PERCENT = 8

WORD_LIMITS = (8, 60)


@dataclass(frozen=True)
class Message:
    """One message, the name of its intent, and the customer who wrote it (such as "c0412")."""

    text: str
    label: str
    customer: str


@dataclass(frozen=True)
class _Customer:
    """What stays the same in all messages of one customer."""

    identity: str
    facts: dict[str, str]
    style: str


def _lines(bank: str) -> list[str]:
    return bank.strip().splitlines()


def _banks(kind: str) -> dict[str, list[str]]:
    modules = {
        "cancellation": phrases_contract,
        "refund": phrases_money,
        "billing_error": phrases_money,
        "relocation": phrases_contract,
        "fault": phrases_service,
        "fraud": phrases_service,
    }
    return {
        label: _lines(getattr(module, label.upper() + kind)) for label, module in modules.items()
    }


_DIRECT, _INDIRECT, _ASIDES = _banks(""), _banks("_INDIRECT"), _banks("_ASIDES")
_AMBIGUOUS = {
    label: [
        phrase
        for pair, bank in phrases_shared.AMBIGUOUS.items()
        if label in pair
        for phrase in _lines(bank)
    ]
    for label in LABELS
}
_JARGON = _lines(phrases_shared.JARGON)
_JARGON_ASIDES = _lines(phrases_shared.JARGON_ASIDES)
_GREETINGS = _lines(phrases_shared.GREETINGS)
_CONTEXT = _lines(phrases_shared.CONTEXT)
_ACCOUNT_DETAILS = _lines(phrases_shared.ACCOUNT_DETAILS)
_CONTACT_DETAILS = _lines(phrases_shared.CONTACT_DETAILS)
_CLOSINGS = _lines(phrases_shared.CLOSINGS)
_SIGN_OFFS = _lines(phrases_shared.SIGN_OFFS)


def generate(count: int, seed: int) -> list[Message]:
    """Return `count` distinct messages; the same arguments always give the same list.

    Intents are equally likely. Most customers write a few messages, some two dozen.

    Raises:
        ValueError: if `count` is negative.
    """
    if count < 0:
        raise ValueError(f"Expected count={count} >= 0.")
    return _correspondence(count, Random(seed), first_customer=1, taken=set())


def write(
    folder: str | Path, seed: int = 0, train: int = 5000, test: int = 800
) -> tuple[Path, Path]:
    """Write `train.jsonl` and `test.jsonl` into `folder` and return their paths.

    Every row has `text`, `label` and `customer`. The two files share neither a text nor a customer,
    and the training rows are those of `generate(train, seed)`.

    Raises:
        ValueError: if `train` or `test` is negative.
    """
    for name, count in (("train", train), ("test", test)):
        if count < 0:
            raise ValueError(f"Expected {name}={count} >= 0.")
    random, taken = Random(seed), set[str]()
    train_rows = _correspondence(train, random, first_customer=1, taken=taken)
    first_new = 1 + len({message.customer for message in train_rows})
    test_rows = _correspondence(test, random, first_customer=first_new, taken=taken)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.jsonl", folder / "test.jsonl"
    for path, rows in zip(paths, (train_rows, test_rows), strict=True):
        lines = (json.dumps(vars(row), ensure_ascii=False) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return paths


def _correspondence(
    count: int, random: Random, *, first_customer: int, taken: set[str]
) -> list[Message]:
    """Draw messages whose texts are not in `taken`, customer by customer, then shuffle them."""
    authors = _authors(random, first_customer)
    messages = []
    while len(messages) < count:
        author = next(authors)
        label = random.choice(list(LABELS))
        text = _text(label, author, random)
        while text in taken:
            text = _text(label, author, random)
        taken.add(text)
        messages.append(Message(text, label, author.identity))
    random.shuffle(messages)
    return messages


def _authors(random: Random, first_customer: int) -> Iterator[_Customer]:
    """Yield the author of one message after another, each customer as often as they write."""
    number = first_customer
    while True:
        customer = _customer(number, random)
        for _ in range(random.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 12, 24])):
            yield customer
        number += 1


def _customer(number: int, random: Random) -> _Customer:
    first, last = random.choice(values.FIRST_NAMES), random.choice(values.LAST_NAMES)
    street = f"{random.randint(1, 190)} {random.choice(values.STREETS)}"
    account = f"OS-{random.randrange(10**4):04d}-{random.randrange(10**4):04d}"
    user = random.choice(
        [f"{first}.{last}", f"{first[0]}{last}", f"{last}{random.randint(50, 99)}"]
    )
    facts = {
        "first": first,
        "name": random.choice([f"{first} {last}", f"{first} {last}", f"{first[0]}. {last}"]),
        "street": street,
        "address": f"{street}, {random.choice(values.TOWNS)}",
        "account": random.choice([account, account, account.replace("-", "")]),
        "phone": f"07700 900{random.randrange(1000):03d}",
        "email": f"{user.lower()}@{random.choice(values.MAIL_DOMAINS)}",
        "years": str(random.randint(2, 14)),
    }
    return _Customer(
        f"c{number:04d}", facts, random.choice(["neat", "neat", "neat", "casual", "sloppy"])
    )


def _text(label: str, customer: _Customer, random: Random) -> str:
    """Write one message within the limits of length."""
    shortest, longest = WORD_LIMITS
    while True:
        text = RESTYLE[customer.style](_draft(label, customer, random), random)
        if shortest <= len(text.split()) <= longest:
            return text


def _draft(label: str, customer: _Customer, random: Random) -> str:
    favourite = list(LABELS).index(label)
    facts = customer.facts | {
        "plan": _mostly(values.PLANS, favourite, random),
        "device": _mostly(values.DEVICES, favourite, random),
        "procedure": random.choice(values.PROCEDURES[label]),
    }

    def chance(percent: int) -> bool:
        return random.randrange(100) < percent

    body = [_request(label, random)]
    if body[0] not in _JARGON and chance(JARGON_ASIDE_PERCENT):
        body.insert(random.randrange(2), random.choice(_JARGON_ASIDES))
    if chance(ASIDE_PERCENT):
        other = random.choice([name for name in LABELS if name != label])
        body.insert(random.randrange(2), random.choice(_ASIDES[other]))
    if chance(8):
        body.insert(0, random.choice(_CONTEXT))
    if chance(70):
        body.insert(random.choice([0, len(body)]), random.choice(_ACCOUNT_DETAILS))
    if chance(16):
        body.append(random.choice(_CONTACT_DETAILS))
    if chance(6):
        body.append(random.choice(_CLOSINGS))
    if chance(20):
        body.append(random.choice(_SIGN_OFFS))
    sentences = [fill(phrase, facts, random) for phrase in body]
    if chance(25):
        sentences[0] = after_greeting(sentences[0])
        sentences.insert(0, fill(random.choice(_GREETINGS), facts, random))
    return " ".join(sentences)


def _request(label: str, random: Random) -> str:
    """Choose the phrase that says what the customer wants, more or less openly."""
    drawn = random.randrange(100)
    for percent, bank in (
        (AMBIGUOUS_PERCENT, _AMBIGUOUS[label]),
        (JARGON_PERCENT, _JARGON),
        (DIRECT_PERCENT, _DIRECT[label]),
    ):
        if drawn < percent:
            return random.choice(bank)
        drawn -= percent
    return random.choice(_INDIRECT[label])


def _mostly(products: list[str], favourite: int, random: Random) -> str:
    return products[favourite] if random.randrange(100) < 40 else random.choice(products)
