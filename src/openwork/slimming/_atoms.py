"""Numbers for the channels of a network: equal ones go together, pinned ones stay."""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class Atoms:
    """Numbers of channels, which can be made equal and pinned."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._pins: dict[int, dict[str, None]] = {}

    def new(self, count: int, pin: str | None = None) -> Ids:
        """Numbers that no channel has yet."""
        found = np.arange(len(self._parent), len(self._parent) + count)
        self._parent += found.tolist()
        if pin:
            self.pin(found, pin)
        return found

    def find(self, atom: int) -> int:
        """The number that stands for all that are equal to this one: the smallest."""
        while self._parent[atom] != atom:
            self._parent[atom] = self._parent[self._parent[atom]]
            atom = self._parent[atom]
        return atom

    def tie(self, first: Ids, second: Ids) -> None:
        """Make numbers equal, place by place."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self.find(a), self.find(b)))
            self._parent[high] = low

    def pin(self, ids: Ids, why: str) -> None:
        """These channels stay."""
        for atom in np.unique(ids).tolist():
            self._pins.setdefault(atom, {})[why] = None

    def classes(self) -> Ids:
        """For every atom the one that stands for its class."""
        return np.array([self.find(atom) for atom in range(len(self._parent))], dtype=np.int64)

    def pins(self) -> dict[int, list[str]]:
        """Why classes stay, for those that are pinned."""
        found: dict[int, dict[str, None]] = {}
        for atom, reasons in self._pins.items():
            found.setdefault(self.find(atom), {}).update(reasons)
        return {atom: list(reasons) for atom, reasons in found.items()}
