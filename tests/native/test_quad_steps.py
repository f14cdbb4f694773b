"""Steps on quads beside the convolution give NumPy's bits on every instruction set, and write nothing else."""

import math

import native_steps as steps
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_steps import quad_steps, quads
from native_steps.strategies import byte_bounds, depthwise_windows, grids

from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", _native.isas())
many = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def same(case, isa, wanted, threads=1):
    np.testing.assert_array_equal(quads.words(case, case.run(isa, threads)), wanted)


def arrived(case, target, wanted, isa, threads):
    """Words [quads, H, W] lie in the slabs of the target, and nothing else was written."""
    expected = case.arena.copy()
    target.fill(expected, wanted.view(np.float32))
    same(case, isa, expected.view(np.int32), threads)


# ---- depthwise convolution ----


windows = depthwise_windows([(3, 3), (5, 5), (7, 7), (3, 3), (5, 5), (15, 15)], batch=2)


@every_isa
@many
@given(
    seed=seeds,
    window=windows,
    signed=st.booleans(),
    bounds=byte_bounds,
    threads=st.integers(1, 3),
)
def test_depthwise(isa, seed, window, signed, bounds, threads):
    case = steps.quad_depthwise(seed, **window, signed=signed, bounds=bounds)
    same(case, isa, quad_steps.depthwise_words(case), threads)


@every_isa
@many
@given(seed=seeds, window=windows, count=st.tuples(st.integers(0, 4), st.integers(0, 4)), signed=st.booleans())
def test_depthwise_reads_rows_from_whatever_slab_they_lie_in(isa, seed, window, count, signed):
    window["shape"] = window["shape"][1:]
    arrived(*steps.slab_quad_depthwise(seed, **window, count=count, signed=signed), isa, 2)


@every_isa
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7)])
def test_depthwise_with_every_number_of_rows_in_a_tile(isa, kernel, stride):
    for rows in (*range(1, 10), 17):
        shape, before = (1, 1, rows * stride, 9), tuple(k // 2 for k in kernel)
        case = steps.quad_depthwise(rows, shape, (rows, 9), kernel, stride, before, signed=bool(rows % 2))
        same(case, isa, quad_steps.depthwise_words(case))


@every_isa
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5)])
def test_depthwise_on_narrow_images_whose_rows_share_vectors(isa, kernel):
    for width in range(1, 12):
        for rows, before in ((1, 1), (7, 0), (8, 1), (7, 2), (19, 1), (66, 1)):
            size = (rows, width)
            case = steps.quad_depthwise(rows, (1, 3, *size), size, kernel, 1, (before, before), signed=bool(width % 2))
            same(case, isa, quad_steps.depthwise_words(case))


@every_isa
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_on_wide_images_in_strips_and_tall_ones_in_blocks(isa, stride):
    for seed, size in enumerate(((9, 300), (90, 17))):
        out = tuple(-(-n // stride) for n in size)
        for kernel in ((3, 3), (15, 15)):
            case = steps.quad_depthwise(seed, (1, 2, *size), out, kernel, stride, (kernel[0] // 2, 1), signed=True)
            same(case, isa, quad_steps.depthwise_words(case))


@every_isa
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_sums_of_extreme_bytes_do_not_saturate(isa, signed, stride):
    """Sums that an instruction for pairs of bytes would cut at 16 bits."""
    for x, weight in ((255, 127), (255, -128), (128, -128), (128, 127)):
        case = steps.quad_depthwise(shape=(1, 1, 9, 20), out=(9 // stride, 20 // stride), stride=stride, signed=signed)
        case.arena.view(np.uint8)[:] = x
        a = case.arguments
        case = case.changed(
            weight=np.full_like(a["weight"], weight),
            scale=np.full(4, 2.0**-12, np.float32),
            bias=np.zeros(4, np.float32),
            lo=-127,
            hi=127,
        )
        same(case, isa, quad_steps.depthwise_words(case))


@every_isa
def test_depthwise_results_beyond_all_integers_are_the_bounds(isa):
    """Also those of scales and biases that are not finite; NaN counts as the lower bound."""
    case = steps.quad_depthwise(shape=(1, 3, 5, 9), out=(5, 9), stride=1)
    odd = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, 3e9, -3e9, 0.0, 1.0, 2.0, 3.0, 4.0], np.float32)
    for bounds in ((0, 255), (3, 200), (-127, 127)):
        for change in ({"bias": odd}, {"scale": odd}):
            changed = case.changed(lo=bounds[0], hi=bounds[1], **change)
            with np.errstate(all="ignore"):
                same(changed, isa, quad_steps.depthwise_words(changed))


# ---- pooling ----


@every_isa
@many
@given(
    seed=seeds,
    size=st.tuples(st.integers(1, 12), st.integers(1, 70)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    signed=st.booleans(),
    threads=st.integers(1, 3),
)
def test_max_pooling(isa, seed, size, kernel, stride, dilation, signed, threads):
    padding = tuple(k // 2 for k in kernel)
    spans = [n + 2 * p - (k - 1) * d for n, p, k, d in zip(size, padding, kernel, dilation, strict=True)]
    if min(spans) < 1:
        return
    out = tuple((span - 1) // step + 1 for span, step in zip(spans, stride, strict=True))
    case = steps.quad_pool(seed, (2, 2, *size), out, kernel, stride, padding, dilation, signed)
    same(case, isa, quad_steps.pooled(case), threads)


@every_isa
def test_max_pooling_of_windows_wider_than_a_line(isa):
    case = steps.quad_pool(0, (1, 1, 2, 1500), (1, 300), (2, 1201), (1, 1), (0, 0), (1, 1), True)
    same(case, isa, quad_steps.pooled(case))


@every_isa
@many
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 3), st.integers(3, 12), st.integers(3, 20)),
    kernel=st.integers(2, 3),
    slabs=st.integers(1, 3),
    signed=st.booleans(),
)
def test_max_pooling_of_slabs(isa, seed, shape, kernel, slabs, signed):
    arrived(*steps.slab_quad_pool(seed, shape, kernel, slabs, signed), isa, 2)


@every_isa
@many
@given(
    seed=seeds,
    channels=st.integers(1, 9),
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    signed=st.booleans(),
    slabs=st.integers(0, 3),
    threads=st.integers(1, 2),
)
def test_means_are_exact_sums_times_a_scale(isa, seed, channels, batch, size, signed, slabs, threads):
    case, wanted = steps.quad_mean(seed, channels, 1 if slabs else batch, size, signed, slabs)
    expected = quads.words(case).copy()
    for n, row in enumerate(wanted):
        expected[case.arguments["y"] + n * case.arguments["y_stride"] :][:channels] = row
    same(case, isa, expected, threads)


@every_isa
@pytest.mark.parametrize("signed", [False, True])
def test_means_of_large_images_do_not_wrap_around(isa, signed):
    """More than 256 vectors of the largest bytes."""
    case, _ = steps.quad_mean(channels=4, batch=1, size=(3, 3000), signed=signed)
    for byte, value in ((255, -1 if signed else 255), (128, -128 if signed else 128), (127, 127)):
        arena = case.arena.copy()
        arena[: case.arguments["y"]].view(np.uint8)[:] = byte
        y = case.run(isa, arena=arena)[case.arguments["y"] :][:4]
        positions = 2 * case.arguments["x"]["pitch"] + 3000
        np.testing.assert_array_equal(y, np.float32(value * positions) * np.float32(case.arguments["scale"]))


# ---- fully connected layers ----


@every_isa
@many
@given(
    seed=seeds,
    samples=st.integers(1, 6),
    batch=st.integers(1, 8),
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=5).map(tuple),
    features=st.integers(1, 130),
    row_chunks=st.integers(1, 4),
    x_bounds=st.sampled_from([(0, 255), (-127, 127), (-128, 127), (0, 15), (-7, 7)]),
    inverse=st.sampled_from([1.0, 0.37, -2.0]),
    clamp=st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (-3.5, 6.0)]),
    dense=st.booleans(),
    by_token=st.booleans(),
    width=st.sampled_from([1, 2, 4, 8, 16]),
    threads=st.integers(1, 3),
)
def test_rows(isa, threads, **options):
    if options["by_token"]:
        options["x_bounds"] = (0, min(127, options["x_bounds"][1]))
    case = steps.quad_rows(**options)
    same(case, isa, quad_steps.rows_words(case), threads)


@every_isa
def test_rows_with_activation(isa):
    case = steps.quad_rows(row_chunks=2, batch=5)
    plain, together = (quads.words(case, c.run(isa, 2)) for c in (case, case.changed(act=["clamp", -1.5, 2.0])))
    a = case.arguments
    for n in range(a["batch"]):
        y = plain[a["y"] + n * a["y_stride"] :][: len(a["bias"])].view(np.float32)
        np.clip(y, np.float32(-1.5), np.float32(2.0), out=y)
    np.testing.assert_array_equal(together, plain)


@every_isa
@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_rows_of_many_features_have_long_lists(isa, width):
    """Columns beyond 16 bits, and panels of many whole vectors."""
    for features, counts in ((400_000, (40, 3, 17)), (900, (225, 100))):
        case = steps.quad_rows(7, 2, 3, counts, features, width=width, x_bounds=(-127, 127))
        same(case, isa, quad_steps.rows_words(case), 2)


# ---- one or two values ----


@every_isa
@many
@given(
    seed=seeds,
    grid=grids(height=6),
    signed=st.tuples(st.booleans(), st.booleans()),
    scale=st.sampled_from([(0.5, 0.5), (1.0, -1.0), (0.31, 1.7), (1e30, -1e30), (0.25, 1e-30)]),
    bounds=byte_bounds,
    threads=st.integers(1, 2),
)
def test_sum(isa, seed, grid, signed, scale, bounds, threads):
    case = steps.quad_sum(seed, grid, 2, signed, scale, bounds)
    with np.errstate(over="ignore"):
        same(case, isa, quad_steps.pointwise_words(case), threads)


@every_isa
@many
@given(seed=seeds, grid=grids(height=6), in_place=st.booleans(), threads=st.integers(1, 2))
def test_table(isa, seed, grid, in_place, threads):
    case = steps.quad_table(seed, grid, 2, in_place)
    same(case, isa, quad_steps.pointwise_words(case), threads)


@every_isa
@pytest.mark.parametrize("case", [steps.quad_sum, steps.quad_table])
def test_slabs_are_steps_of_their_own(isa, case):
    cut = steps.cut(case(grid=(1, 40, 7, 5, 6)), 2, 3)
    cut.arena[:] = quad_steps.arena_at_random(len(cut.arena), np.random.default_rng(1))
    wanted = steps.each_slab(cut, quad_steps.pointwise_words)
    for threads in (1, 3):
        same(cut, isa, wanted, threads)


# ---- what is wrong ----

NO_BYTES = np.zeros(0, np.int8)
WRONG = [
    (steps.quad_pool, "signed is missing", {"signed": ...}),
    (steps.quad_pool, "sizes must be positive", {"kernel": [-1, 2]}),
    (steps.quad_depthwise, "four kernels for each plane", {"weight": np.zeros(27 * 4 - 1, np.int8)}),
    (steps.quad_depthwise, "four kernels for each plane", {"weight": NO_BYTES}),
    (steps.quad_depthwise, "four kernels for each plane", {"kernel": [3, 4]}),
    (steps.quad_depthwise, "not an array of int8", {"weight": np.zeros(108, np.float32)}),
    (steps.quad_depthwise, "four scales and biases", {"scale": np.zeros(3, np.float32)}),
    (steps.quad_depthwise, "four scales and biases", {"bias": np.zeros(13, np.float32)}),
    (steps.quad_depthwise, "kernel is too large", {"kernel": [3, 16]}),
    (steps.quad_depthwise, "stride must be 1 or 2", {"stride": 3}),
    (steps.quad_depthwise, "whole numbers", {"hi": 2.5}),
    (steps.quad_depthwise, "0 to 255 or -128 to 127", {"lo": -1, "hi": 128}),
    (steps.quad_depthwise, "must not cross", {"lo": 9, "hi": 8}),
    (steps.quad_depthwise, "lo is not a", {"lo": None}),
    (lambda: steps.quad_mean()[0], "a plane of quads for every four channels", {"channels": 9}),
    (lambda: steps.quad_mean()[0], "a plane of quads for every four channels", {"channels": 4}),
    (lambda: steps.quad_mean()[0], "a plane of quads for every four channels", {"channels": -7}),
    (lambda: steps.quad_mean()[0], "output lies outside", {"channels": 2**62}),
    (lambda: steps.quad_mean()[0], "row and column", {"h": 0}),
    (lambda: steps.quad_mean()[0], "outside its buffer", {"h": 2**31 - 1}),
    (steps.quad_rows, "a quad of values for each output", {"value": np.zeros(16 * 36 - 4, np.int8)}),
    (steps.quad_rows, "does not hold whole quads", {"value": np.zeros(16 * 36 + 3, np.int8)}),
    (steps.quad_rows, "not an array of int8", {"value": np.zeros(16 * 36, np.uint8)}),
    (steps.quad_rows, "whole blocks", {"bias": np.zeros(33, np.float32)}),
    (steps.quad_rows, "one scale and one bias", {"bias": np.zeros(32, np.float32)}),
    (steps.quad_rows, "one scale and one bias", {"scale": np.zeros(32, np.float32)}),
    (steps.quad_rows, "column lies outside", {"index": steps.i32([0] * 8, 10)}),
    (steps.quad_rows, "column lies outside", {"index": steps.i32([0] * 8, -1)}),
    (steps.quad_rows, "column lies outside", {"features": 36, "index": steps.i32([0] * 8, 9)}),
    (steps.quad_rows, "features", {"features": 0}),
    (steps.quad_rows, "input lies outside", {"features": 2**30 - 1}),
    (steps.quad_rows, "zero must lie", {"x_lo": 1}),
    (steps.quad_rows, "0 to 255 or -128 to 127", {"x_lo": -1}),
    (steps.quad_rows, "a scale must be finite", {"inverse": 1e39}),
    (steps.quad_rows, "need bounds -k to k", {"by_token": True}),
    (steps.quad_rows, "power of two, 1 to 16", {"width": 32}),
    (steps.quad_rows, "power of two, 1 to 16", {"width": 3}),
    (steps.quad_rows, "power of two, 1 to 16", {"width": 0}),
    (steps.quad_rows, "a quad of values for each output", {"width": 8, "start": steps.i32(0, 7, 7, 9, 9, 9, 9)}),
    (steps.quad_rows, "need bounds -k to k", {"by_token": True, "x_lo": 0, "x_hi": 0}),
    (steps.quad_rows, "samples in a block", {"samples": 7}),
    (steps.quad_rows, "begin with 0", {"start": steps.i32(1, 7, 7, 9)}),
    (lambda: steps.quad_rows(dense=True), "blocks are out of range", {"columns": 2**31 - 1}),
    (lambda: steps.quad_rows(dense=True), "column lies outside", {"features": 36}),
    (steps.quad_sum, "as many planes of both operands", {"a": steps.i32(0)}),
    (steps.quad_sum, "as many planes of both operands", {"b": steps.i32(0)}),
    (steps.quad_sum, "a plane lies outside the arena", {"b": steps.i32(0, 0, 10**6)}),
    (steps.quad_sum, "a plane lies outside the arena", {"y": steps.i32(0, -1, 0)}),
    (steps.quad_sum, "a scale must be finite", {"scale_a": 1e39}),
    (steps.quad_sum, "must not cross", {"lo": 9, "hi": 8}),
    (steps.quad_table, "table is missing", {"table": ...}),
    (steps.quad_table, "a table holds 256 bytes", {"table": np.zeros(255, np.uint8)}),
    (steps.quad_table, "not an array of uint8", {"table": np.zeros(256, np.int8)}),
    (steps.quad_table, "as many output as input planes", {"x": steps.i32(0)}),
    (steps.quad_table, "a plane lies outside the arena", {"x": steps.i32(0, 0, 10**6)}),
    (steps.quad_table, "at least one plane", {"x": steps.i32(), "y": steps.i32()}),
]


@pytest.mark.parametrize(("case", "message", "changes"), WRONG)
def test_what_is_wrong_is_said(case, message, changes):
    case().run("base")
    with pytest.raises(ValueError, match=message):
        case().changed(**changes).run("base")


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (steps.quad_pool, "max_pool_i8_"),
        (lambda: steps.quad_mean()[0], "mean_i8_"),
        (steps.quad_depthwise, "depthwise_i8_"),
        (steps.quad_rows, "rows_i8_16x2_"),
        (steps.quad_sum, "sum_i8_"),
        (steps.quad_table, "table_i8_"),
    ],
)
def test_kernels_are_named(case, name):
    for isa in _native.isas():
        program = _native.Program(len(case().arena), [], 1, isa)
        case().add(program)
        assert program.kernel_name(0) == name + isa


@every_isa
def test_a_wrong_bit_is_seen(isa):
    case = steps.quad_depthwise()
    wanted = quad_steps.depthwise_words(case)
    wanted[case.arguments["y"]["planes"][0]] ^= 1 << 16
    with pytest.raises(AssertionError):
        same(case, isa, wanted)
