"""A pattern of neighbouring channels, taken in an order of channels that suits the weight."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, SerializeAsAny, model_validator
from pydantic.functional_validators import BeforeValidator
from torch import Tensor

from ..errors import ShapeError
from . import _channel_order
from ._around import Around
from ._rows import rows
from .base import Constraint, Holder
from .nm import NM

Inner = Annotated[SerializeAsAny[Constraint], BeforeValidator(Constraint.parse)]


class Permuted(Around):
    """The set `of`, for input channels that come in another order: of 2:4, any four channels can be the group.

    project: argmin_Z ||W - Z||_F  s.t.  Z[:, order] in `of` (exact if `of` is). Without an order, channels come as they
    are. `fitted` searches the order of each weight for which `of`, an N:M pattern, keeps the largest sum of magnitudes
    (heuristic); with an order, `of` is any constraint but levels and nested sparsity. Raises ShapeError if the order is
    of another number of channels.

    >>> swapped = Permuted(of=NM(n=1, m=2), order=(0, 2, 1, 3))
    >>> swapped.project(torch.tensor([[1.0, 5.0, 2.0, 4.0]]))
    tensor([[0., 5., 2., 0.]])

    Source: Pool and Yu 2021, Channel Permutations for N:M Sparsity (NeurIPS); Mishra et al. 2021, arXiv:2104.08378.
    """

    of: Inner
    """The constraint on the weight with its channels in order."""
    order: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """The channel at each place; None: natural order, until `fitted` finds a better one."""
    search: _channel_order.Search = "swap"
    """How `fitted` goes about it: `swap` exchanges two channels at a time; `pairs` and `triples` split two or three
    groups in the best of all ways, which finds more and takes longer."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"of": {"kind": "nm", "n": 2, "m": 4}},
        {"of": {"kind": "nm", "n": 1, "m": 4}, "search": "swap"},
        {"of": {"kind": "block", "shape": (1, 2), "sparsity": 0.5}, "order": (3, 0, 2, 1)},
    )

    @model_validator(mode="after")
    def _order_is_known_or_can_be_found(self) -> Self:
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"order of {len(self.order)} channels does not name each of 0..{len(self.order) - 1} once")
        if self.of.quantized or self.of.networks > 1:
            raise ValueError("levels and nested sparsity cannot be permuted; put them beside it with 'and'")
        if self.order is None and not isinstance(self.of, NM):
            raise ValueError(f"no order can be searched for {self.of.kind()!r}; give the order, or choose nm")
        if isinstance(self.of, NM) and self.search != "swap":
            count = _channel_order.splits(self.of.m, _channel_order.SIZES[self.search])
            if count > _channel_order.SPLITS:
                raise ValueError(
                    f"{self.search} of groups of {self.of.m} can be split in {count} ways, more than "
                    f"{_channel_order.SPLITS}; choose search 'swap'"
                )
        return self

    @property
    def tied(self) -> bool:
        return self.of.tied

    @property
    def shares(self) -> bool:
        return self.of.shares

    @property
    def storage(self) -> str:
        return self.of.storage if isinstance(self.of, NM) else self.FORMAT

    def layout(self) -> dict[str, Any]:
        return {**self.of.layout(), "order": self.order or ()} if isinstance(self.of, NM) else {}

    def fitted(self, weights: Sequence[Tensor]) -> tuple[Constraint, ...]:
        if self.order is None:
            return tuple(self.model_copy(update={"order": self._found(w)}) for w in weights)
        found = self.of.fitted([self._taken(w) for w in weights])
        return tuple(self.model_copy(update={"of": of}) for of in found)

    def parts(self) -> tuple[Constraint, ...]:
        return tuple(self.model_copy(update={"of": part}) for part in self.of.parts())

    def relaxed(self, share: float) -> Self | None:
        of = self.of.relaxed(share)
        return self.model_copy(update={"of": of}) if of else None

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        if self.order is not None and len(self.order) != shape[1]:
            raise ShapeError(
                f"permuted: order is of {len(self.order)} channels, weight {'x'.join(map(str, shape))} has {shape[1]}; "
                f"leave order out to have it found, or give one for each layer"
            )

    def project(self, w: Tensor) -> Tensor:
        return self._put_back(self.of.project(self._taken(w)))

    def mask(self, w: Tensor) -> Tensor:
        return self._put_back(self.of.mask(self._taken(w)))

    def group_norms(self, w: Tensor) -> Tensor:
        return self._put_back(self.of.group_norms(self._taken(w)))

    def holder(self, member: Tensor) -> Holder:
        of = self.of.holder(self._taken(member))
        return Holder(
            lambda w: self._put_back(of.weight(self._taken(w))), lambda g: self._put_back(of.gradient(self._taken(g)))
        )

    def violations(self, w: Tensor) -> int:
        return self.of.violations(self._taken(w))

    def __str__(self) -> str:
        return f"{self.of}, permuted"

    def _found(self, w: Tensor) -> tuple[int, ...]:
        self.check(w.shape)
        self.require_finite(w)
        assert isinstance(self.of, NM), "checked when the object was made"
        magnitude = rows(w.detach()).abs().double().reshape(-1, w.shape[1]).cpu()
        return _channel_order.search(magnitude, self.of.n, self.of.m, self.search)

    def _taken(self, w: Tensor) -> Tensor:
        self.check(w.shape)
        return w.detach() if self.order is None else w.detach()[:, list(self.order)]

    def _put_back(self, permuted: Tensor) -> Tensor:
        if self.order is None:
            return permuted
        found = torch.empty_like(permuted, memory_format=torch.contiguous_format)
        found[:, list(self.order)] = permuted
        return found
