"""Nested sparsity: levels lie in each other and have the sizes they should, whatever the ties."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.constraints._padded import Padded
from openwork.constraints.and_ import And
from openwork.constraints.block import Block
from openwork.constraints.filter import Filter
from openwork.constraints.nested import Nested
from openwork.constraints.unstructured import Unstructured
from openwork.errors import ShapeError, UsageError
from openwork.formats.packed import base
from openwork.formats.packed.levels import Levels
from openwork.recipes.recipe import Recipe
from openwork.recipes.rule import Rule
from openwork.training.shaper import Shaper


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0]), min_size=24, max_size=24))
def test_levels_lie_in_each_other_and_keep_the_strongest(values: list[float]) -> None:
    w = torch.tensor(values).view(4, 6)
    nested = Nested(of=Unstructured(sparsity=0.25), sparser=(0.5, 0.75, 0.9))
    masks = nested.levels(w)
    assert torch.equal(masks[0], nested.mask(w))
    assert [int(m.sum()) for m in masks] == [18, 12, 6, 2]
    for wider, narrower in itertools.pairwise(masks):
        assert not (narrower & ~wider).any()
        dropped, kept = w.abs()[wider & ~narrower], w.abs()[narrower]
        assert kept.min() >= dropped.max()
    assert all(torch.equal(a, b) for a, b in zip(nested.levels(nested.project(w)), masks, strict=True)), "or after it"


def test_the_worked_example() -> None:
    w = torch.tensor([[0.9, -0.1, 0.2, 0.5, -0.7, 0.05]])
    masks = Nested(of=Unstructured(sparsity=1 / 3), sparser=(2 / 3,)).levels(w)
    assert [m.flatten().nonzero().flatten().tolist() for m in masks] == [[0, 2, 3, 4], [0, 4]]
    row = np.array([[0.9, 0, 0.2, 0.5]], np.float32)
    packed = Levels.pack(row, keeps=[np.array([[True, False, False, False]])])
    assert packed.index.tolist() == [0, 2, 3] and packed.level.tolist() == [[1, 3]]
    assert packed.unpack(2).tolist() == [[np.float32(0.9), 0, 0, 0]]


def test_blocks_stay_whole_at_every_level() -> None:
    w = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    of = Block(shape=(4, 1), sparsity=0.25)
    for sparsity, mask in zip((0.25, 0.5, 0.75), Nested(of=of, sparser=(0.5, 0.75)).levels(w), strict=True):
        assert of.model_copy(update={"sparsity": sparsity}).violations(w * mask) == 0
        assert int(mask.sum()) == round(48 * (1 - sparsity))


@pytest.mark.parametrize("shape", [(8, 6), (8, 4, 3, 3)])
def test_a_file_holds_all_levels_once(shape: tuple[int, ...]) -> None:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    nested = Nested(of=Unstructured(sparsity=0.5), sparser=(0.75, 0.9))
    z = nested.project(w)
    packed = base.pack("levels", z.numpy(), **nested.layout_of(z))
    assert isinstance(packed, Levels)
    for level, mask in enumerate(nested.levels(w), 1):
        assert np.array_equal(packed.unpack(level), (z * mask).numpy())
    assert packed.nbytes == base.pack("csr", z.numpy()).nbytes + 4 * 3 * len(w)
    with pytest.raises(ShapeError, match="the one before has not"):
        Levels.pack(z.numpy(), keeps=[np.zeros(shape, bool), np.ones(shape, bool)])


def test_padding_and_composition_pass_levels_on() -> None:
    w = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    padded = Padded(inner=Nested(of=Block(shape=(4, 1), sparsity=0.25), sparser=(0.75,)))
    first, second = padded.levels(w)
    assert first.shape == w.shape and not (second & ~first).any() and 0 < second.sum() < first.sum()
    both = And(of=(Filter(sparsity=0.5), Nested(of=Unstructured(sparsity=0.6), sparser=(0.8,))))
    assert len(both.levels(w)) == 2 and both.storage == "levels"
    assert len(Filter(sparsity=0.5).levels(w)) == 1
    assert (padded.networks, both.networks, Filter(sparsity=0.5).networks) == (2, 2, 1)


@pytest.mark.parametrize("sparser", [(0.5,), (0.4,), (0.8, 0.8), (0.9, 0.8)])
def test_sparsities_must_rise(sparser: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="must rise from level to level"):
        Nested(of=Unstructured(sparsity=0.5), sparser=sparser)


def test_only_a_sparsity_can_have_levels() -> None:
    with pytest.raises(UsageError, match=r"Nested\.of"):
        Nested(of={"kind": "nonsense"}, sparser=(0.5,))
    with pytest.raises(UsageError, match=r"Nested\.of: 'nm' does not go here; choose one of .*unstructured"):
        Nested(of={"kind": "nm", "n": 2, "m": 4}, sparser=(0.5,))


def test_levels_lie_in_what_other_parts_left() -> None:
    both = And(of=(Filter(sparsity=0.5), Nested(of=Unstructured(sparsity=0.5), sparser=(0.75,))))
    layer = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 1.0], [3.0, 3.0]]))
    shaper = Shaper(torch.nn.Sequential(layer), Recipe(rules=(Rule(targets="all", constraint=both),)))
    shaper.harden()
    with shaper.at_level(2):
        assert int(layer.weight.count_nonzero()) == 1
