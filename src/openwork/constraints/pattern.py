"""Kernel patterns: every k x k kernel keeps the entries of one pattern of a small library."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..errors import ShapeError
from .base import Masked, by, energies

DESIGNED = (0o033, 0o066, 0o330, 0o660, 0o270, 0o262, 0o232, 0o072)
"""3x3 patterns that add up to filters which enhance images: the four corners to a Gaussian, the four T-shapes to an
enhanced Laplacian of one. Octal digits are the rows of a kernel, the last row first; a row's lowest bit is on the left.
"""

WIDEST = 62
"""Positions of the largest kernel whose patterns are numbers of 64 bits."""


class Pattern(Masked):
    """Every kernel W[o, i] keeps only the entries of one of the patterns of a library.

    project: argmin_Z ||W - Z||_F  s.t.  the non-zeros of every kernel lie in one pattern of the library (exact: each
    kernel takes the pattern that keeps most energy; of equal ones the first). With `group` g, so many consecutive
    filters have one pattern for each input channel, which a register block of g rows then loads once.

    `fitted` settles a mined library: the natural pattern of a kernel is its centre and its strongest other entries, and
    the most frequent ones over all layers of a rule stay. Until then every pattern with the centre is allowed. Raises
    ShapeError for linear layers, kernels of no more than `entries` positions, and depthwise layers, which have one
    kernel a filter.

    >>> kernel = torch.tensor([[[[1.0, -2.0, 0.0], [3.0, 4.0, -1.0], [0.0, 1.0, 2.0]]]])
    >>> Pattern(library="designed").project(kernel.expand(1, 2, 3, 3))[0, 0]
    tensor([[ 1., -2.,  0.],
            [ 3.,  4.,  0.],
            [ 0.,  0.,  0.]])

    Source: Niu et al. 2020, arXiv:2001.00138 (mined); Ma et al. 2020, arXiv:2001.07710 (designed).
    """

    library: Literal["mined", "designed"] | tuple[int, ...] = "mined"
    """Patterns: counted in the weights, those of image filters (3x3, 4 entries), or bit masks; bit y * width + x stands
    for the entry in row y and column x."""
    entries: Annotated[int, Field(ge=1)] = 4
    """Entries that a kernel keeps."""
    count: Annotated[int, Field(ge=1)] = 8
    """Patterns that are mined, at most."""
    group: Annotated[int, Field(ge=1)] = 1
    """Consecutive filters that share the pattern of each input channel; 4 and 8 suit the engine."""

    FORMAT: ClassVar[str] = "fkw"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"library": "designed"},
        {"library": (0o033, 0o072, 0o660), "group": 4},
        {"entries": 5, "count": 6, "group": 2},
    )

    @model_validator(mode="after")
    def _library_is_usable(self) -> "Pattern":
        masks = self._masks
        if masks is not None and len(set(masks)) != max(1, len(masks)):
            raise ValueError(f"library {list(masks)} is empty or holds a pattern twice")
        for mask in masks or ():
            if mask <= 0 or mask.bit_count() != self.entries:
                raise ValueError(f"pattern {mask} of the library has {mask.bit_count()} entries, not {self.entries}")
        return self

    @property
    def _masks(self) -> tuple[int, ...] | None:
        """The patterns; None: every one with the centre."""
        if isinstance(self.library, tuple):
            return self.library
        return DESIGNED if self.library == "designed" else None

    def granule(self) -> tuple[int, int]:
        return (self.group, 1)

    def layout(self) -> dict[str, Any]:
        return {"entries": self.entries, "group": self.group, "patterns": self._masks}

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        positions, size = torch.Size(shape[2:]).numel(), "x".join(map(str, shape[2:]))
        if len(shape) < 4:
            problem, instead = "a linear layer has no kernels", "block or unstructured"
        elif positions <= self.entries:
            problem, instead = f"a kernel of {size} has no more than entries={self.entries}", "connectivity"
        elif shape[1] == 1:
            problem, instead = "a depthwise layer has one kernel a filter, too few to choose from", "unstructured"
        elif self.library == "designed" and tuple(shape[2:]) != (3, 3):
            problem, instead = f"designed patterns are of 3x3, not {size}", "library mined"
        elif positions > WIDEST or max(self._masks or (0,)) >> positions:
            problem, instead = f"the library does not fit a kernel of {size}", "another library"
        else:
            return
        raise ShapeError(f"pattern: {problem} (weight {by(shape)}); choose {instead}, or set on_misfit to skip")

    def mask(self, w: Tensor) -> Tensor:
        w = w.detach()
        self.check(w.shape)
        self.require_finite(w)
        energy = self._energies(w)
        keep = self._natural(energy, w.shape) if self._masks is None else self._best(energy, self._masks)
        return keep.repeat_interleave(self.group, 0).view(w.shape)

    def violations(self, w: Tensor) -> int:
        """Kernels, or groups of kernels, whose non-zeros do not lie in one pattern."""
        self.check(w.shape)
        used = self._energies((w.detach() != 0).float()) > 0
        if self._masks is None:
            others = used.sum(-1) - used[..., _centre(w.shape)].long()
            return int((others >= self.entries).sum())
        beyond = [(used & ~pattern).any(-1) for pattern in _flags(self._masks, used)]
        return int(torch.stack(beyond).all(0).sum())

    def fitted(self, weights: Sequence[Tensor]) -> "tuple[Pattern, ...]":
        if self._masks is not None:
            return (self,) * len(weights)
        counts: dict[torch.Size, Counter[int]] = defaultdict(Counter)
        for w in weights:
            self.check(w.shape)
            self.require_finite(w)
            energy = self._energies(w.detach()).flatten(0, 1)
            natural = self._natural(energy[energy.any(-1)], w.shape)
            counts[w.shape[2:]].update((natural * _bits(natural)).sum(-1).tolist())
        # Weights without any kernel say nothing: every pattern stays allowed.
        libraries = {size: _most_frequent(found, self.count) or "mined" for size, found in counts.items()}
        return tuple(self.model_copy(update={"library": libraries[w.shape[2:]]}) for w in weights)

    def _energies(self, w: Tensor) -> Tensor:
        """Squares of the entries of each kernel, summed over the filters of a group: [out/group, in, positions]."""
        groups = w.reshape(w.shape[0] // self.group, self.group, w.shape[1], -1)
        return energies(groups, (1,)).view(len(groups), w.shape[1], -1)

    def _natural(self, energy: Tensor, shape: torch.Size) -> Tensor:
        """The centre of each kernel and its strongest other entries, as flags."""
        ranks = energy.clone()
        ranks[..., _centre(shape)] = torch.inf
        strongest = ranks.argsort(dim=-1, descending=True, stable=True)[..., : self.entries]
        return torch.zeros_like(energy, dtype=torch.bool).scatter(-1, strongest, True)

    @staticmethod
    def _best(energy: Tensor, masks: tuple[int, ...]) -> Tensor:
        """The pattern that keeps most of each kernel, as flags."""
        patterns = _flags(masks, energy)
        return patterns[(energy @ patterns.to(energy.dtype).T).argmax(-1)]


def _most_frequent(counts: Counter[int], most: int) -> tuple[int, ...]:
    """Of equally frequent patterns the lowest number first."""
    return tuple(sorted(counts, key=lambda mask: (-counts[mask], mask))[:most])


def _centre(shape: torch.Size) -> int:
    return shape[2] // 2 * shape[3] + shape[3] // 2


def _bits(like: Tensor) -> Tensor:
    """The number of each position, [positions]."""
    return 1 << torch.arange(like.shape[-1], device=like.device)


def _flags(masks: tuple[int, ...], like: Tensor) -> Tensor:
    """Patterns as flags, [patterns, positions]."""
    return torch.tensor(masks, device=like.device)[:, None] & _bits(like) != 0
