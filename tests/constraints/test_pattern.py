"""Kernel patterns and connectivity against brute force, alone and together; what libraries are made of."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import openwork as ow
from openwork.constraints._padded import Padded
from openwork.constraints.and_ import And
from openwork.constraints.connectivity import Connectivity
from openwork.constraints.pattern import DESIGNED, Pattern
from openwork.errors import ShapeError, UsageError
from openwork.recipes.recipe import Recipe, Rule
from openwork.solvers.admm import ADMM
from openwork.training.shaper import Shaper

few = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])


def flags(mask: int) -> Tensor:
    return torch.tensor([bool(mask >> at & 1) for at in range(9)]).view(3, 3)


def kernels(out: int, channels: int, draw: st.DataObject) -> Tensor:
    values = draw.draw(st.lists(few, min_size=9 * out * channels, max_size=9 * out * channels))
    return torch.tensor(values).view(out, channels, 3, 3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- the projection ----


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("library", ["designed", (0o033, 0o151, 0o660), "mined"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_each_kernel_takes_the_pattern_that_keeps_most(
    library: str | tuple[int, ...], group: int, data: st.DataObject
) -> None:
    """Oracle: all patterns, one after the other; of equally good ones the first of a library, the lowest places
    beside the centre of a free choice."""
    w = kernels(2, 2, data)
    z = Pattern(library=library, group=group).project(w)
    if library == "mined":
        masks = [sum(1 << at for at in (4, *others)) for others in itertools.combinations((0, 1, 2, 3, 5, 6, 7, 8), 3)]
    else:
        masks = DESIGNED if library == "designed" else library
    for o, i in itertools.product(range(0, 2, group), range(2)):
        kernel, found = w[o : o + group, i], z[o : o + group, i]
        best = min(masks, key=lambda mask, kernel=kernel: float(((kernel * ~flags(mask)) ** 2).sum()))
        assert torch.equal(found, kernel * flags(best) + 0.0)


def test_the_published_example_is_tied_and_takes_the_first() -> None:
    kernel = torch.tensor([[1.0, -2, 0], [3, 4, -1], [0, 1, 2]])
    energies = [int((kernel * flags(mask)).square().sum()) for mask in DESIGNED]
    assert energies == [30, 21, 26, 22, 27, 22, 30, 30]
    found = Pattern(library="designed").project(kernel.expand(1, 2, 3, 3))[0, 0]
    assert found.tolist() == [[1, -2, 0], [3, 4, 0], [0, 0, 0]]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_violations_count_groups_outside_every_pattern(data: st.DataObject) -> None:
    w = kernels(4, 2, data)
    for library, group in itertools.product(("designed", (0o033, 0o151)), (1, 2, 4)):
        masks = DESIGNED if library == "designed" else library
        outside = 0
        for o, i in itertools.product(range(0, 4, group), range(2)):
            used = (w[o : o + group, i] != 0).any(0)
            outside += not any((used <= flags(mask)).all() for mask in masks)
        assert Pattern(library=library, group=group).violations(w) == outside


# ---- libraries ----


def test_designed_patterns_add_up_to_a_gaussian_and_an_enhanced_laplacian() -> None:
    corners, shapes = (torch.stack([flags(m) for m in part]).long() for part in (DESIGNED[:4], DESIGNED[4:]))
    assert corners.sum(0).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert shapes.sum(0).tolist() == [[0, 3, 0], [3, 4, 3], [0, 3, 0]]
    assert shapes.double().mean(0).tolist() == [[0, 0.75, 0], [0.75, 1, 0.75], [0, 0.75, 0]]
    assert len(set(DESIGNED)) == 8
    assert all(mask.bit_count() == 4 and flags(mask)[1, 1] for mask in DESIGNED)
    for part in (corners, shapes):
        turned = {tuple(torch.rot90(p).flatten().tolist()) for p in part}
        assert turned == {tuple(p.flatten().tolist()) for p in part}


def planted(masks: tuple[int, ...], shape: tuple[int, int], seed: int) -> Tensor:
    """Kernels that lie in the masks, the first of them in most."""
    g = torch.Generator().manual_seed(seed)
    often = torch.tensor([float(len(masks) + 2 - n) for n in range(len(masks))])
    choice = torch.multinomial(often, shape[0] * shape[1], replacement=True, generator=g).view(shape)
    values = torch.rand(*shape, 3, 3, generator=g) + 0.5
    values[..., 1, 1] = 0.01  # stays all the same: natural patterns have the centre
    return values * torch.stack([flags(m) for m in masks])[choice]


def test_mining_finds_what_was_planted_over_all_layers_of_a_rule() -> None:
    masks = (0o131, 0o033, 0o425, 0o270)
    layers = [planted(masks, (64, 32), 0), planted(masks, (32, 16), 1)]
    layers[0][:16] = 0  # kernels without a weight have no pattern
    settled = Pattern(count=8).fitted(layers)
    assert settled[0] == settled[1] and settled[0].library == masks
    assert all(s.violations(w) == 0 for s, w in zip(settled, layers, strict=True))
    assert Pattern(count=2).fitted(layers)[0].library == masks[:2]


def test_kernels_of_two_sizes_have_libraries_of_their_own() -> None:
    small, large = Pattern(count=3).fitted([random(8, 4, 3, 3), random(8, 4, 5, 5)])
    assert all(mask < 1 << 9 for mask in small.library) and any(mask >= 1 << 9 for mask in large.library)
    assert Pattern().fitted([torch.zeros(4, 4, 3, 3)]) == (Pattern(),)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"library": (0o033, 0o007)}, "pattern 7 of the library has 3 entries, not 4"),
        ({"library": "designed", "entries": 5}, "has 4 entries, not 5"),
        ({"library": (0o033, 0o033)}, "holds a pattern twice"),
        ({"library": (-15,)}, "pattern -15"),
        ({"library": ()}, "is empty"),
        ({"library": "random"}, "library"),
    ],
)
def test_impossible_libraries_are_refused(fields: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Pattern(**fields)


@pytest.mark.parametrize(
    ("fields", "shape", "words"),
    [
        ({}, (8, 8), "linear layer.*block or unstructured"),
        ({}, (8, 8, 1, 1), "kernel of 1x1.*choose connectivity.*skip"),
        ({}, (8, 1, 3, 3), "depthwise.*8x1x3x3.*choose unstructured"),
        ({"library": "designed"}, (8, 8, 5, 5), "3x3, not 5x5.*mined"),
        ({"library": (0o033 << 6,)}, (8, 8, 3, 3), "does not fit"),
        ({"group": 4}, (6, 8, 3, 3), "out = 6.*multiple of 4.*pad or skip"),
        ({}, (8, 8, 11, 11), "does not fit a kernel of 11x11"),
    ],
)
def test_layers_that_hold_no_patterns_are_told_what_to_choose(fields: dict, shape: tuple, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        Pattern(**fields).project(torch.ones(shape))


def test_connectivity_leaves_depthwise_layers_alone_and_takes_1x1_kernels() -> None:
    with pytest.raises(ShapeError, match=r"depthwise.*choose filter"):
        Connectivity(sparsity=0.5).project(torch.ones(8, 1, 3, 3))
    w = random(8, 4, 1, 1)
    assert torch.equal(Connectivity(sparsity=0.75).mask(w), ow.Unstructured(sparsity=0.75).mask(w))


@pytest.mark.parametrize("group", [1, 2])
def test_connectivity_keeps_the_best_of_all_choices_of_kernels(group: int) -> None:
    w = random(4, 2, 3, 3)
    constraint = Connectivity(sparsity=0.5, group=group)
    count = 8 // group
    dropped = w.view(4 // group, group, 2, 9).square().sum((1, 3)).flatten()
    best = min(float(dropped[list(at)].sum()) for at in itertools.combinations(range(count), count // 2))
    z = constraint.project(w)
    assert float((w - z).square().sum()) == pytest.approx(best)
    assert (z.view(4 // group, group, 2, 9) != 0).all(3).all(1).sum() == count // 2


# ---- both ----

BOTH = And(of=(Pattern(library="designed"), Connectivity(sparsity=0.5)))
TURNED = And(of=(Connectivity(sparsity=0.5), Pattern(library="designed")))


def test_kernels_are_ranked_by_what_their_pattern_keeps_if_patterns_come_first() -> None:
    """One kernel has the larger norm, the other keeps more of it: the order of projection decides which stays."""
    spread, corner = torch.full((3, 3), 1.0), torch.tensor([[1.4, 1.4, 0], [1.4, 1.4, 0], [0, 0, 0]])
    w = torch.stack([spread, corner])[None]
    assert spread.norm() > corner.norm()
    assert torch.equal(BOTH.project(w), torch.stack([torch.zeros(3, 3), corner])[None])
    assert torch.equal(TURNED.project(w), torch.stack([spread * flags(DESIGNED[0]), torch.zeros(3, 3)])[None])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_patterns_before_connectivity_find_the_nearest_member_of_both(data: st.DataObject) -> None:
    """Oracle: every choice of kernels with every pattern of each."""
    w = kernels(2, 2, data)
    loss = {True: [], False: []}
    for kernel in w.view(4, 3, 3):
        loss[True].append(min(float((kernel * ~flags(m)).square().sum()) for m in DESIGNED))
        loss[False].append(float(kernel.square().sum()))
    choices = itertools.combinations(range(4), 2)
    nearest = min(sum(loss[i in kept][i] for i in range(4)) for kept in choices)
    found = [float((w - c.project(w)).square().sum()) for c in (BOTH, TURNED)]
    assert found[0] == pytest.approx(nearest)
    assert found[1] >= found[0] - 1e-6


def test_a_layer_of_both_has_so_many_kernels_and_each_lies_in_one_pattern() -> None:
    w = random(16, 32, 3, 3)
    both = And(of=(Pattern(), Connectivity(sparsity=1 - 1 / 3.6)))
    (settled,) = both.fitted([w])
    z = settled.project(w)
    used = (z != 0).flatten(2)
    assert int(used.any(2).sum()) == round(16 * 32 / 3.6)
    assert set(used.sum(2).flatten().tolist()) <= {0, 4}
    patterns = {tuple(kernel) for kernel in used.flatten(0, 1).tolist() if any(kernel)}
    assert len(patterns) <= 8
    assert torch.equal(settled.project(z), z)


def test_groups_share_patterns_and_channels() -> None:
    both = And(of=(Pattern(library="designed", group=4), Connectivity(sparsity=0.75, group=4)))
    used = both.project(random(16, 8, 3, 3)).view(4, 4, 8, 9) != 0
    assert (used == used[:, :1]).all()
    assert int(used.any(3).any(1).sum()) == 8
    padded = Padded(inner=both)
    z = padded.project(random(14, 8, 3, 3))
    assert padded.violations(z) == 0 and z.shape == (14, 8, 3, 3)


def test_admm_has_two_auxiliaries_one_in_each_set() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 16, 3))
    constraint = And(of=(Pattern(), Connectivity(sparsity=0.7)))
    recipe = Recipe(rules=(Rule(targets="conv2d", constraint=constraint),), solver=ADMM(rho=0.1))
    with Shaper(model, recipe) as shaper:
        settled = [m.constraint for m in shaper.matches]
        assert settled[0].of[0].library == settled[1].of[0].library != "mined", "mined over both layers"
        for _ in range(2):
            z, u = shaper._state.tensors["z"], shaper._state.tensors["u"]
            assert len(z) == len(u) == 4
            for patterned, connected, both in zip(z[::2], z[1::2], settled, strict=True):
                pattern, connectivity = both.of
                assert pattern.violations(patterned) == 0 < connectivity.violations(patterned)
                assert connectivity.violations(connected) == 0 < pattern.violations(connected)
            shaper.update()
        shaper.harden()
    assert all(c.violations(layer.weight) == 0 for c, layer in zip(settled, model, strict=True))
