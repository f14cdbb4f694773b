"""The zeros are where the pattern says, live memory and bounds are counted right."""

import pytest
import torch
from _live import largest_live
from _roofline import counted
from _workloads import CENTRE, PATTERNS, network, patdnn, pruned, sparsity_of, weights
from torch import nn


@pytest.fixture
def weight():
    return torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("sparsity", [0.5, 0.75])
def test_a_pattern_zeroes_whole_groups_and_as_many_as_asked(pattern, sparsity, weight):
    found = pruned(weight, pattern, sparsity)
    assert (found == 0).float().mean() == pytest.approx(sparsity)
    assert torch.equal(found[found != 0], weight[found != 0])
    groups = {
        "unstructured": found.reshape(-1, 1),
        "4x1": found.reshape(4, 4, -1).transpose(1, 2).reshape(-1, 4),
        "8x1": found.reshape(2, 8, -1).transpose(1, 2).reshape(-1, 8),
        "filter": found.reshape(16, -1),
        "kernel": found.reshape(128, 9),
    }[pattern]
    assert ((groups == 0).all(1) | (groups != 0).all(1)).all()


def test_a_weight_that_the_pattern_does_not_fit_stays_as_it_is():
    odd = torch.randn(6, 5)
    assert torch.equal(pruned(odd, "4x1", 0.5), odd)


def test_the_first_layer_depthwise_layers_and_all_biases_stay_dense():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8, 4), nn.GRU(4, 4))
    assert [name for name, _ in weights(model)] == ["3.weight", "4.weight_ih_l0", "4.weight_hh_l0"]


def test_patdnn_leaves_four_entries_in_at_most_eight_patterns_and_one_of_3_6_kernels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.Conv2d(20, 30, 3), nn.Flatten(), nn.Linear(32, 8))
    with torch.no_grad():
        patdnn(model)
    first, second = (model[i].weight.flatten(2).flatten(0, 1) != 0 for i in (0, 1))
    assert (first.sum(1) == 4).all() and first[:, CENTRE].all()
    kept = second[second.any(1)]
    assert len(kept) == round(600 / 3.6) and (kept.sum(1) == 4).all()
    assert len(torch.cat([first, kept]).unique(dim=0)) <= 8
    assert (model[3].weight != 0).float().mean() == pytest.approx(1 / 8)


def test_activations_of_a_random_network_neither_vanish_nor_grow():
    model = network("cifar10_resnet20", "4x1", 0.75)
    with torch.no_grad():
        size = model(torch.randn(4, 3, 32, 32)).abs().max()
    assert 0.01 < size < 100 and not model.training
    assert sparsity_of(model) == pytest.approx(0.75, abs=0.01)


def test_live_memory_against_counting_by_hand():
    chain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten())
    # 8x8 pixels: at the second convolution four channels are read and two written; norm and ReLU work in place.
    assert largest_live(chain, (torch.zeros(1, 1, 8, 8),)) == 4 * 64 * (4 + 2)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return x + self.b(self.a(x).relu())

    # While b runs, x is still needed beside what b reads and writes; the sum is written over one of them.
    assert largest_live(Residual(), (torch.zeros(1, 4, 8, 8),)) == 4 * 64 * (4 + 4 + 4)


def test_counting_of_flops_and_loads():
    row = {"kernel": "taps_f32_4x2_avx512", "taps": 10, "shape": "1x8x8x8", "op": "conv", "weights": 8 * 9}
    found = counted(row, {"pixels": 64}, "avx512")
    # 64 positions are 2 tiles of 2 vectors; a tap of a tile is 2 loads and 4 broadcasts, and 4 rows of multiply-adds.
    assert found["flops"] == 2 * 10 * 4 * 64 and found["loaded"] == 64 * 10 * 2 * (2 + 4)
    assert found["from"] == "16 KiB"
    row = {"kernel": "rows_f32_32x2_avx512", "taps": 100, "shape": "1x64", "op": "linear", "weights": 6400}
    assert counted(row, {"pixels": 1}, "avx512")["loaded"] == 64 * 100 * (2 + 2)
    assert counted({"kernel": "copy_f32", "taps": None}, {}, "avx512")["flops"] == 0
