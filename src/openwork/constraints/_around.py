"""A constraint around another one: it holds the weights that the other holds."""

import torch

from .base import Constraint


class Around(Constraint):
    """What a set made of another set, `of`, takes over from it."""

    of: Constraint

    def granule(self) -> tuple[int, int]:
        return self.of.granule()

    def channels(self) -> int:
        return self.of.channels()

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        self.of.check(shape)
