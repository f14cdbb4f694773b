"""Nested sparsity levels: several networks whose weights are parts of each other become one program.

Each network is captured, optimized and lowered by itself, in the same way; the programs must then differ in nothing
but weights. A layer keeps the weights of the first network, and of the others which of these they have, their bias and
a factor for each row: folding leaves the same weights times what batch norm has learned at that level.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import CompileError
from ..formats.program import Array, Step
from .drafts import Draft, Level, Lowered, Weights

SAME = 1e-5
"""Largest relative difference of weights that folding may leave between levels."""


def nest(networks: Sequence[Lowered]) -> Lowered:
    """One program of several levels; `CompileError` names the layer that differs in more than a level may."""
    first, *others = networks
    if any(len(other.drafts) != len(first.drafts) for other in others):
        raise CompileError("the networks of the levels have different layers; levels are copies of one model")
    steps = []
    for at, (draft, base) in enumerate(zip(first.drafts, first.program.steps, strict=True)):
        steps.append(_nested(draft, base, [(other.drafts[at], other.program.steps[at]) for other in others]))
    if not any("levels" in step.fields for step in steps):
        raise CompileError("the networks of the levels are all the same; compile the model without levels")
    return Lowered(replace(first.program, steps=tuple(steps)), first.drafts)


def _nested(draft: Draft, base: Step, others: list[tuple[Draft, Step]]) -> Step:
    """The base step of a layer, whose draft gets the levels."""
    alike = all(step.op == base.op and step.fields == base.fields and _equal(step, base) for _, step in others)
    more = [other.weights for other, _ in others]
    if not alike or any((w is None) != (draft.weights is None) for w in more):
        raise CompileError(f"layer {base.name!r} differs between levels in more than weights that are zero")
    w = draft.weights
    if w is None or all(o and np.array_equal(o.matrix, w.matrix) and np.array_equal(o.bias, w.bias) for o in more):
        return base
    if draft.op not in ("taps", "rows"):
        raise CompileError(f"layer {base.name!r} is {draft.op}, which holds one level; leave its weights as they are")
    levels, before = [], w.matrix != 0
    for number, other in enumerate(more, 2):
        assert other is not None
        levels.append(_level(base.name, number, w, other, before))
        before = levels[-1].keep
    draft.weights = replace(w, levels=tuple(levels))
    return Step(base.op, base.name, {**base.fields, "levels": 1 + len(levels)}, base.arrays)


def _level(name: str, number: int, first: Weights, other: Weights, before: Array) -> Level:
    """What level `number` has of the first one's weights, where `before` is what the level before has."""
    keep = other.matrix != 0
    if (keep & ~before).any():
        raise CompileError(f"layer {name!r}: level {number} has weights that level {number - 1} has not")
    largest = np.argmax(np.abs(np.where(keep, first.matrix, 0)), axis=1)[:, None]
    ours, theirs = (np.take_along_axis(m, largest, axis=1)[:, 0] for m in (first.matrix, other.matrix))
    scale = np.divide(theirs, ours, out=np.ones_like(ours), where=keep.any(axis=1))
    wanted = np.where(keep, first.matrix, 0) * scale[:, None]
    limit = SAME * np.abs(wanted).max(axis=1, keepdims=True)
    if (np.abs(wanted - other.matrix) > limit).any():
        raise CompileError(f"layer {name!r}: level {number} has other weights than level 1, not fewer of the same")
    return Level(keep, other.bias, scale.astype(np.float32))


def _equal(a: Step, b: Step) -> bool:
    return a.arrays.keys() == b.arrays.keys() and all(np.array_equal(v, b.arrays[k]) for k, v in a.arrays.items())
