"""Slimmed networks: smaller, with the same outputs, and nothing left out silently."""

from collections.abc import Callable

import pytest
import torch
from slims import Calls, X, lively, row, shapes, slimmed, without
from torch import Tensor, nn
from torch.nn import functional as F

from openwork.constraints.block import Block
from openwork.constraints.filter import Filter
from openwork.constraints.nm import NM
from openwork.errors import ModelError, ShapeError, UsageError
from openwork.recipes.recipe import Recipe, Rule
from openwork.slimming.slim import slim

# ---- every pitfall of the method's card ----


def test_a_zero_filter_before_batch_norm_is_a_constant_and_not_zero() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 4, 3)))
    without(model[0], [1, 4])
    found = slimmed(model)
    assert shapes(found) == [(4, 3, 3, 3), (4, 4, 3, 3)] and found.model[1].num_features == 4
    assert row(found, "0").removed == ((2, "its value is known; biases hold it"),)
    assert not torch.equal(found.model[3].bias, model[3].bias), "the constant belongs into the bias"


def test_a_batch_norm_without_a_factor_is_a_constant_whatever_it_reads() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    with torch.no_grad():
        model[1].weight[[0, 5]] = 0
    assert shapes(slimmed(model)) == [(4, 3, 3, 3), (4, 4, 1, 1)]


def test_a_constant_behind_a_border_of_zeros_is_no_bias_but_one_channel_stands_for_all() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Sigmoid(), nn.Conv2d(6, 4, 3, padding=1)))
    without(model[0], [0, 2, 3])
    found = slimmed(model)
    assert shapes(found) == [(4, 3, 3, 3), (4, 4, 3, 3)]
    assert row(found, "0").removed[0][0] == 2
    assert row(found, "0").left == ((1, "its value is known, and stands for all such at the border of 3"),)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular"])
def test_a_constant_behind_a_border_of_itself_is_a_bias(padding: str) -> None:
    second = nn.Conv2d(6, 4, 3, padding=1, padding_mode=padding)
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sigmoid(), second))
    without(model[0], [0, 2, 3])
    assert shapes(slimmed(model)) == [(3, 3, 3, 3), (4, 3, 3, 3)]


@pytest.mark.parametrize(("bias", "left"), [(-0.5, 4), (0.0, 4), (0.5, 5)])
def test_a_zero_filter_with_a_bias_is_zero_only_after_an_activation_that_cuts_it(bias: float, left: int) -> None:
    """Behind a border; of two channels with a positive bias one stands for both."""
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)))
    without(model[0], [1, 3])
    with torch.no_grad():
        model[0].bias[[1, 3]] = bias
    assert shapes(slimmed(model)) == [(left, 3, 3, 3), (4, left, 3, 3)]


@pytest.mark.parametrize(
    "flat",
    [
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x, start_dim=1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(x.shape[0], -1),
    ],
)
def test_flattening_gives_a_channel_as_many_columns_as_it_has_pixels(flat: Callable[[Tensor], Tensor]) -> None:
    model = lively(Calls(lambda x, conv, fc: fc(flat(conv(x))), nn.Conv2d(3, 6, 3), nn.Linear(6 * 49, 5)))
    without(model.layers[0], [0, 2])
    without(model.layers[1], (), range(5 * 49, 6 * 49))
    found = slimmed(model)
    assert shapes(found) == [(3, 3, 3, 3), (5, 3 * 49)]
    assert sorted(row(found, "layers.0").removed) == [
        (1, "nothing reads it"), (2, "its value is known; biases hold it")
    ]  # fmt: skip


def test_flattening_as_a_module() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6 * 49, 5)))
    without(model[0], [0, 2])
    assert shapes(slimmed(model)) == [(4, 3, 3, 3), (5, 4 * 49)]


def test_one_column_of_a_channel_keeps_all_of_it() -> None:
    model = lively(Calls(lambda x, conv, fc: fc(conv(x).flatten(1)), nn.Conv2d(3, 6, 3), nn.Linear(6 * 49, 5)))
    without(model.layers[1], (), range(5 * 49, 6 * 49 - 1))
    assert shapes(slimmed(model)) == [(6, 3, 3, 3), (5, 6 * 49)]


@pytest.mark.parametrize(("counted", "left"), [(True, 6), (False, 4)])
def test_an_average_over_a_border_of_zeros_is_no_constant(counted: bool, left: int) -> None:
    pool = nn.AvgPool2d(3, padding=1, count_include_pad=counted)
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sigmoid(), pool, nn.Conv2d(6, 4, 1)))
    without(model[0], [0, 2])
    assert shapes(slimmed(model))[0] == (left, 3, 3, 3)
    function = Calls(
        lambda x, a, b: b(F.avg_pool2d(a(x).sigmoid(), 3, padding=1, count_include_pad=counted)), model[0], model[3]
    )
    assert shapes(slimmed(function))[0] == (left, 3, 3, 3)


def test_rows_of_the_classifier_and_channels_of_the_image_stay_and_it_is_said() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)))
    without(model[0], (), [1])
    without(model[2], [0, 3])
    found = slimmed(model)
    assert shapes(found) == [(6, 3, 3, 3), (4, 6, 3, 3)]
    assert row(found, "0").left == ((1, "it is an input of the model"),)
    assert row(found, "2").left == ((2, "it is an output of the model"),)


def inverted(padding: int) -> nn.Module:
    """Of MobileNetV2: 1x1 up, depthwise, 1x1 down."""
    return lively(
        nn.Sequential(
            *(nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
            *(nn.Conv2d(6, 6, 3, padding=padding, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
            *(nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4)),
        )
    )


def test_a_depthwise_channel_goes_with_what_it_reads_and_writes() -> None:
    model = inverted(padding=1)
    without(model[3], [2])  # its output is a constant: the filter before it goes
    without(model[6], (), [4])  # nobody reads it: both filters before it go
    found = slimmed(model)
    assert shapes(found) == [(4, 3, 1, 1), (4, 1, 3, 3), (4, 4, 1, 1)]
    assert (found.model[3].groups, found.model[3].in_channels) == (4, 4)


@pytest.mark.parametrize(("padding", "left"), [(0, 4), (1, 6)])
def test_a_constant_through_a_depthwise_filter_is_one_only_without_a_border(padding: int, left: int) -> None:
    model = inverted(padding)
    without(model[0], [0, 1])
    with torch.no_grad():
        model[1].running_mean[:2], model[1].bias[:2], model[1].weight[:2] = -1, 1, 1
    found = slimmed(model)
    assert shapes(found)[0] == (left, 3, 1, 1)
    if padding:
        assert row(found, "0").left == ((2, "read with 3 by 6"),)


def test_a_group_of_a_grouped_convolution_goes_as_a_whole_or_stays() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 9, 3, groups=3), nn.Conv2d(9, 4, 1)))
    without(model[3], (), [0, 1, 2, 3, 4])
    found = slimmed(model)
    assert shapes(found) == [(4, 3, 3, 3), (6, 2, 3, 3), (4, 6, 1, 1)]
    assert (found.model[2].groups, found.model[2].in_channels, found.model[2].out_channels) == (2, 4, 6)


def test_a_grouped_convolution_that_is_down_to_one_group_is_an_ordinary_one() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 4, 1)))
    without(model[3], (), [0, 1, 2, 4])
    found = slimmed(model)
    assert shapes(found) == [(3, 3, 3, 3), (2, 3, 3, 3), (4, 2, 1, 1)]
    assert row(found, "2").before == (6, 3, 3, 3) and [count for count, _ in row(found, "2").removed] == [3, 1]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.last = (
            nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        )  # fmt: skip
        self.bn = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.last(torch.relu(x + self.bn(self.two(torch.relu(self.one(x))))))


def test_a_filter_before_an_addition_goes_only_with_its_whole_group() -> None:
    model = lively(Residual())
    without(model.two, [1, 2])
    with torch.no_grad():
        model.stem.weight[2], model.stem.bias[2] = 0, -1
    found = slimmed(model)
    assert row(found, "stem").after == (5, 3, 3, 3) and row(found, "two").after == (5, 8, 3, 3)
    assert row(found, "two").left == ((1, "read with stem by one, last"),)
    model.last.weight.data[:, 3] = model.one.weight.data[:, 3] = 0  # all readers agree
    assert row(slimmed(model), "two").after == (4, 8, 3, 3)


def test_a_constant_branch_shrinks_to_one_empty_channel() -> None:
    model = lively(Residual())
    without(model.two, range(6))
    found = slimmed(model)
    assert row(found, "one").after == (1, 6, 3, 3) and row(found, "two").after == (6, 1, 3, 3)
    assert not found.model.one.weight.any()
    assert (1, "a layer keeps one channel") in row(found, "one").left


# ---- other ways of channels ----


def test_cascade_down_a_chain() -> None:
    """The only reader of a channel falls, and with it all that led there."""
    model = lively(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)))
    without(model[4], (), [0])
    with torch.no_grad():
        model[2].weight[1:, 3] = 0  # only output 0 reads it
    assert shapes(slimmed(model, torch.randn(4, 3))) == [(5, 3), (4, 5), (2, 4)]


def test_concatenation_finds_the_places_of_its_parts() -> None:
    def function(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
        return c(torch.cat([a(x), x, b(x).relu()], dim=1))

    model = lively(Calls(function, nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(12, 2, 3)))
    without(model.layers[0], [1])
    without(model.layers[2], (), [0, 4, 8, 11])
    found = slimmed(model)
    assert shapes(found) == [(2, 3, 1, 1), (3, 3, 1, 1), (2, 8, 3, 3)]
    assert (1, "it is an input of the model") in row(found, "layers.2").left


def test_transposed_convolutions_and_upsampling() -> None:
    up = nn.ConvTranspose2d(6, 5, 2, stride=2, bias=False)
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sigmoid(), up, nn.Upsample(scale_factor=2), nn.Conv2d(5, 2, 1)))
    without(model[0], [0, 1, 2])
    without(model[4], (), [3])
    found = slimmed(model)
    assert shapes(found) == [(4, 3, 3, 3), (4, 4, 2, 2), (2, 4, 1, 1)]


def test_a_gate_takes_part_in_the_decision() -> None:
    """Squeeze and excitation: a channel goes if nobody reads it, neither after the gate nor for it."""

    def function(x: Tensor, a: nn.Module, down: nn.Module, up: nn.Module, b: nn.Module) -> Tensor:
        x = a(x).relu()
        gate = up(down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return b(x * gate)

    layers = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3, padding=1)
    model = lively(Calls(function, *layers))
    without(model.layers[3], (), [0, 1])
    without(model.layers[1], (), [1])
    with torch.no_grad():
        model.layers[0].weight[5], model.layers[0].bias[5] = 0, -1
    assert shapes(slimmed(model)) == [(4, 3, 3, 3), (3, 4, 1, 1), (4, 3, 1, 1), (4, 4, 3, 3)]


def test_tokens_have_their_features_last() -> None:
    model = lively(nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 5), nn.LayerNorm(5), nn.Linear(5, 2)))
    without(model[0], [2])
    without(model[2], (), [7])
    without(model[4], (), [1])
    found = slimmed(model, torch.randn(2, 4, 5))
    assert shapes(found)[:3] == [(6, 5), (5, 6), (2, 5)]
    assert row(found, "4").left == ((1, "3 (LayerNorm) is not known to keep channels apart"),)


def test_pooling_along_features_mixes_them() -> None:
    called = Calls(lambda x, a, b: b(F.avg_pool1d(a(x).relu(), 2)), nn.Linear(5, 8), nn.Linear(4, 3))
    for model in (called, nn.Sequential(nn.Linear(5, 8), nn.MaxPool1d(2), nn.Linear(4, 3))):
        first, name = (called.layers[0], "layers.0") if model is called else (model[0], "0")
        lively(model)
        without(first, [2], bias=True)
        found = slimmed(model, torch.randn(2, 4, 5))
        assert shapes(found) == [(8, 5), (3, 4)]
        assert "not known to keep channels apart" in row(found, name).left[0][1]


def test_batch_norm_of_tokens_is_over_another_axis_than_features() -> None:
    model = lively(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    without(model[0], [2], bias=True)
    assert shapes(slimmed(model, torch.randn(2, 8, 5)))[0] == (8, 5)
    assert shapes(slimmed(model, torch.randn(2, 5)))[0] == (7, 5)


def test_a_layer_without_a_bias_gets_one_where_no_batch_norm_follows() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 4, 3, bias=False), nn.ReLU()))
    without(model[0], [0])
    assert slimmed(model).model[2].bias is not None


class Same(nn.Conv2d):
    """Pads by itself, and calls the function."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (side % 2 for side in x.shape[2:])
        return F.conv2d(x, self.weight, self.bias, self.stride, (rows, columns), 1, self.groups)


def test_layers_that_call_functions_are_layers_too() -> None:
    model = lively(nn.Sequential(Same(3, 6, 3), nn.Sigmoid(), Same(6, 6, 3, groups=6), nn.Sigmoid(), Same(6, 4, 3)))
    without(model[0], [0])
    without(model[4], (), [2])
    assert shapes(slimmed(model, X[:, :, :8, :8])) == [(4, 3, 3, 3), (4, 1, 3, 3), (4, 4, 3, 3)]
    assert shapes(slimmed(model)) == [(5, 3, 3, 3), (5, 1, 3, 3), (4, 5, 3, 3)], "here there is a border"
    fixed = Calls(lambda x, a, b: F.linear(a(x).sigmoid(), b.weight, None), nn.Linear(3, 6), nn.Linear(6, 2))
    without(lively(fixed).layers[0], [0])
    assert shapes(slimmed(fixed, torch.randn(4, 3)))[0] == (6, 3), "there is no place for its constant"


def test_control_flow_over_shapes_is_followed() -> None:
    def function(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        x = a(x)
        rows = x.shape[2] % 2
        if rows:
            x = F.pad(x, (0, 0, 0, rows))
        return b(x[:, :, ::2])

    model = lively(Calls(function, nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)))
    without(model.layers[0], [0], bias=True)
    without(model.layers[1], (), [3])
    assert shapes(slimmed(model)) == [(4, 3, 3, 3), (4, 4, 1, 1)]


# ---- what is left alone, and said ----


def rearranged(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (rearranged, r"counts its channels"),
        (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x[:, :, :4, :4], 2), 2), "pixel_shuffle is not known"),
        (lambda x: torch.cat(x.chunk(2, dim=1), dim=1), "chunk reads it"),
        (lambda x: x.softmax(1), "softmax is not known to keep channels apart"),
        (lambda x: x / x.shape[1], "counts its channels"),
        (lambda x: x.reshape(-1, 8, 49).reshape(-1, 8, 7, 7), "reshape is not known to keep channels apart"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:-1], "pad is not known to keep channels apart"),
        (lambda x: x + torch.ones(1, 8, 1, 1), "a tensor of forward"),
    ],
)
def test_what_is_not_understood_stays_and_is_named(between: Callable[[Tensor], Tensor], why: str) -> None:
    model = lively(Calls(lambda x, a, b: b(between(a(x))), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)))
    without(model.layers[0], [0], bias=True)
    found = slimmed(model)
    assert shapes(found) == [(8, 3, 3, 3), (4, 8, 1, 1)]
    ((count, said),) = row(found, "layers.0").left
    assert count == 1 and why in said


def test_layers_that_are_not_looked_into_are_named() -> None:
    shared = nn.Linear(4, 4)
    model = lively(Calls(lambda x, a, b: F.linear(b(a(a(x)).relu()), a.weight), shared, nn.Linear(4, 4)))
    found = slimmed(model, torch.randn(3, 4))
    assert row(found, "layers.0").note == "layers.0 is used in several places"
    tied = lively(Calls(lambda x, a, b: F.linear(b(a(x).relu()), a.weight), shared, nn.Linear(4, 4)))
    assert row(slimmed(tied, torch.randn(3, 4)), "layers.0").note == "layers.0 is used in several places"
    recurrent = lively(Calls(lambda x, rnn, fc: fc(rnn(x)[0]), nn.GRU(4, 6, batch_first=True), nn.Linear(6, 2)))
    found = slimmed(recurrent, torch.randn(3, 5, 4))
    assert "layers.0 (GRU)" in row(found, "layers.0.weight_hh_l0").note
    assert "left: layers.0 (GRU)" in str(found)


def test_a_value_that_is_overwritten_stays() -> None:
    def function(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        x = a(x)
        return b(x + F.relu_(x))

    model = lively(Calls(function, nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)))
    without(model.layers[0], [0])
    assert shapes(slimmed(model))[0] == (6, 3, 3, 3)


# ---- options ----


@pytest.mark.parametrize(("multiple", "left"), [(1, 9), (4, 12), (8, 16), (16, 16), (32, 20)])
def test_counts_are_rounded_up_to_what_the_engine_likes(multiple: int, left: int) -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 4, 3)))
    without(model[0], range(11), bias=True)
    found = slimmed(model, multiple=multiple)
    assert shapes(found) == [(left, 3, 3, 3), (4, left, 3, 3)]
    if left > 9:
        assert row(found, "0").left == ((left - 9, f"channels come in multiples of {multiple}"),)


def test_layers_to_keep_stay_as_they_are() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 1)))
    without(model[0], [0])
    without(model[2], [0])
    found = slimmed(model, keep=["0"])
    assert shapes(found) == [(6, 3, 3, 3), (4, 6, 3, 3), (4, 4, 1, 1)]
    assert row(found, "0").left == ((1, "0 is to be kept"),)


def ruled(constraint: object) -> Recipe:
    return Recipe(rules=[Rule(targets="2", constraint=constraint)])


def test_a_layout_that_slimming_would_break_is_named_with_the_remedy() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    blocks, pairs = Block(shape=(4, 1), sparsity=0.5), NM(n=2, m=4)
    model[2].weight.data = blocks.project(model[2].weight)
    without(model[4], (), [2])
    with pytest.raises(ShapeError, match=r"layer '2' from 8x8x3x3 to 7x8x3x3 .*Block.*keep=\['2'\]"):
        slim(model, X, recipe=ruled(blocks))
    assert slim(model, X, recipe=ruled(blocks), keep=["2"]).weights_after == sum(
        p.numel() for n, p in model.named_parameters() if "weight" in n
    )
    without(model[4], (), [0, 1, 3])  # a whole row of blocks
    assert row(slim(model, X, recipe=ruled(blocks)), "2").after == (4, 8, 3, 3)
    lively(model[4:], seed=3)
    without(model[4], (), [1, 2, 5, 6])  # as many, out of two
    with pytest.raises(ShapeError, match=r"'2' from 8x8x3x3 to 4x8x3x3 .* were 100% full and would be \d\d% full"):
        slim(model, X, recipe=ruled(blocks))

    model[2].weight.data = pairs.project(model[2].weight)
    without(model[0], [1], bias=True)
    with pytest.raises(ShapeError, match="NM"):
        slim(model, X, recipe=ruled(pairs))


def test_a_filter_constraint_holds_when_its_zeros_are_gone() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    model[2].weight.data = Filter(sparsity=0.5).project(model[2].weight)
    found = slimmed(model, recipe=ruled(Filter(sparsity=0.5)))
    assert row(found, "2").after == (4, 8, 3, 3)


# ---- bad input ----


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else x


class Hidden(nn.Module):
    """Its sizes stand in a Python list that tracing does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.last, self.sizes = nn.Linear(4, 4), nn.Linear(4, 4), [4]

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        return self.last(x) * (self.fc.out_features / self.sizes[0])


def test_mistakes_are_named_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"Undecided cannot be traced by torch.fx .* must move out of forward"):
        slim(Undecided(), torch.randn(2, 4))
    hidden = lively(Hidden())
    without(hidden.fc, [0])
    with pytest.raises(ModelError, match=r"tracing does not show .* name the layers in question in keep"):
        slim(hidden, torch.randn(2, 4))
    chain = lively(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    with pytest.raises(UsageError, match="multiple=0 must be at least 1"):
        slim(chain, torch.randn(2, 4), multiple=0)
    with pytest.raises(UsageError, match="unknown layer '7'"):
        slim(chain, torch.randn(2, 4), keep=["7"])
    with pytest.raises(UsageError, match="example_inputs must be a tensor"):
        slim(chain, [3])
    with pytest.raises(ModelError, match="does not run on the example inputs"):
        slim(chain, torch.randn(2, 5))
    nn.utils.parametrizations.weight_norm(chain[0])
    with pytest.raises(ModelError, match=r"0 has a parametrized or masked weight; call openwork.strip\(model\) first"):
        slim(chain, torch.randn(2, 4))
    broken = nn.Sequential(nn.Linear(4, 4))
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"'0.weight' holds NaN"):
        slim(broken, torch.randn(2, 4))


def test_training_mode_is_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[0].eval()
    found = slim(model, torch.randn(2, 4))
    assert [m.training for m in found.model] == [False, True, True] == [m.training for m in model]
