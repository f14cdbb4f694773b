"""What a weight keeps through the steps of an optimizer: its zeros, its ties, and values that are frozen."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..constraints._padded import Padded, bare
from ..constraints.and_ import And
from ..constraints.base import Constraint, Holder, largest
from ..recipes.match import weights
from ..recipes.stages import alike


@dataclass(frozen=True)
class Hold:
    """Weights of a model, by the names that rules know them by, and what brings them back after a step of the
    optimizer, whatever momentum, weight decay or Adam's buffers do to them. A hold is never changed: cuts and freezing
    give another one, which holds at least as much.
    """

    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    """1 where a weight may differ from zero, of its type and memory layout."""
    sets: Mapping[str, tuple[Constraint, ...]] = field(default_factory=dict)
    """The sets that a weight was projected onto, the last of each kind."""
    members: Mapping[str, Tensor] = field(default_factory=dict)
    """What the last of a weight's sets gave, if it ties weights."""
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    """The values that do not move, 0 elsewhere."""

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Of a model's weights, with nothing held yet."""
        return cls({name: item.weight for name, item in weights(model).items()})

    def within(self, masks: Mapping[str, Tensor]) -> Self:
        """The same, and zeros where `masks` (bool) say so."""
        found = {name: like(self.weights[name], mask) for name, mask in masks.items()}
        for name in found.keys() & self.masks.keys():
            found[name].mul_(self.masks[name])
        kept = {name: value * found[name] if name in found else value for name, value in self.frozen.items()}
        return replace(self, masks={**self.masks, **found}, frozen=kept)

    def cut(
        self, cuts: Mapping[str, tuple[Constraint, Tensor, Tensor]], near: Mapping[str, Tensor] | None = None
    ) -> Self:
        """The same, after projections: by name the set, the member of it and the member's mask. Of names in `near`
        only the weights that it marks (bool) have been projected, and freeze; the others move on."""
        near = near or {}
        sets = {
            name: (*(left for s in self.sets.get(name, ()) for left in _left(s, constraint)), constraint)
            for name, (constraint, _, _) in cuts.items()
        }
        members = {
            name: member for name, (constraint, member, _) in cuts.items() if constraint.tied and name not in near
        }
        # What freezes on level 0 is held as all zeros are.
        masks = {
            name: mask & ~(near[name] & (member == 0)) if name in near else mask
            for name, (_, member, mask) in cuts.items()
        }
        frozen = {name: cuts[name][1] * chosen for name, chosen in near.items()}
        held = self.within(masks)
        return replace(
            held,
            sets={**self.sets, **sets},
            members={**self.members, **members},
            frozen={**held.frozen, **frozen},
        )

    def near(self, name: str, member: Tensor, mask: Tensor, share: float) -> Tensor:
        """Of the weights in `mask` the share that lies nearest to `member`, those frozen before first (bool)."""
        weight = self.weights[name].detach()
        before = self.frozen.get(name, torch.zeros_like(weight)) != 0
        count = max(round(share * int(mask.sum())), int(before.sum()))
        scores = -(weight - member).abs().float().masked_fill(before, -1.0).masked_fill(~mask, torch.inf).flatten()
        return largest(scores[None], count).view(weight.shape) if count else before

    def goes_on(self, name: str, asked: Constraint) -> Constraint:
        """What is asked of a weight, with what was settled when a part of it froze in the same set."""
        before = self.sets.get(name, ())[-1:]
        return before[0] if before and before[0] != asked and before[0].fixed(None) == asked else asked

    def release(self, names: Iterable[str]) -> Self:
        """The same, but that weights called so may leave their levels, for others; zeros stay."""
        kept = self.members.keys() - set(names)
        return replace(self, members={name: self.members[name] for name in self.members if name in kept})

    def freeze(self, share: float) -> Self:
        """The same, and of the weights left in each layer that was cut the largest `share` frozen as they are; those
        frozen before stay so."""
        largest_of = [name for name, sets in self.sets.items() if not sets[-1].quantized] if share else []
        frozen = {name: self._frozen(name, share) for name in largest_of}
        return replace(self, frozen={**self.frozen, **frozen})

    @torch.no_grad()
    def apply(self) -> None:
        """Bring the weights back."""
        masked = [self.weights[name] for name in self.masks]
        if masked:
            torch._foreach_mul_(masked, list(self.masks.values()))
            # -3 * 0 is -0.0; adding 0 makes every zero the plain one, whose bytes compress and compare well.
            torch._foreach_add_(masked, 0.0)
        for name, held in self._holders.items():
            self.weights[name].copy_(held.weight(self.weights[name]))
        for name, values in self.frozen.items():
            self.weights[name].copy_(torch.where(values != 0, values, self.weights[name]))

    @torch.no_grad()
    def tie(self) -> None:
        """Before a step of the optimizer: of the gradients of tied weights, leave what moves them together."""
        for name, held in self._holders.items():
            gradient = self.weights[name].grad
            # Sparse ones are of embeddings that share the weight; SGD takes them, which needs no ties before its step.
            if gradient is not None and not gradient.is_sparse:
                gradient.copy_(held.gradient(gradient))

    @cached_property
    def _holders(self) -> dict[str, Holder]:
        return {name: self.sets[name][-1].holder(member) for name, member in self.members.items()}

    def obeyed(self, name: str) -> Constraint | None:
        """Everything that a weight was projected onto, as one set."""
        sets = self.sets.get(name, ())
        return And(of=sets) if len(sets) > 1 else next(iter(sets), None)

    def state_dict(self) -> dict[str, Any]:
        """Tensors by name, and the sets as plain data."""
        return {
            "masks": {name: mask.bool() for name, mask in self.masks.items()},
            "members": dict(self.members),
            "frozen": dict(self.frozen),
            "sets": {name: [_plain(constraint) for constraint in sets] for name, sets in self.sets.items()},
        }

    def loaded(self, state: Mapping[str, Any]) -> Self:
        """The hold of a saved state, on the weights of this one."""
        tensors = {
            part: {name: like(self.weights[name], t) for name, t in state[part].items()}
            for part in ("masks", "members", "frozen")
        }
        sets = {name: tuple(map(_constraint, found)) for name, found in state["sets"].items()}
        return replace(self, sets=sets, **tensors)

    def _frozen(self, name: str, share: float) -> Tensor:
        weight = self.weights[name].detach()
        before = self.frozen.get(name, torch.zeros_like(weight)) != 0
        count = max(round(share * int(torch.count_nonzero(weight))), int(before.sum()))
        scores = weight.abs().float().masked_fill(before, torch.inf).flatten()
        chosen = largest(scores[None], count).view(weight.shape) if count else before
        return weight * chosen


def _left(before: Constraint, now: Constraint) -> tuple[Constraint, ...]:
    """What a weight goes on to obey of a set when another one comes: all of it, unless they are alike. Levels give way
    to levels, and the pattern beside them only to one of the same kind that is no wider."""
    if not alike(before, now):
        return (before,)
    pattern = _without_levels(before) if before.quantized else None
    if pattern is None or all(any(_narrower(new, old) for new in _parts(now)) for old in _parts(pattern)):
        return ()
    return (pattern,)


def _without_levels(constraint: Constraint) -> Constraint | None:
    """All of a set that is no levels; a border stays as it is, for levels have no granule."""
    if isinstance(constraint, Padded):
        inner = _without_levels(constraint.inner)
        return inner and Padded(inner=inner)
    if isinstance(constraint, And):
        parts = tuple(part for of in constraint.of if (part := _without_levels(of)) is not None)
        return And(of=parts) if len(parts) > 1 else next(iter(parts), None)
    return None if constraint.quantized else constraint


def _parts(constraint: Constraint) -> Iterator[Constraint]:
    inner = bare(constraint)
    if isinstance(inner, And):
        for part in inner.of:
            yield from _parts(part)
    else:
        yield inner


def _narrower(a: Constraint, b: Constraint) -> bool:
    return alike(a, b) and getattr(a, "sparsity", 0.0) >= getattr(b, "sparsity", 0.0)


def like(weight: Tensor, saved: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of `saved` of the type (or of `dtype`) and in the memory layout of `weight`: a product over lists of such
    tensors is one call, and sums run in the order in which they ran before an interruption."""
    return torch.empty_like(weight, dtype=dtype, requires_grad=False).copy_(saved)


def _plain(constraint: Constraint) -> dict[str, Any]:
    return {"padded": isinstance(constraint, Padded), "set": bare(constraint).model_dump(mode="json")}


def _constraint(saved: Mapping[str, Any]) -> Constraint:
    found = Constraint.parse(saved["set"])
    return Padded(inner=found) if saved["padded"] else found
