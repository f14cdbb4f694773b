"""What a constraint is: a set of allowed weights, given by its projection, its definition and, for sparsity, its mask.

Convolution weights are `[out, in, kh, kw]`, linear weights `[out, in]`. A `Constraint` is any set; a `Sparsity` is a
set of the kind 'cut the weight into groups, keep at most so many groups', for which projection is exact and needs no
search.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from pydantic import AfterValidator
from torch import Tensor

from ..config import Plugin
from ..errors import ModelError, ShapeError


class Holder(NamedTuple):
    """What keeps a weight in the structure of one member of a set while it is trained."""

    weight: Callable[[Tensor], Tensor]
    """After each step of the optimizer: `Constraint.hold`."""
    gradient: Callable[[Tensor], Tensor]
    """Before it: of a gradient, the part along the moves that keep the structure (their orthogonal projection).

    Optimizers that scale each weight's step by its own history (Adam) must see ties in the gradient. From steps that
    are tied only afterwards the mean of all normalized ones remains, which need not go downhill."""


class Constraint(Plugin):
    """A set S of weights. Pure: no method changes its argument, no result shares memory with it."""

    ROOM: ClassVar[str] = "constraints"
    EXACT: ClassVar[bool] = True
    """Whether `project` returns the nearest member of the set, proved against brute force, or a good one
    (heuristic)."""
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Arguments that contract tests, documentation and benchmarks build instances from."""
    TIED: ClassVar[bool] = False
    """Whether members are more than zeros in their places (weights that share a value, a sign, ...), so that `hold` is
    needed to keep a weight in the set while it is trained; where False, a mask does."""
    FORMAT: ClassVar[str] = "csr"
    """The storage format (a name in `openwork.formats.packed`) that suits members best."""

    @property
    def tied(self) -> bool:
        """`TIED`, or whether a part is."""
        return self.TIED

    @property
    def keeps_zeros(self) -> bool:
        """Whether projection leaves zeros where they are, so that weights may come under this set after a sparser one
        that is not tied."""
        return not self.tied

    @property
    def quantized(self) -> bool:
        """Whether members are on quantization levels; later ones then take the place of earlier ones."""
        return False

    @property
    def shares(self) -> bool:
        """Whether weights of a member share numbers, by groups of their places; levels share theirs by codes."""
        return False

    @property
    def networks(self) -> int:
        """How many networks members hold inside each other: 1, but for nested sparsity."""
        return 1

    @property
    def storage(self) -> str:
        """`FORMAT`, or that of a part."""
        return self.FORMAT

    def layout(self) -> dict[str, Any]:
        """Settings that the storage format needs to pack a member."""
        return {}

    def layout_of(self, member: Tensor) -> dict[str, Any]:
        """`layout()`, and what the format needs to know of this member beyond its values."""
        return self.layout()

    def levels(self, w: Tensor) -> tuple[Tensor, ...]:
        """Masks of the networks that a member holds, each within the one before: one, but for nested sparsity."""
        return (self.mask(w),)

    def fitted(self, weights: Sequence[Tensor]) -> "tuple[Constraint, ...]":
        """For each of `weights`, all that one rule of a recipe hits, this set with everything settled that depends on
        them: a library of patterns counted over the whole network, an order of channels searched for.

        What needs no such thing returns itself.
        """
        return (self,) * len(weights)

    def fixed(self, member: Tensor | None) -> "Constraint":
        """This set with everything settled that goes on to follow the weights, as it is at `member`, so that a part of
        the weights can freeze there and stays in the set; None undoes it."""
        return self

    def parts(self) -> "tuple[Constraint, ...]":
        """The sets whose intersection this is; a solver gives each an auxiliary variable of its own."""
        return (self,)

    def hold(self, w: Tensor, member: Tensor) -> Tensor:
        """`w`, moved as little as possible to a weight with the structure of `member`: the same zeros, and of sets
        that are `TIED` the same groups, signs and ties. What retraining applies after every step of the optimizer."""
        return self.holder(member).weight(w)

    def holder(self, member: Tensor) -> Holder:
        """`hold` for one member again and again, and what fits it for gradients: what depends on the member alone is
        found once. Where `hold` is linear, both are the same."""
        zeros = member == 0

        def masked(w: Tensor) -> Tensor:
            return w.detach().masked_fill(zeros, 0.0)

        return Holder(masked, masked)

    @abstractmethod
    def project(self, w: Tensor) -> Tensor:
        """argmin_Z ||W - Z||_F  subject to Z in S. `w` is `[out, in, kh, kw]` or `[out, in]`, the result has its shape.

        Raises ShapeError if the set does not exist for this shape, ModelError if a weight is NaN or infinite.
        """

    @abstractmethod
    def violations(self, w: Tensor) -> int:
        """How far `w` is from the definition of the set, as a count (0: member); found without `project`."""

    def mask(self, w: Tensor) -> Tensor:
        """Which entries of `w` may differ from zero after projection: bool, the shape of `w`."""
        return self.project(w) != 0

    def group_norms(self, w: Tensor) -> Tensor:
        """For each weight the L2 norm of those that can only go or stay with it, of the shape of `w` (a view maybe):
        its own magnitude, where any weight may be zero by itself."""
        return w.detach().abs()

    def relaxed(self, share: float) -> "Constraint | None":
        """The same kind of set made wider, for gradual solvers: share 1 is this set, share 0 is everything (None)."""
        return self if share > 0 else None

    def granule(self) -> tuple[int, int]:
        """Rows and columns of which the matrix `[out, in*kh*kw]` must have a multiple."""
        return (1, 1)

    def channels(self) -> int:
        """Input channels of which the weight must have a multiple."""
        return 1

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        """Raise ShapeError if no weight of `shape` can be held against this constraint."""
        if len(shape) < 2:
            raise ShapeError(f"{self.kind()}: weight {by(shape)} has {len(shape)} dimensions, needs at least 2")
        if 0 in shape:
            raise ShapeError(f"{self.kind()}: weight {by(shape)} has no elements; leave this layer out of the rules")
        size = (shape[0], torch.Size(shape[1:]).numel(), shape[1])
        for name, have, step in zip(("out", "in*kh*kw", "in"), size, (*self.granule(), self.channels()), strict=True):
            if have % step:
                raise ShapeError(
                    f"{self.kind()}: {name} = {have} of weight {by(shape)} is not a multiple of {step}; choose "
                    f"another size of blocks or groups, or set on_misfit to pad or skip"
                )

    def require_finite(self, w: Tensor) -> None:
        """Raise ModelError if a weight is NaN or infinite."""
        # A sum is NaN or infinite if a summand is; only then is the slow exact test worth its time.
        if not bool(torch.isfinite(w.sum())) and not bool(torch.isfinite(w).all()):
            raise ModelError(
                f"{self.kind()}: weight {by(w.shape)} holds NaN or infinite values; start from finite ones"
            )


def _share(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{value:g} is not in (0, 1)")
    return value


Share = Annotated[float, AfterValidator(_share)]


class Masked(Constraint):
    """A set that says where zeros must be and nothing else: the nearest member keeps what `mask` lets it keep."""

    @abstractmethod
    def mask(self, w: Tensor) -> Tensor:
        """Which entries of `w` stay: bool, the shape of `w`."""

    def project(self, w: Tensor) -> Tensor:
        w = w.detach()
        # masked_fill rather than a product: dropped weights become +0.0 exactly, kept ones stay bit for bit.
        return w.masked_fill(~self.mask(w), 0.0)


class Rated(Masked):
    """A set in which a share of the weight is zero; in what units, subclasses say."""

    sparsity: Share
    """Share of the weight that is zero, in (0, 1)."""

    def budget(self, units: int) -> int:
        """How many of `units` may differ from zero: at least one, since a layer of zeros cuts the network."""
        return max(1, round((1 - self.sparsity) * units))

    def at(self, sparsity: float) -> Self:
        """The same with another sparsity, in (0, 1); UsageError beyond that."""
        return type(self)(**{**dict(self), "sparsity": sparsity})

    def relaxed(self, share: float) -> Self | None:
        sparsity = self.sparsity * min(share, 1.0)
        return self.at(sparsity) if sparsity > 0 else None


class Sparsity(Rated):
    """At most `round((1 - sparsity) * groups)` groups of weights differ from zero, and at least one is allowed to.

    project: keeps the groups of largest L2 norm, which is exact because groups do not overlap: the squared distance is
    the sum of the squared norms of the dropped groups. Exactly that many groups are kept, also under ties (lowest
    index first).
    """

    sparsity: Share
    """Share of groups that are zero, in (0, 1)."""

    @abstractmethod
    def scores(self, w: Tensor) -> Tensor:
        """A number >= 0 per group, ordered as the L2 norms of the groups are: float32 or float64, one dimension."""

    @abstractmethod
    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """A flag (or number) per group -> one per weight, of `shape` or broadcastable to it."""

    def norms(self, w: Tensor) -> Tensor:
        """The L2 norm of each group: float32 or float64, one dimension."""
        return self.scores(w).sqrt()

    def group_norms(self, w: Tensor) -> Tensor:
        w = w.detach()
        return self.spread(self.norms(w).to(w.dtype), w.shape).expand(w.shape)

    def pieces(self, shape: torch.Size) -> int:
        """Into how many equally long runs the groups are divided, each with a budget of its own."""
        return 1

    def mask(self, w: Tensor) -> Tensor:
        w = w.detach()
        self.check(w.shape)
        self.require_finite(w)
        scores = self.scores(w).view(self.pieces(w.shape), -1)
        return self.spread(largest(scores, self.budget(scores.shape[1])).flatten(), w.shape).expand(w.shape)

    def violations(self, w: Tensor) -> int:
        """Groups that differ from zero beyond the allowed count."""
        self.check(w.shape)
        occupied = self.scores((w.detach() != 0).float()).view(self.pieces(w.shape), -1)
        return int((occupied.count_nonzero(dim=1) - self.budget(occupied.shape[1])).clamp(min=0).sum())


SHORT = 8
"""Up to how many scores it is quickest to compare each with each."""


def largest(scores: Tensor, count: int) -> Tensor:
    """Flags of the `count` largest in each row of `scores` [pieces, groups]; of equal scores the lowest indices win."""
    if count >= scores.shape[1]:
        return torch.ones_like(scores, dtype=torch.bool)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # NumPy has no bfloat16
    if scores.shape[1] <= SHORT < len(scores):
        return _ranks(scores) < count
    # The threshold alone costs one selection instead of a sort; ties at the threshold are then resolved by index.
    threshold = _ranked(scores, scores.shape[1] - count)
    keep = scores > threshold
    piece, tied = (scores == threshold).nonzero(as_tuple=True)
    # How many ties of the same piece come before each, and how many of them still fit.
    before = torch.arange(len(piece), device=scores.device) - torch.searchsorted(piece, piece)
    fits = before < (count - keep.count_nonzero(dim=1))[piece]
    keep[piece[fits], tied[fits]] = True
    return keep


def _ranked(scores: Tensor, place: int) -> Tensor:
    """The number at `place` from the smallest on in each row, [pieces, 1]."""
    if scores.device.type != "cpu":
        return scores.kthvalue(place + 1, dim=1, keepdim=True).values
    # NumPy's selection is vectorised, torch's is not on CPUs (three times slower on 25 million scores).
    return torch.from_numpy(np.partition(scores.numpy(), place)[:, place : place + 1].copy())


def _ranks(scores: Tensor) -> Tensor:
    """How many of a row [pieces, groups] come before each: the larger ones, and of equal ones those of lower index.

    Counted pair by pair, in whole columns: of rows of four, a third of the time that a sort takes.
    """
    columns = scores.T.contiguous()
    # As if the later one of each pair had won.
    ranks = torch.arange(len(columns) - 1, -1, -1, dtype=torch.uint8, device=scores.device)
    ranks = ranks[:, None].repeat(1, columns.shape[1])
    for first in range(len(columns)):
        for second in range(first + 1, len(columns)):
            wins = (columns[first] >= columns[second]).view(torch.uint8)
            ranks[second] += wins
            ranks[first] -= wins
    return ranks.T.contiguous()


def ascending(numbers: Tensor) -> Tensor:
    """Sorted along the last axis."""
    # NumPy's sort is vectorised, torch's is not on CPUs.
    return torch.from_numpy(np.sort(numbers.numpy())) if numbers.device.type == "cpu" else numbers.sort(dim=-1).values


def energies(w: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sums of squares over `dims`, flattened; in double precision, so that squares of tiny weights do not vanish."""
    # Five times faster on 25 million weights than vector_norm(dtype=float64), which converts inside its reduction.
    return w.to(torch.float64, copy=True).square_().sum(dims).flatten()


def by(shape: torch.Size | tuple[int, ...]) -> str:
    """A shape as messages write it: 8x16x3x3."""
    return "x".join(map(str, shape)) or "()"
