"""The notation of the demo's phrases: `{this|that}` is a choice, `<amount>` a value to fill in.

Choices are not nested, but they may contain slots.
"""

import re
from collections.abc import Callable
from random import Random

from hushtune.demo import values


def fill(phrase: str, facts: dict[str, str], random: Random) -> str:
    """Take one of each set of alternatives; fill slots from `facts`, or else at random.

    Raises:
        KeyError: if a slot is neither in `facts` nor one that can be drawn.
    """
    phrase = re.sub(r"\{([^{}]*)\}", lambda found: random.choice(found[1].split("|")), phrase)

    def value(found: re.Match[str]) -> str:
        slot = found[1]
        return facts[slot] if slot in facts else _SLOTS[slot](random)

    return re.sub(r"<(\w+)>", value, phrase)


def _date(random: Random) -> str:
    day, month = random.randint(1, 28), random.choice(values.MONTHS)
    number = values.MONTHS.index(month) + 1
    return random.choice([f"{day} {month}", f"{day} {month}", f"{month} {day}", f"{day}/{number}"])


def _amount(random: Random) -> str:
    pounds, pence = random.randint(6, 420), random.randrange(100)
    return random.choice([f"£{pounds}.{pence:02d}", f"£{pounds}.{pence:02d}", f"£{pounds}"])


def _new_street(random: Random) -> str:
    return f"{random.randint(1, 190)} {random.choice(values.STREETS)}"


_SLOTS: dict[str, Callable[[Random], str]] = {
    "amount": _amount,
    "amount_2": _amount,
    "date": _date,
    "new_street": _new_street,
    "new_address": lambda random: f"{_new_street(random)}, {random.choice(values.TOWNS)}",
    "town": lambda random: random.choice(values.TOWNS),
    "shop": lambda random: random.choice(values.SHOPS),
    "agent": lambda random: random.choice(values.AGENTS),
    "month": lambda random: random.choice(values.MONTHS),
    "day": lambda random: random.choice(values.DAYS),
}
