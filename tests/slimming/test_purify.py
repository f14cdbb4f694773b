"""Purification: what is nearly empty goes, and nothing else."""

import pytest
import torch
from torch import nn

import openwork as ow
from openwork.errors import RecipeError
from openwork.recipes.purification import Purification
from openwork.slimming.purify import Emptied, purify

X = torch.randn(1, 3, 8, 8)


def chain(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(5, 4, 3)
    )


def nonzero(model: nn.Module) -> int:
    return sum(int(p.count_nonzero()) for p in model.parameters())


def test_a_channel_needs_to_be_both_nearly_empty_and_small() -> None:
    """eta = columns that are not zero / taps; sigma = share of the layer's energy."""
    model = chain()
    weight = model[2].weight.data.fill_(1.0)
    weight[:, 0].zero_()[:, 0, 0] = 1e-2  # 1 of 9 columns, small
    weight[:, 1].zero_()[:, 0, 0] = 5.0  # 1 of 9 columns, large
    weight[:, 2] = 1e-2  # full, small
    found = purify(model, X, share=1e-3, emptiness=0.5, units=("channel",))
    emptied = [j for j in range(6) if not found.model[2].weight[:, j].any()]
    assert emptied == [0]
    assert found.layers == (Emptied("0", 0, 27), Emptied("2", 5, 0))
    assert not found.model[0].weight[0].any(), "the filter that made the channel goes, too"
    assert torch.equal(model[2].weight, weight), "the model that was given stays"
    again = purify(model, X, share=1e-3, emptiness=1.0, units=("channel",)).model
    assert [j for j in range(6) if not again[2].weight[:, j].any()] == [0, 2]
    limit = purify(model, X, threshold=0.0223, emptiness=1.0, units=("channel",)).model  # 0.01 * sqrt(5) = 0.02236
    assert not any(not limit[2].weight[:, j].any() for j in range(6))
    limit = purify(model, X, threshold=0.0224, emptiness=1.0, units=("channel",)).model
    assert [j for j in range(6) if not limit[2].weight[:, j].any()] == [0]


def test_filters_and_columns() -> None:
    model = chain()
    model[2].weight.data.fill_(1.0)[3] = 1e-3
    model[2].weight.data[:, 2, 1, 1] = 1e-3
    found = purify(model, X, share=1e-5, emptiness=1.0, units=("filter", "column")).model[2].weight
    assert not found[3].any() and not found[:, 2, 1, 1].any()
    assert int(found.count_nonzero()) == 4 * 53


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
def test_weights_only_become_fewer_and_the_ends_stay(share: float) -> None:
    model = chain(3)
    model[0].weight.data[:, 1] *= 1e-3  # the image's channels
    model[4].weight.data[2] *= 1e-3  # the classifier's rows
    model[2].weight.data[:, 4] = 0
    found = purify(model, X, share=share, emptiness=1.0).model
    assert nonzero(found) <= nonzero(model)
    assert found[0].weight[:, 1].any() and found[4].weight[2].any()
    for before, after in ((model[i].weight, found[i].weight) for i in (0, 2, 4)):
        assert torch.equal(after[after != 0], before[after != 0])
    if share == 0:
        assert nonzero(model) - nonzero(found) == 27, "only the filter of a channel that nobody reads"
    assert all(found[i].weight.any() for i in (0, 2, 4)), "a layer without weights would cut the network"


def test_afterwards_a_filter_is_empty_where_its_channel_is() -> None:
    model = chain(1)
    for layer in (model[0], model[2], model[4]):
        layer.weight.data[torch.rand_like(layer.weight) < 0.7] = 0
    found = purify(model, X, share=0.1, emptiness=0.6).model
    for before, after in ((found[0], found[2]), (found[2], found[4])):
        assert torch.equal(before.weight.flatten(1).any(1), after.weight.transpose(0, 1).flatten(1).any(1))
    slimmed = ow.slim(found, X)
    assert slimmed.weights_after < sum(p.numel() for p in found.parameters()) - 4
    assert sum(int(p.count_nonzero()) for p in slimmed.model.parameters()) == nonzero(found)


def test_a_network_that_would_be_cut_through_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"outputs of '4' no longer depend on the input; lower share \(1"):
        purify(chain(3), X, share=1.0, emptiness=1.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "give a share of the layer's energy, a threshold of the L2 norm, or both"),
        ({"share": 1.5}, r"share: 1\.5"),
        ({"threshold": -1}, "threshold"),
        ({"share": 0.1, "units": ("row",)}, "units"),
        ({"share": 0.1, "part": 1}, "unknown field 'part'"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Purification(**wrong)
