"""Several constraints at once: a weight must lie in all of the sets."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import Tensor

from .base import Constraint, Holder
from .levels import Levels

PASSES = 10
"""How often all sets are projected onto, at most."""

GENERAL = ("csr", "kept")
"""Formats that hold any weight, whatever its pattern; the more telling one last."""

Part = Annotated[SerializeAsAny[Constraint], BeforeValidator(Constraint.parse)]


class And(Constraint):
    """The weights that lie in every one of `of`, such as kernel patterns and connectivity.

    project: projects onto one set after the other, in the order given (heuristic: the nearest member of the
    intersection can be another one). Sets of zeros need one round, since zeros that are there stay. Where a later
    projection breaks an earlier set, all are gone through again, ten times at most. Solvers do not need this until the
    end: each part has an auxiliary variable of its own. The order counts: `Connectivity` after `Pattern` finds the
    nearest member of both, since it ranks kernels by what their pattern keeps; before it, the nearest is missed.
    Quantization levels, `Levels`, come last: they are sought for the weights that the other parts leave, so a solver
    sees all parts as one, and weights are stored as codes in the places that the pattern has. Of the parts that share
    numbers between weights (`Circulant`, `Unified`) there can be one.

    >>> from openwork import Filter, Unstructured
    >>> both = And(of=(Filter(sparsity=0.5), Unstructured(sparsity=0.75)))
    >>> both.project(torch.tensor([[1.0, 4.0], [2.0, 3.0]]))
    tensor([[0., 4.],
            [0., 0.]])

    Source: Niu et al. 2020, arXiv:2001.00138 (two auxiliary variables); von Neumann 1950 (alternating projections).
    """

    of: Annotated[tuple[Part, ...], Field(min_length=2)]
    """The constraints, in the order of projection."""

    EXACT: ClassVar[bool] = False
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"of": ({"kind": "filter", "sparsity": 0.25}, {"kind": "unstructured", "sparsity": 0.5})},
        {"of": ({"kind": "block", "shape": (4, 1), "sparsity": 0.25}, {"kind": "column", "sparsity": 0.5})},
        {"of": ({"kind": "pattern"}, {"kind": "connectivity", "sparsity": 0.7})},
        {"of": ({"kind": "unstructured", "sparsity": 0.75}, {"kind": "levels", "bits": 3, "scheme": "nonzero"})},
        {"of": ({"kind": "nm", "n": 2, "m": 4}, {"kind": "levels", "bits": 1, "per": "channel"})},
        {
            "of": (
                {"kind": "block", "shape": (4, 1), "sparsity": 0.5},
                {"kind": "levels", "bits": 4, "scheme": "codebook"},
            )
        },
    )

    @model_validator(mode="after")
    def _levels_leave_zeros(self) -> Self:
        if any(part.zeros == "level" for part in self._levels()):
            raise ValueError("zeros that other parts make cannot move to a level; set zeros of levels to 'stay'")
        return self

    @model_validator(mode="after")
    def _ties_fit_each_other(self) -> Self:
        sharing = [part.kind() for part in self.of if part.shares]
        if len(sharing) > 1:
            # Holding one in turn after the other comes near a weight that both allow, and never there.
            raise ValueError(f"{' and '.join(sharing)} both share numbers between weights, in other groups; choose one")
        return self

    @property
    def tied(self) -> bool:
        return any(part.tied for part in self.of)

    @property
    def keeps_zeros(self) -> bool:
        return all(part.keeps_zeros for part in self.of)

    @property
    def quantized(self) -> bool:
        return any(part.quantized for part in self.of)

    @property
    def shares(self) -> bool:
        return any(part.shares for part in self.of)

    @property
    def networks(self) -> int:
        return max(part.networks for part in self.of)

    @property
    def storage(self) -> str:
        return Levels.FORMAT if self._levels() else self._stored().storage

    def layout(self) -> dict[str, Any]:
        """Settings of all parts with the format, the first part's first; with levels those of their format, and what
        it needs to know of the pattern's."""
        stored = self._stored()
        parts = [part.layout() for part in reversed(self.of) if part.storage == stored.storage]
        merged = {name: value for settings in parts for name, value in settings.items()}
        return self._with_levels(merged)

    def layout_of(self, member: Tensor) -> dict[str, Any]:
        return self._with_levels(self._stored().layout_of(member))

    def levels(self, w: Tensor) -> tuple[Tensor, ...]:
        """Of the part that has most."""
        return max((part.levels(w) for part in self.of), key=len)

    def parts(self) -> tuple[Constraint, ...]:
        # Levels are of what the other parts leave, so they have no auxiliary variable of their own.
        return (self,) if self._levels() else tuple(inner for part in self.of for inner in part.parts())

    def fitted(self, weights: Sequence[Tensor]) -> tuple[Constraint, ...]:
        found = zip(*(part.fitted(weights) for part in self.of), strict=True)
        return tuple(self.model_copy(update={"of": of}) for of in found)

    def fixed(self, member: Tensor | None) -> Self:
        return self.model_copy(update={"of": tuple(part.fixed(member) for part in self.of)})

    def relaxed(self, share: float) -> Constraint | None:
        found = [inner for part in self.of if (inner := part.relaxed(share)) is not None]
        return self.model_copy(update={"of": tuple(found)}) if len(found) > 1 else next(iter(found), None)

    def granule(self) -> tuple[int, int]:
        rows, columns = zip(*(part.granule() for part in self.of), strict=True)
        return math.lcm(*rows), math.lcm(*columns)

    def channels(self) -> int:
        return math.lcm(*(part.channels() for part in self.of))

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        for part in self.of:
            part.check(shape)

    def project(self, w: Tensor) -> Tensor:
        for _ in range(PASSES):
            for part in self.of:
                w = part.project(w)
            if self.violations(w) == 0:
                break
        return w

    def mask(self, w: Tensor) -> Tensor:
        # What lies on level 0 is not pruned.
        return self._pattern().mask(w) if self._levels() else super().mask(w)

    def holder(self, member: Tensor) -> Holder:
        of = [part.holder(member) for part in self.of]
        return Holder(*(partial(_in_turn, maps) for maps in zip(*of, strict=True)))

    def violations(self, w: Tensor) -> int:
        return sum(part.violations(w) for part in self.of)

    def __str__(self) -> str:
        return " and ".join(map(str, self.of))

    def _stored(self) -> Constraint:
        """The first part whose format tells most of its members."""
        pattern = self._pattern()
        parts = pattern.of if isinstance(pattern, And) else (pattern,)
        return max(parts, key=lambda part: GENERAL.index(part.storage) if part.storage in GENERAL else len(GENERAL))

    def _pattern(self) -> Constraint:
        """All that is no levels."""
        parts = tuple(part for part in self.of if not isinstance(part, Levels))
        return self.model_copy(update={"of": parts}) if len(parts) > 1 else (parts or self.of)[0]

    def _levels(self) -> list[Levels]:
        return [part for part in self.of if isinstance(part, Levels)]

    def _with_levels(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings of the pattern's format, or those of codes around it."""
        levels = self._levels()
        return {**levels[-1].layout(), "pattern": self._stored().storage, "settings": settings} if levels else settings


def _in_turn(maps: Sequence[Callable[[Tensor], Tensor]], w: Tensor) -> Tensor:
    for one in maps:
        w = one(w)
    return w
