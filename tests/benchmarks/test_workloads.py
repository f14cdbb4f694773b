"""The zeros are where the pattern says, live memory and bounds are counted right."""

import pytest
import torch
from _live import largest_live
from _roofline import counted, layers
from _workloads import PATTERNS, in_int8, network, patdnn, pruned, sparsity_of, weights
from torch import nn

import openwork


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
    assert (first.sum(1) == 4).all() and first[:, 4].all()
    kept = second[second.any(1)]
    assert len(kept) == round(600 / 3.6) and (kept.sum(1) == 4).all()
    assert len(torch.cat([first, kept]).unique(dim=0)) <= 8
    assert (model[3].weight != 0).float().mean() == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    ("name", "pattern", "sparsity", "shape"),
    [
        ("cifar10_resnet20", "4x1", 0.75, (4, 3, 32, 32)),
        ("lenet5", "unstructured", 0.9, (4, 1, 28, 28)),  # without norms
        ("cifar10_resnet20", "4x4", 0.75, (4, 3, 32, 32)),
    ],
)
def test_activations_of_a_random_network_neither_vanish_nor_grow(name, pattern, sparsity, shape):
    model = network(name, pattern, sparsity)
    with torch.no_grad():
        size = model(torch.randn(shape)).abs().max()
    assert 0.01 < size < 100 and not model.training
    assert sparsity_of(model) == pytest.approx(sparsity, abs=0.02)


def test_a_network_in_int8_is_close_to_the_one_before():
    model = network("cifar10_resnet20", "4x4", 0.75)
    small, x = in_int8(model, "cifar10_resnet20"), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert 0 < (small(x) - model(x)).norm() < 0.3 * model(x).norm()
    assert sparsity_of(small) == pytest.approx(sparsity_of(model), abs=0.02)


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
    found = counted(row, {"pixels": 64}, "avx512", {})
    # 64 positions are 2 tiles of 2 vectors; a tap of a tile is 2 loads and 4 broadcasts, and 4 rows of multiply-adds.
    assert found == {"flops": 2 * 10 * 4 * 64, "loaded": {"16 KiB": 64 * 10 * 2 * (2 + 4)}}
    row = {"kernel": "rows_f32_32x2_avx512", "taps": 100, "shape": "1x64", "op": "linear", "weights": 6400}
    assert counted(row, {"pixels": 1}, "avx512", {})["loaded"] == {"16 KiB": 64 * 100 * (2 + 2)}
    assert counted({"kernel": "copy_f32", "taps": None}, {}, "avx512", {}) == {"flops": 0, "loaded": {}}
    assert counted({"kernel": "max_pool_f32_avx512", "taps": 0}, {}, "avx512", {})["flops"] == 0


def test_counting_where_lanes_run_over_outputs():
    # 64 channels in 3x3 kernels: a panel of 32 outputs has 576 columns, two vectors each, and 28 tiles of 14 pixels.
    row = {"kernel": "dense_f32_1x14x32_avx512", "taps": 2 * 576, "shape": "1x64x14x28", "op": "conv"}
    found = counted(row, {"pixels": 392}, "avx512", {})
    assert found["flops"] == 2 * 64 * 576 * 392
    assert found["loaded"] == {"1 MiB": 64 * 2 * 576 * 28 * 2, "16 KiB": 64 * 2 * 576 * 392}
    # the panel of a 1x1 layer stays near; AVX2's vectors are half as long; 20 outputs are a panel and a part of one
    row = {"kernel": "dense_f32_2x3x16_avx2_silu", "taps": 2 * 64, "shape": "2x20x4x6", "op": "conv"}
    found = counted(row, {"pixels": 48}, "avx2", {})
    assert found["flops"] == 2 * 32 * 64 * 48 and found["loaded"] == {"16 KiB": 32 * 128 * (8 * 2 + 48)}


def test_counting_of_winograds_products():
    # 14x14 outputs are 16 tiles of 4x4: 36 products for each, of 8 channels and 32 outputs.
    products = 16 * 36 * 8 * 32
    row = {"kernel": "winograd_f32_4x4x32_avx512", "taps": 72, "shape": "1x32x14x14", "op": "conv"}
    found = counted({**row, "multiply_adds": products}, {"pixels": 196}, "avx512", {})
    assert found["flops"] == 2 * products
    # for each point and channel a broadcast a tile, and two vectors of weights for 14 tiles
    assert found["loaded"] == {"16 KiB": pytest.approx(64 * 36 * 8 * (16 + 2 * 16 / 14))}


def test_counting_of_products_of_frequencies():
    # 1024 x 1024 in blocks of 16: 64 x 64 blocks, each with 16 weights, 2 real and 7 complex products.
    row = {"kernel": "circulant_f32_16x1_avx512_relu", "taps": 65536, "shape": "2x1024", "op": "linear"}
    found = counted({**row, "multiply_adds": 2 * 64 * 64 * 30}, {"pixels": 2}, "avx512", {})
    assert found["flops"] == 2 * 2 * 64 * 64 * 30
    assert sum(found["loaded"].values()) == 64 * (2 * 65536 / 16 + 2 * 65536 / 16)


def test_counting_of_slots():
    # 100 slots of 16 weights with 5 bits each, for 4 samples in two tiles; every sample loads both halves of a window.
    row = {"kernel": "balanced_f32_32x2_avx512", "taps": 100, "shape": "4x64", "op": "linear"}
    found = counted(row, {"pixels": 4}, "avx512", {})
    assert found["flops"] == 2 * 16 * 100 * 4
    assert sum(found["loaded"].values()) == pytest.approx(64 * (2 * 100 * (1 + 5 / 32) + 100 * 4 * 2))


def test_counting_of_depthwise_layers():
    row = {"kernel": "depthwise_f32_avx512", "taps": 6 * 9, "shape": "1x6x16x20", "op": "conv"}
    fields = {"size": [32, 40, 16, 20], "kernel": [3, 3], "stride": 2}
    found = counted(row, {"pixels": 320}, "avx512", fields)
    assert found["flops"] == 2 * 54 * 320
    # 3 vectors of each of 32 rows are laid out; 2 x 2 tiles of 8 rows load 17 rows for each of 3 columns, and 9 weights
    assert found["loaded"] == {"1 MiB": 64 * 6 * 32 * 3, "16 KiB": 64 * 6 * 2 * 2 * (3 * 17 + 9)}
    # AVX2: tiles of 4 rows; kernels of other sizes row by row
    found = counted({**row, "kernel": "depthwise_f32_avx2_silu"}, {"pixels": 320}, "avx2", fields)
    assert found["loaded"] == {"1 MiB": 32 * 6 * 32 * 5, "16 KiB": 32 * 6 * 4 * 3 * (3 * 9 + 9)}
    found = counted({**row, "taps": 6 * 7}, {"pixels": 320}, "avx512", {**fields, "kernel": [1, 7]})
    assert found["loaded"] == {"1 MiB": 64 * 6 * 31 * 3, "16 KiB": 64 * 6 * 16 * 2 * (7 + 7)}


def test_every_layer_is_bound_by_something_that_it_does():
    layers_of = [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers_of, nn.Flatten(), nn.Linear(16 * 64, 8))
    engine = openwork.compile(model.eval(), torch.randn(1, 8, 32, 32), threads=1, tune="off")
    found = {row["kernel"].split("_")[0]: row for row in layers(engine, repeats=3)}
    assert {"depthwise", "rows", "max"} <= found.keys() and found.keys() & {"dense", "taps"}
    for kernel, row in found.items():
        moves = kernel in ("max", "copy", "clear")
        assert (row["bound"] == "moves data") == moves and (row["limit_us"] is None) == moves
        assert moves or 0 < row["limit_us"] == max(row["limits_us"].values())
