"""What every constraint owes, checked on each plug-in that the look-up finds."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from openwork import plugins
from openwork.constraints._padded import Padded
from openwork.constraints.base import Constraint, Sparsity, largest
from openwork.errors import ModelError, ShapeError, UsageError
from openwork.formats.packed import base

EVERY = [cls(**example) for cls in plugins.every("constraints", Constraint).values() for example in cls.EXAMPLES]
SHAPES = [(4, 4), (8, 4, 1, 1), (4, 4, 2, 1), (4, 4, 3, 3), (16, 32), (8, 16, 3, 3)]


def held(constraint: Constraint) -> list[tuple[int, ...]]:
    """Shapes that the constraint can hold."""
    found = []
    for shape in SHAPES:
        with contextlib.suppress(ShapeError):
            constraint.check(shape)
            found.append(shape)
    return found


def sums_groups(constraint: Constraint) -> bool:
    return isinstance(constraint, Sparsity) and (4, 4) in held(constraint)


every = pytest.mark.parametrize("constraint", EVERY, ids=str)
every_shape = pytest.mark.parametrize(("constraint", "shape"), [(c, s) for c in EVERY for s in held(c)], ids=str)

# Few different values make ties and zeros the rule; the wide floats make squares underflow and overflow float32.
tied = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0])
wide = st.floats(-(2.0**100), 2.0**100, width=32)


def weights(shape: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
    return st.one_of(arrays.arrays("float32", shape, elements=e) for e in (tied, wide)).map(torch.from_numpy)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_look_up_finds_all_constraints_and_each_has_examples() -> None:
    found = plugins.every("constraints", Constraint)
    assert {"unstructured", "filter", "channel", "column", "block"} <= set(found)
    assert all(cls.EXAMPLES for cls in found.values())
    assert all(held(c) for c in EVERY), "an example must hold one of the shapes that are tested here"


@every_shape
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_projection_is_feasible_idempotent_and_leaves_its_argument(
    constraint: Constraint, shape: tuple[int, ...], data: st.DataObject
) -> None:
    w = data.draw(weights(shape))
    before = w.clone()
    z = constraint.project(w)
    assert constraint.violations(z) == 0
    assert (torch.allclose if constraint.tied else torch.equal)(constraint.project(z), z)
    assert torch.equal(w, before) and z.data_ptr() != w.data_ptr()
    assert z.shape == w.shape and z.dtype == w.dtype and not z.requires_grad


@every_shape
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_projection_scales_and_keeps_entries_bit_for_bit(
    constraint: Constraint, shape: tuple[int, ...], data: st.DataObject
) -> None:
    w = data.draw(weights(shape))
    z, mask = constraint.project(w), constraint.mask(w)
    assert mask.dtype == torch.bool and mask.shape == w.shape
    if isinstance(constraint, Sparsity):
        assert torch.equal(z[mask], w[mask])
        dropped = z[~mask]
        assert torch.equal(dropped, torch.zeros_like(dropped)) and not torch.signbit(dropped).any()
        assert torch.equal(constraint.project(w * 4), z * 4)


@pytest.mark.parametrize("shape", [(50, 2), (50, 4), (50, 8), (50, 9), (1, 8), (3, 40)], ids=str)
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_largest_of_each_row_win_and_of_equal_ones_the_first(shape: tuple[int, int], levels: int) -> None:
    scores = torch.randint(levels, shape, generator=generator()).double()
    order = scores.argsort(dim=1, descending=True, stable=True)
    for count in range(1, shape[1] + 1):
        wanted = torch.zeros(shape, dtype=torch.bool).scatter(1, order[:, :count], True)
        assert torch.equal(largest(scores, count), wanted)


@every_shape
def test_norms_of_groups_are_of_what_goes_together(constraint: Constraint, shape: tuple[int, ...]) -> None:
    w = torch.randn(shape, generator=generator())
    (constraint,) = constraint.fitted([w])
    norms = constraint.group_norms(w)
    assert norms.shape == w.shape and norms.dtype == w.dtype and not norms.requires_grad
    assert bool((norms >= w.abs() * (1 - 1e-6)).all())
    assert torch.allclose(constraint.group_norms(4 * w), 4 * norms)
    if isinstance(constraint, Sparsity):
        # Each weight's energy is counted once, and a group is dropped as a whole.
        shares = norms.square() / constraint.group_norms(torch.ones_like(w)).square()
        assert torch.allclose(shares.sum(), w.square().sum(), rtol=1e-4)
        mask = constraint.mask(w)
        assert not set(norms[mask].tolist()) & set(norms[~mask].tolist())


@pytest.mark.parametrize("constraint", [c for c in EVERY if c.EXACT and sums_groups(c)], ids=str)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_allowed_support_is_nearer_than_the_projection(constraint: Constraint, data: st.DataObject) -> None:
    """Oracle: of all 2^16 supports keep those which `violations` allows; none may lie nearer to w."""
    w = data.draw(weights((4, 4))).double()
    supports = _allowed_supports(constraint)
    nearest = ((w.flatten() ** 2) @ (~supports).double().T).min()
    assert ((w - constraint.project(w)) ** 2).sum() <= nearest * (1 + 1e-9)


_SUPPORTS: dict[str, Tensor] = {}


def _allowed_supports(constraint: Constraint) -> Tensor:
    """All supports of a 4x4 weight in the set, bool [count, 16]; found from the definition, once per constraint."""
    key = str(constraint)
    if key not in _SUPPORTS:
        bits = (torch.arange(2**16)[:, None] >> torch.arange(16)) & 1
        allowed = torch.ones(2**16, dtype=torch.bool)
        for piece in _piece_ids(constraint).unique():
            ids = _group_ids(constraint).masked_fill(_piece_ids(constraint) != piece, -1)
            groups = torch.stack([ids == g for g in ids.unique() if g >= 0]).long()
            occupied = ((bits @ groups.T) > 0).sum(1)
            allowed &= occupied <= max(1, round((1 - constraint.sparsity) * len(groups)))  # type: ignore[attr-defined]
        _SUPPORTS[key] = bits[allowed].bool()
    return _SUPPORTS[key]


def _group_ids(constraint: Constraint) -> Tensor:
    """The group of each weight of a 4x4 matrix, written down anew from the words of each constraint."""
    row, column = torch.arange(16) // 4, torch.arange(16) % 4
    match constraint.kind():
        case "unstructured":
            return row * 4 + column
        case "connectivity":
            return row // constraint.group * 4 + column  # type: ignore[attr-defined]
        case "filter":
            return row
        case "channel" | "column":
            return column
        case "block" | "channel_block":
            r, c = constraint.shape  # type: ignore[attr-defined]
            return (row // r) * 16 + column // c
        case "block_column":
            return (row // constraint.shape[0]) * 16 + column  # type: ignore[attr-defined]
        case "block_row":
            return row * 16 + column // constraint.shape[1]  # type: ignore[attr-defined]
        case "crossbar":
            return row if constraint.axis == "filter" else column  # type: ignore[attr-defined]
        case other:
            raise AssertionError(f"{other} has groups that this oracle does not know; write them down here")


def _piece_ids(constraint: Constraint) -> Tensor:
    """The part with a budget of its own that each weight of a 4x4 matrix belongs to."""
    row, column = torch.arange(16) // 4, torch.arange(16) % 4
    if not getattr(constraint, "balanced", False):
        return torch.zeros_like(row)
    p, q = constraint.shape  # type: ignore[attr-defined]
    return (row // p) * 16 + column // q


@every_shape
def test_violations_see_what_projection_would_repair(constraint: Constraint, shape: tuple[int, ...]) -> None:
    assert constraint.violations(torch.randn(shape, generator=generator())) > 0
    assert constraint.violations(torch.zeros(shape)) == 0


@every
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(constraint: Constraint, value: float) -> None:
    shape = held(constraint)[0]
    w = torch.ones(shape)
    w[1, 2] = value
    with pytest.raises(ModelError, match=rf"{'x'.join(map(str, shape))} holds NaN or infinite"):
        constraint.project(w)


@every
@pytest.mark.parametrize(
    ("shape", "words"), [((4, 0), "has no elements"), ((0, 4), "has no elements"), ((4,), "1 dimensions")]
)
def test_shapes_that_hold_nothing_are_refused(constraint: Constraint, shape: tuple[int, ...], words: str) -> None:
    for act in (constraint.project, constraint.violations, constraint.mask):
        with pytest.raises(ShapeError, match=words):
            act(torch.ones(shape))


@pytest.mark.parametrize(
    "cls",
    [c for c in plugins.every("constraints", Constraint).values() if "sparsity" in c.EXAMPLES[0]],
    ids=lambda c: c.__name__,
)
@pytest.mark.parametrize("sparsity", [0.0, 1.0, 1.2, -0.5, float("nan")])
def test_sparsity_outside_its_range_names_field_value_and_limit(cls: type[Constraint], sparsity: float) -> None:
    with pytest.raises(UsageError, match=rf"{cls.__name__}\.sparsity: .*") as caught:
        cls(**{**cls.EXAMPLES[0], "sparsity": sparsity})
    assert "(0, 1)" in str(caught.value) or "finite" in str(caught.value)


@every
def test_constraints_are_frozen_hashable_and_survive_a_dump(constraint: Constraint) -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(constraint, next(iter(type(constraint).model_fields)), 0.1)
    dumped = constraint.model_dump(mode="json")
    assert dumped["kind"] == constraint.kind()
    assert Constraint.parse(dumped) == constraint
    assert hash(Constraint.parse(dumped)) == hash(constraint)


@every
def test_relaxed_sets_widen_towards_everything(constraint: Constraint) -> None:
    w = torch.randn(held(constraint)[-1], generator=generator())
    counts = [
        w.numel() if relaxed is None else int(relaxed.project(w).count_nonzero())
        for relaxed in (constraint.relaxed(share) for share in (0.0, 0.3, 0.7, 1.0))
    ]
    assert counts == sorted(counts, reverse=True) and counts[0] == w.numel()
    assert constraint.relaxed(1.0) == constraint


@every
def test_memory_layout_and_precision_do_not_change_the_choice(constraint: Constraint) -> None:
    w = torch.randn(held(constraint)[-1], generator=generator())
    wanted = constraint.mask(w)
    strided = w.to(memory_format=torch.channels_last) if w.ndim == 4 else w.T.contiguous().T
    assert torch.equal(constraint.mask(strided), wanted)
    assert torch.equal(constraint.mask(w.double()), wanted)
    half = w.to(torch.bfloat16)
    assert torch.equal(constraint.mask(half), constraint.mask(half.float()))


@every_shape
def test_what_is_held_stays_a_member_and_the_member_stays_as_it_is(
    constraint: Constraint, shape: tuple[int, ...]
) -> None:
    """As in retraining: the weight moves, `hold` brings it back; zeros of the member stay zeros."""
    start = torch.randn(shape, generator=generator())
    member, step = constraint.project(start), torch.randn(shape, generator=generator().manual_seed(1))
    held_weight = constraint.hold(member + 0.1 * step, member)
    assert constraint.violations(held_weight) == 0
    assert torch.allclose(constraint.hold(member, member), member, atol=1e-6)
    hold = constraint.holder(member).weight
    assert torch.equal(hold(member), constraint.hold(member, member))
    assert torch.equal(hold(member + 0.1 * step), held_weight), "one call leaves nothing behind for the next"
    assert not held_weight[~constraint.mask(start)].any()
    assert not torch.allclose(held_weight, member), "what may move must move"


@pytest.mark.parametrize(("constraint", "shape"), [(c, s) for c in EVERY if c.tied for s in held(c)], ids=str)
def test_gradients_are_projected_onto_the_moves_that_keep_ties(constraint: Constraint, shape: tuple[int, ...]) -> None:
    """A linear, symmetric and idempotent map: the orthogonal projection onto a space in which the member can move."""
    member = constraint.project(torch.randn(shape, generator=generator()))
    g, h = torch.randn(2, *shape, generator=generator().manual_seed(1))
    along = constraint.holder(member).gradient
    torch.testing.assert_close(along(g - 2 * h), along(g) - 2 * along(h), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(along(along(g)), along(g), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close((along(g) * h).sum(), (g * along(h)).sum(), atol=1e-4, rtol=1e-4)
    moved = member + 0.02 * along(g)
    large = member.abs() > 0.1  # no step takes them to the other side of 0
    torch.testing.assert_close(constraint.hold(moved, member)[large], moved[large], atol=1e-4, rtol=0.0)
    step = constraint.hold(1.1 * member + 0.1 * h, member) - member  # Levels round intervals to 16 digits
    torch.testing.assert_close(along(step), step, atol=2e-3, rtol=0.0)
    assert float(step.norm()) > 0.02, "the set must let the member move"
    assert along(torch.full_like(g, torch.inf)).shape == g.shape, "a step that loss scaling leaves out is no mistake"


@every_shape
def test_settled_constraints_keep_their_kind_and_survive_a_dump(constraint: Constraint, shape: tuple[int, ...]) -> None:
    weights = [torch.randn(shape, generator=generator().manual_seed(seed)) for seed in range(3)]
    for w, settled in zip(weights, constraint.fitted(weights), strict=True):
        assert type(settled) is type(constraint)
        assert Constraint.parse(settled.model_dump(mode="json")) == settled
        assert settled.violations(settled.project(w)) == 0
        assert settled.fitted([w]) == (settled,), "what is settled stays"


@every_shape
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_members_are_stored_bit_for_bit(constraint: Constraint, shape: tuple[int, ...], data: st.DataObject) -> None:
    (settled,) = constraint.fitted([torch.randn(shape, generator=generator())])
    # ADMM's copies are projected, so that is what formats see; a shape that comes from padding has whole blocks.
    z = settled.project(data.draw(weights(shape))) + 0.0
    packed = base.pack(settled.storage, z.numpy(), **settled.layout_of(z))
    assert packed.kind() == settled.storage and packed.nbytes == sum(a.nbytes for a in packed.arrays.values())
    back = packed.unpack()
    assert back.dtype == np.float32 and torch.equal(torch.from_numpy(back), z)
    assert not np.signbit(back[back == 0]).any()


def test_every_shape_of_ties_keeps_the_lowest_indices() -> None:
    unstructured = plugins.find("constraints", "unstructured", Constraint)(sparsity=0.5)  # type: ignore[call-arg]
    for values in itertools.product([0.0, 1.0], repeat=6):
        w = torch.tensor(values).view(2, 3)
        order = sorted(range(6), key=lambda i: (-values[i], i))[:3]
        assert unstructured.mask(w).flatten().nonzero().flatten().tolist() == sorted(order)


def test_padding_counts_the_border_and_crops_it() -> None:
    block = plugins.find("constraints", "block", Constraint)(shape=(4, 2), sparsity=0.5)  # type: ignore[call-arg]
    padded = Padded(inner=block)
    w = torch.randn(6, 5, generator=generator())
    with pytest.raises(ShapeError, match=r"out = 6 of weight 6x5 is not a multiple of 4.*on_misfit"):
        block.project(w)
    bordered = torch.zeros(8, 6)
    bordered[:6, :5] = w
    assert torch.equal(padded.project(w), block.project(bordered)[:6, :5])
    assert padded.violations(padded.project(w)) == 0 and padded.violations(w) > 0
    assert torch.equal(padded.mask(w), block.mask(bordered)[:6, :5])
