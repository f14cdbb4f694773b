"""Nested levels: sparse weights that hold still sparser ones, so that one network can run at several costs."""

import itertools
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import Tensor

from ._around import Around
from .base import Constraint, Share, Sparsity

Inner = Annotated[SerializeAsAny[Sparsity], BeforeValidator(Sparsity.parse)]


class Nested(Around):
    """A sparsity `of` whose members hold one network for each of `sparser` besides their own: level 1 is `of`, level
    s + 1 keeps the strongest groups of level s.

    project: that of level 1 (exact), which says where all levels' weights lie. `levels` then ranks the groups that are
    left: groups of one score are nested by themselves. Retraining goes through all levels in every step, so that the
    weights learn to serve each of them, and batch norm takes averages of its own at each.

    >>> import torch
    >>> from openwork import Unstructured
    >>> nested = Nested(of=Unstructured(sparsity=0.5), sparser=(0.75,))
    >>> w = nested.project(torch.tensor([[0.9, -0.1], [0.2, 0.5]]))
    >>> [int(mask.sum()) for mask in nested.levels(w)]
    [2, 1]

    Source: compact multi-level networks, arXiv:2112.10930; batch norm of each level: Yu et al. 2018, arXiv:1812.08928.
    """

    of: Inner
    """The pattern and its sparsity at level 1."""
    sparser: Annotated[tuple[Share, ...], Field(min_length=1, max_length=15)]
    """Sparsities of levels 2, 3, ..., each larger than the one before."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"of": {"kind": "unstructured", "sparsity": 0.5}, "sparser": (0.75,)},
        {"of": {"kind": "block", "shape": (4, 1), "sparsity": 0.25}, "sparser": (0.5, 0.75)},
    )
    FORMAT: ClassVar[str] = "levels"

    @model_validator(mode="after")
    def _sparsities_rise(self) -> "Nested":
        found = (self.of.sparsity, *self.sparser)
        if any(a >= b for a, b in itertools.pairwise(found)):
            raise ValueError(f"sparsities {', '.join(f'{s:g}' for s in found)} must rise from level to level")
        return self

    @property
    def networks(self) -> int:
        return 1 + len(self.sparser)

    def project(self, w: Tensor) -> Tensor:
        return self.of.project(w)

    def mask(self, w: Tensor) -> Tensor:
        return self.of.mask(w)

    def group_norms(self, w: Tensor) -> Tensor:
        return self.of.group_norms(w)

    def violations(self, w: Tensor) -> int:
        return self.of.violations(w)

    def levels(self, w: Tensor) -> tuple[Tensor, ...]:
        """The mask of each level, from level 1 on; each lies in the one before. `w` is a weight, projected or not."""
        masks = [self.of.mask(w)]
        for sparsity in self.sparser:
            left = w.detach().masked_fill(~masks[-1], 0.0)
            masks.append(masks[-1] & self.of.at(sparsity).mask(left))
        return tuple(masks)

    def relaxed(self, share: float) -> Constraint | None:
        return self if share >= 1 else self.of.relaxed(share)

    def layout_of(self, member: Tensor) -> dict[str, Any]:
        return {"keeps": [mask.numpy() for mask in self.levels(member)[1:]]}

    def __str__(self) -> str:
        return f"{self.of}, then {', '.join(f'{s:g}' for s in self.sparser)}"
