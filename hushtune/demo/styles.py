"""How customers type: neatly, as on a telephone, or with slips of the finger."""

import re
from collections.abc import Callable
from random import Random

from hushtune.demo import values

# Words that keep their capital after "Hello,".
_PROPER = {
    phrase.split()[0]
    for bank in (values.AGENTS, values.SHOPS, values.PLANS, values.MONTHS, values.DAYS)
    for phrase in bank
} | {"I", "Ostrelle", *values.FIRST_NAMES}


def after_greeting(sentence: str) -> str:
    """Take the capital from a sentence that follows "Hello,", unless it opens with a name."""
    first_word = re.split(r"[\s',.]", sentence, maxsplit=1)[0]
    if first_word in _PROPER or first_word[:2].isupper():
        return sentence
    return sentence[0].lower() + sentence[1:]


def _neat(text: str, random: Random) -> str:
    return text


def _casual(text: str, random: Random) -> str:
    """Write as one does on a telephone: few capitals, short forms, no apostrophes."""
    for long, short in (("please", "pls"), ("Please", "pls"), ("account number", "acct no")):
        text = text.replace(long, short)
    text = re.sub(r"(^|(?<![A-Z])[.?!] )([A-Z])(?=[a-z' ])", lambda m: m[1] + m[2].lower(), text)
    return re.sub(r"\bI\b(?!\.)", "i", text).replace("'", "").rstrip(".")


def _sloppy(text: str, random: Random) -> str:
    """Mistype one to three plain words; names, numbers and addresses stay as they are."""
    words = text.split(" ")
    plain = [place for place, word in enumerate(words) if re.fullmatch(r"[a-z]{5,}[.,?]?", word)]
    for place in random.sample(plain, min(len(plain), random.randint(1, 3))):
        word = words[place]
        at = random.randrange(1, len(word.rstrip(".,?")) - 1)
        words[place] = random.choice(
            [
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
            ]
        )
    return " ".join(words)


RESTYLE: dict[str, Callable[[str, Random], str]] = {
    "neat": _neat,
    "casual": _casual,
    "sloppy": _sloppy,
}
