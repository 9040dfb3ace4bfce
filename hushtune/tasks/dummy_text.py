"""Public text for the probe: what is known before the private data is looked at."""

from __future__ import annotations

_SENTENCES = (
    "The train left a little after nine and was nearly empty.",
    "Could somebody tell me where the keys are kept?",
    "I was pleasantly surprised by how well it all worked out.",
    "It took far too long and nobody bothered to explain why.",
    "What is the tallest building in the city?",
    "We met at the market, bought some bread, and walked home along the river.",
    "The second half drags, although the music is lovely.",
    "Please send me the papers before Friday.",
    "My phone has been switching itself off since the last update.",
    "Who wrote the letter, and when did it arrive?",
    "A warm, funny and generous evening that I would gladly repeat.",
    "Nothing about the meeting was worth the journey.",
    "The recipe needs two eggs, a cup of flour and a pinch of salt.",
    "She has worked in the same office for eleven years.",
    "How many people live on the island in winter?",
    "The invoice is wrong again, and I have already called twice.",
)


def dummy_texts(count: int) -> list[str]:
    """`count` public texts, from one sentence to several; after sixteen they begin again."""
    texts = []
    for index in range(count):
        sentences = 1 + index % 4
        texts.append(
            " ".join(_SENTENCES[(index * 5 + k * 3) % len(_SENTENCES)] for k in range(sentences))
        )
    return texts
