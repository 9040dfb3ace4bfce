"""The codec that leaves nothing out and adds nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hushtune.federated.codecs.base import by_row, checked_code
from hushtune.privacy.plan import require


@dataclass(frozen=True)
class IdentityCodec:
    """Codes are updates, and decoding changes nothing; noise is not shrunk.

    `LinearCodec` of full size is the same up to a rotation, but does shrink.

    Attributes:
        dimension: d = m.

    Raises:
        ValueError: if the dimension is not positive.
    """

    dimension: int

    kind: ClassVar[str] = "identity"
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.dimension >= 1, "dimension", self.dimension, "at least 1")

    @property
    def size(self) -> int:
        return self.dimension

    def encode(self, updates: np.ndarray) -> np.ndarray:
        return by_row(lambda row: row, updates, self.dimension, self.dimension)

    def decode(self, code: np.ndarray, noise: float) -> np.ndarray:
        return checked_code(code, noise, self.dimension).copy()
