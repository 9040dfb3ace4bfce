"""What all classifying read-outs share: a text or a pair inside a template, and cross-entropy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from hushtune.config import ConfigError
from hushtune.tasks.readouts.base import Example, ReadOut, TokenSequence, filled
from hushtune.tasks.texts import Pair, as_pair
from hushtune.zo.losses import Inputs

#: A filled template, or two texts for the tokenizer to put together.
Filled = str | tuple[str, str]

#: Fills a template with a text, or with two.
Fill = Callable[[str, str], Filled]


class ClassifyingReadOut(ReadOut):
    """Scores are one per label, and the loss is their cross-entropy.

    Args:
        words: the words that stand for each label.
        template: see `Template`; empty: the read-out's own for one text or for two.
        pairs: whether two texts are classified together.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        words: Sequence[str],
        template: str,
        max_length: int,
        *,
        pairs: bool = False,
    ) -> None:
        super().__init__(model, tokenizer, len(words), max_length)
        self.pairs = pairs
        self._prepare(words, template)

    @abstractmethod
    def _prepare(self, words: Sequence[str], template: str) -> None:
        """Check template and words, and keep what encoding needs of them."""

    def encode(self, text: str | Pair) -> Example:
        if isinstance(text, Pair):
            return self._encode(self._plain(text.first), self._plain(text.second))
        return self._encode(self._plain(text), "")

    def text_of(self, words: str) -> str | Pair:
        return as_pair(words) if self.pairs else words

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(scores, labels)

    @abstractmethod
    def _encode(self, text: str, second: str) -> Example:
        """`encode` for texts without special tokens; `second` is empty where there is none."""

    def _extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        if not self._typed:
            return {}
        return {"token_type_ids": filled([each.types for each in sequences], length, 0)}

    def _fill_to_length(self, fill: Fill, text: str, second: str, most: int) -> TokenSequence:
        """Tokens of `fill(text, second)`, with the end of a text cut off until they are few enough.

        It is the first text that is cut, and the second where nothing of the first is left. What
        `fill` puts around them stays whole.
        """
        found = self._cut(lambda part: fill(part, second), text, most)
        if len(found.ids) > most:
            found = replace(self._cut(lambda part: fill("", part), second, most), cut=True)
        if len(found.ids) > most:
            raise ConfigError(
                f"data.max_length: {self.max_tokens + 1} is not accepted; the template needs at "
                f"least {self.max_tokens + 1 + len(found.ids) - most}."
            )
        # A text of no tokens, as a few tokenizers can make, still needs something to attend to.
        return found if found.ids else TokenSequence((self.tokenizer.pad_token_id or 0,))

    def _cut(self, fill: Callable[[str], Filled], text: str, most: int) -> TokenSequence:
        """Tokens of the longest beginning of `text` that gives so few; of none, if none does."""
        found = self._tokens(fill(text))
        if len(found.ids) <= most:
            return found
        ends = _token_ends(self.tokenizer, text)
        keep = len(ends) - (len(found.ids) - most)
        while keep > 0 and len(found.ids) > most:
            found = self._tokens(fill(text[: ends[keep - 1]]))
            keep -= 1  # for the next round: tokens may merge differently at the cut
        return replace(found if len(found.ids) <= most else self._tokens(fill("")), cut=True)

    def _tokens(self, texts: Filled) -> TokenSequence:
        encoded = self.tokenizer(*([texts] if isinstance(texts, str) else texts))
        types = encoded["token_type_ids"] if self._typed else ()
        return TokenSequence(tuple(encoded["input_ids"]), types=tuple(types))

    @property
    def _typed(self) -> bool:
        """Whether the model is told which text a token is of."""
        return self.pairs and "token_type_ids" in self.tokenizer.model_input_names


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """(…, rows) float64 cross-entropy of (…, rows, labels) scores; a function of each row alone.

    In float64, since differences of nearly equal losses are what is wanted.
    """
    log_probabilities = scores.double().log_softmax(dim=-1)
    index = labels.expand(scores.shape[:-1]).unsqueeze(-1)
    return -log_probabilities.gather(-1, index).squeeze(-1)


def _token_ends(tokenizer: Any, text: str) -> Sequence[int]:
    """Where each token of the text ends; every character, where the tokenizer cannot tell."""
    if not tokenizer.is_fast:
        return range(1, len(text) + 1)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [end for _, end in encoded["offset_mapping"]]
