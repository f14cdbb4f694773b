"""Quantization levels: the weights of a layer take few values, so that each is stored as a code of a few bits."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, model_validator
from torch import Tensor

from ..errors import ShapeError
from . import _intervals
from .base import Constraint, Holder, ascending, by

F64 = NDArray[np.float64]

DIGITS = 16
"""Binary digits of an interval: few enough that its multiples up to 128 are float32 numbers exactly."""


def _bits(value: int) -> int:
    if not 1 <= value <= 8:
        raise ValueError(f"{value} is not in 1..8; choose 1 to 8 bits, or no constraint for weights of 32")
    return value


class Levels(Constraint):
    """All weights of a layer, or of an output channel, are one of at most 2^bits values ('quantization levels'; not
    the levels of `Nested`).

    `uniform`: -(2^(bits-1) - 1) .. 2^(bits-1) - 1 times an interval; 2 bits are ternary, 1 bit is minus and plus the
    interval. `nonzero`: the multiples -2^(bits-1) .. 2^(bits-1) without 0. `power_of_two`: 0 and plus and minus the
    interval divided by 1, 2, 4, ..., 2^bits - 1 values in all, so that a product is a shift. `codebook`: any 2^bits
    values. In `And` after a pattern, levels are those of the weights that the pattern leaves.

    project: argmin_Z ||W - Z||_F  s.t.  Z is on such levels. Exact with 1 bit (the mean magnitude) and with 2 bits of
    `uniform` or `power_of_two` (ternary), up to the 16 binary digits that intervals have so that levels are float32
    numbers. Else a heuristic: the best of 31 intervals, coarse ones first, fitted to its levels and these to it in
    turn; codebooks by k-means from two starts. Rows of more than 260 thousand weights are searched in a sample. Members
    stay as they are; float16 and bfloat16 have fewer digits for intervals.

    >>> Levels(bits=2).project(torch.tensor([[1.0, -3.0, 0.5, 2.0]]))
    tensor([[ 0.0000, -2.5000,  0.0000,  2.5000]])
    >>> Levels(bits=1).project(torch.tensor([[1.0, -3.0, 0.0, 2.0]]))
    tensor([[ 2., -2.,  0.,  2.]])

    Source: ADMM-NN, arXiv:1812.11677 (nonzero); progressive ADMM, arXiv:1905.00789 (uniform); Zhou et al. 2017,
    arXiv:1702.03044 (powers of two); Han et al. 2015, arXiv:1510.00149 (codebooks).
    """

    bits: Annotated[int, AfterValidator(_bits)]
    """Bits of a code, 1..8."""
    scheme: Literal["uniform", "nonzero", "power_of_two", "codebook"] = "uniform"
    """Which values levels may be."""
    per: Literal["layer", "channel"] = "layer"
    """What has an interval or codebook of its own: the layer, or each output channel."""
    zeros: Literal["stay", "level"] = "stay"
    """What becomes of weights that are exactly zero: `stay`, pruned, beside the levels, or move to a `level` like all
    others. It makes a difference where 0 is no level."""
    settled: tuple[float, ...] | None = None
    """Intervals that no longer follow the weights, of the layer or of each channel, 0 where all weights are zero. The
    steps of a recipe that freeze settle them; then what `project` finds is exact."""

    EXACT: ClassVar[bool] = False
    TIED: ClassVar[bool] = True
    FORMAT: ClassVar[str] = "codes"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"bits": 1},
        {"bits": 1, "per": "channel", "zeros": "level"},
        {"bits": 2},
        {"bits": 4, "per": "channel"},
        {"bits": 3, "scheme": "nonzero"},
        {"bits": 4, "scheme": "power_of_two"},
        {"bits": 3, "scheme": "codebook"},
        {"bits": 1, "scheme": "codebook", "per": "channel", "zeros": "level"},
    )

    @model_validator(mode="after")
    def _there_are_levels(self) -> Self:
        if self.scheme == "power_of_two" and self.bits == 1:
            raise ValueError("bits = 1 leaves power_of_two only the zero; choose 2 bits or more, or scheme uniform")
        if self.settled is not None and self.scheme == "codebook":
            raise ValueError("codebooks have no intervals to settle; choose another scheme, or leave settled out")
        return self

    @property
    def keeps_zeros(self) -> bool:
        return self.zeros == "stay"

    @property
    def quantized(self) -> bool:
        return True

    def layout(self) -> dict[str, Any]:
        return {"bits": self.bits, "scheme": self.scheme, "per": self.per}

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        groups = 1 if self.per == "layer" else shape[0]
        if self.settled is not None and len(self.settled) != groups:
            raise ShapeError(f"levels: {len(self.settled)} intervals are settled and weight {by(shape)} has {groups}")

    def fixed(self, member: Tensor | None) -> Self:
        if member is None or self.scheme == "codebook":
            return self.model_copy(update={"settled": None})
        return self.model_copy(update={"settled": tuple(self._of_member(self._rows(member)).flatten().tolist())})

    def __str__(self) -> str:
        return f"Levels({', '.join(f'{name}={value!r}' for name, value in self if name != 'settled')})"

    def project(self, w: Tensor) -> Tensor:
        self.check(w.shape)
        self.require_finite(w)
        rows = self._rows(w)
        found = self._to_centres(rows, w.dtype) if self.scheme == "codebook" else self._to_levels(rows, w.dtype)
        return found.reshape(w.shape).to(w.dtype)

    def mask(self, w: Tensor) -> Tensor:
        """Weights that are not pruned. Level 0 prunes nothing: with other levels, a weight on it may move again."""
        self.check(w.shape)
        self.require_finite(w)
        return w.detach() != 0 if self.zeros == "stay" else torch.ones_like(w, dtype=torch.bool)

    def holder(self, member: Tensor) -> Holder:
        """The codes of `member`; the interval is the least-squares one for `w` along them, and at least a thousandth of
        what it was, the values of a codebook are the means of the weights that have them."""
        if self.settled is not None:
            return Holder(lambda w: member.detach().clone(), torch.zeros_like)
        own = self._rows(member)
        if self.scheme == "codebook":
            means = partial(self._on_means, _Clusters.of(own))
            return Holder(means, means)
        interval = self._of_member(own)
        codes = own / interval.where(interval > 0, 1.0).to(own.dtype)
        square = (codes.double() * codes).sum(1, keepdim=True).clamp(min=1e-300)
        along = partial(self._along, codes, square)
        return Holder(partial(along, least=interval / 1000), along)

    def intervals(self, w: Tensor) -> Tensor:
        """The interval of the nearest levels, of each output channel or of the layer: float64 [channels or 1, 1], 0
        where all weights are zero. Not of codebooks."""
        self.check(w.shape)
        self.require_finite(w)
        return self._interval(self._rows(w), w.dtype)

    def _along(self, codes: Tensor, square: Tensor, w: Tensor, *, least: Tensor | None = None) -> Tensor:
        """The multiple of `codes` nearest to `w`. With `least` it is an interval of levels, and at least so large."""
        fit = (self._rows(w).double() * codes).sum(1, keepdim=True) / square
        if least is not None:
            fit = self.representable(fit.maximum(least), w.dtype)
        return (codes * fit.to(codes.dtype)).reshape(w.shape).to(w.dtype)

    def _on_means(self, clusters: "_Clusters", w: Tensor) -> Tensor:
        return clusters.means(self._rows(w)).reshape(w.shape).to(w.dtype)

    def violations(self, w: Tensor) -> int:
        """Different magnitudes of a layer or channel (of a codebook: values) beyond those that levels can have, however
        the interval is chosen; and zeros that should be on a level."""
        self.check(w.shape)
        rows, grid = self._rows(w).cpu().numpy(), self._grid().numpy()
        if self.settled is None:
            return sum(self._off(row, grid) for row in rows)
        return sum(self._off_settled(*pair, grid) for pair in zip(rows.astype(np.float64), self.settled, strict=True))

    def _off_settled(self, row: F64, interval: float, grid: F64) -> int:
        """Weights of a layer or channel that are on none of the settled levels."""
        levels = np.append(grid, 0.0) if self.zeros == "stay" else grid
        return int((~np.isin(np.abs(row), levels * interval)).sum())

    def _off(self, row: NDArray[np.floating[Any]], grid: F64) -> int:
        """Violations of a layer or channel."""
        if self.scheme == "codebook":
            values = np.unique(row)
            count = int((values != 0).sum()) if self.zeros == "stay" else len(values)
            return max(0, count - (1 << self.bits))
        sizes, most = np.unique(np.abs(row)).astype(np.float64), int((grid > 0).sum())
        zeros = int((row == 0).sum()) if grid[0] > 0 and self.zeros == "level" and sizes[-1] > 0 else 0
        sizes = sizes[sizes > 0]
        if len(sizes) > most:
            return zeros + len(sizes) - most
        if len(sizes) < 2:
            return zeros
        if self.scheme == "power_of_two":
            # The span is one less than there are levels, whichever of them the largest weight has.
            halvings = np.log2(sizes[-1] / sizes)
            return zeros + int(((halvings != np.round(halvings)) | (halvings > most - 1)).sum())
        # The least magnitude is some multiple k of the interval; for the right k all others are multiples, too.
        multiples = sizes * np.arange(1, int(grid[-1]) + 1)[:, None]
        fits = (np.fmod(multiples, sizes[0]) == 0) & (multiples <= grid[-1] * sizes[0])
        return zeros + len(sizes) - int(fits.sum(axis=1).max())

    def _grid(self) -> Tensor:
        """Magnitudes of the levels in units of the interval, rising, float64."""
        top = 2 ** (self.bits - 1)
        if self.scheme == "nonzero" or self.bits == 1:
            return torch.arange(1, top + 1, dtype=torch.float64)
        if self.scheme == "uniform":
            return torch.arange(top, dtype=torch.float64)
        return torch.cat([torch.zeros(1), 2.0 ** torch.arange(2 - top, 1, dtype=torch.float64)])

    def _rows(self, w: Tensor) -> Tensor:
        """What has an interval of its own, each as a row, in single precision or double."""
        groups = 1 if self.per == "layer" else len(w)
        return w.detach().to(torch.promote_types(w.dtype, torch.float32)).reshape(groups, -1)

    def _to_levels(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        interval, found = self._interval(rows, dtype).to(rows.dtype), torch.empty_like(rows)
        for at in _intervals.strips(rows):
            found[at] = self._on_grid(rows[at], interval[at[0]], dtype)
        return found

    def _on_grid(self, rows: Tensor, interval: Tensor, dtype: torch.dtype) -> Tensor:
        """The nearest levels with the interval of each row, [rows, 1]."""
        grid = self._grid().to(rows)
        size = rows.abs().div_(interval.where(interval > 0, 1.0))
        if self.scheme == "power_of_two":
            size = grid[_intervals.below(size, ((grid[1:] + grid[:-1]) / 2).expand(len(rows), -1))].mul_(interval)
            size.masked_fill_(size < torch.finfo(dtype).smallest_normal, 0.0)  # which halving would not keep exact
        else:
            size.round_().clamp_(float(grid[0]), float(grid[-1])).mul_(interval)
        # Adding 0 makes every zero the plain one, which has the sign of positive numbers.
        found = size.copysign_(rows + 0.0).add_(0.0)
        return found.masked_fill_(rows == 0, 0.0) if self.zeros == "stay" else found

    def _interval(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """The interval of each row, [rows, 1] in float64."""
        if self.settled is not None:
            return torch.tensor(self.settled, dtype=torch.float64, device=rows.device)[:, None]
        grid, stay = self._grid().to(rows.device), self.zeros == "stay"
        size, exact = rows.abs(), grid.tolist() in ([1], [0, 1])
        if len(grid) == 1:
            count = size.count_nonzero(1)[:, None].clamp(min=1) if stay else rows.shape[1]
            found = size.double().sum(1, keepdim=True) / count
            few = _intervals.few(_intervals.sampled(size, _intervals.PROBE), 1, zeros_stay=True)
            if few.any():
                few = size.where(size > 0, torch.inf).amin(1) == size.amax(1)
        elif exact:
            ordered = ascending(size)
            found = _intervals.ternary(ordered)
            few = _intervals.few(ordered, len(grid) - 1, zeros_stay=True)
        else:
            magnitudes = _intervals.Magnitudes(rows, stay)
            found = _intervals.search(magnitudes, grid)
            few = _intervals.few(magnitudes.size, int((grid > 0).sum()), zeros_stay=True)
        found = self.representable(found, dtype)
        if grid[0] > 0 and not stay:
            few &= (rows != 0).all(1)
        if few.any():  # of members, perhaps, whose interval is what it is
            own = self._common(rows[few])
            found[few] = own.where(own > 0, found[few])
        return found

    def _common(self, rows: Tensor) -> Tensor:
        """The interval of each row that is a member, 0 of others, [rows, 1] in float64."""
        grid = self._grid()
        if self.scheme == "power_of_two":
            return _intervals.powers(rows, len(grid) - 2)
        return _intervals.common(rows, float(grid[-1]))

    def _of_member(self, rows: Tensor) -> Tensor:
        """The interval of each row of a member; mostly it is the least magnitude, which is seen at once."""
        if self.scheme == "power_of_two":
            return rows.abs().amax(1, keepdim=True).double()
        size = rows.abs()
        least = size.masked_fill(size == 0, math.inf).amin(1, keepdim=True).nan_to_num(posinf=0.0)
        multiple = size.div_(least.where(least > 0, 1.0))
        if bool((multiple == multiple.round()).all()):
            return least.double()
        return self._common(rows)

    def representable(self, interval: Tensor, dtype: torch.dtype) -> Tensor:
        """Rounded so that all levels are numbers of `dtype`, and positive intervals stay so."""
        info, span = torch.finfo(dtype), math.ceil(math.log2(self._grid()[-1]))
        digits = min(DIGITS, 1 - round(math.log2(info.eps)) - span)
        largest = 2.0 ** (math.frexp(info.max)[1] - 1 - span)
        # Below the normal numbers only those of `dtype` itself will do; so the way leads through it.
        fits = _intervals.rounded(interval, digits).clamp(max=largest).to(dtype).double()
        return fits.clamp(min=info.smallest_normal * info.eps).where(interval > 0, 0.0)

    def _to_centres(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        stay, count = self.zeros == "stay", 2**self.bits
        centres = _intervals.centres(rows, count, stay).to(dtype).to(rows.dtype)
        edges, found = (centres[:, 1:] + centres[:, :-1]) / 2, torch.empty_like(rows)
        for at in _intervals.strips(rows):
            found[at] = centres[at[0]].gather(1, _intervals.below(rows[at], edges[at[0]]))
        if stay:
            found.masked_fill_(rows == 0, 0.0)
        few = _intervals.few(_intervals.sampled(rows, _intervals.PROBE), count, stay)
        if few.any():
            few = _intervals.few(ascending(rows), count, stay)
            found = torch.where(few[:, None], rows, found)
        return found.add_(0.0)


@dataclass(frozen=True)
class _Clusters:
    """Weights that have one value in their row of a member."""

    cluster: Tensor
    """Of each weight, rows one after the other."""
    count: Tensor
    """Weights of each cluster, float64."""
    zero: Tensor
    """Where the value is 0, [rows, columns]."""

    @classmethod
    def of(cls, own: Tensor) -> Self:
        """Those of the rows of a member."""
        values, order = own.sort(dim=1)
        new = torch.ones_like(values, dtype=torch.bool)
        new[:, 1:] = values[:, 1:] != values[:, :-1]
        cluster = torch.empty_like(order).scatter_(1, order, new.flatten().cumsum(0).view_as(order) - 1).flatten()
        return cls(cluster, torch.bincount(cluster).double(), own == 0)

    def means(self, rows: Tensor) -> Tensor:
        """Rows in which weights of a cluster share their mean; where their value is 0 they are 0."""
        total = torch.bincount(self.cluster, weights=rows.flatten().double())
        return (total / self.count)[self.cluster].view_as(rows).masked_fill_(self.zero, 0.0)
