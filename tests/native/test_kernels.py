"""Every kernel of every instruction set gives what the naive reference gives; NaN and infinity go PyTorch's way."""

import itertools
import math

import native_steps as steps
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from native_steps.strategies import grids

from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", steps.FAST)
many = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)
clamps = st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0), (-math.inf, -0.5), (-1.0, 1.0)])
INF, NAN = math.inf, math.nan


def test_this_machine_has_a_fast_kernel_and_the_reference_comes_last():
    assert _native.isas()[-1] == "reference"
    assert "base" in _native.isas()


@every_isa
@many
@given(
    seed=seeds,
    mb=st.sampled_from([1, 2, 4, 8]),
    vectors=st.integers(1, 12),
    residual=st.booleans(),
    clamp=clamps,
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).map(tuple),
    grid=grids(),
    row_chunks=st.integers(1, 9),
    tile_chunks=st.integers(1, 9),
    pieces=st.integers(1, 9),
)
def test_taps(isa, **options):
    case = steps.taps(**options)
    found, wanted = case.run(isa), case.run("reference")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@every_isa
@many
@given(seed=seeds, mb=st.sampled_from([1, 2, 4, 8]), vectors=st.integers(1, 12), grid=grids())
def test_taps_store_exact_zeros_outside_the_image_and_touch_nothing_else(isa, seed, mb, vectors, grid):
    case = steps.taps(seed, mb, vectors, grid=grid)
    arena = case.arena.copy()
    arena[::7] = NAN
    found = case.run(isa, arena=arena)
    flags = steps.inside(grid)
    written = np.zeros(len(arena), bool)
    for out in case.arguments["out"]:
        stored = found[out : out + len(flags)]
        assert not stored[~flags].any()  # also not NaN
        written[out : out + len(flags)] = True
    np.testing.assert_array_equal(found[~written], arena[~written])


@every_isa
@pytest.mark.parametrize("mb", [1, 2, 4, 8])
@pytest.mark.parametrize("clamp", [(0.0, INF), (0.0, 6.0), (-INF, 1.0), (-INF, INF)])
def test_clamp_treats_nan_and_infinity_as_pytorch_does(isa, mb, clamp):
    case = steps.taps(mb=mb, counts=(1,), residual=False, grid=(1, 16, 16, 1, 16), clamp=clamp)
    values = np.array([NAN, INF, -INF, 0.0, -0.0, 7, -7, 3, 1e-40, NAN, 6, 1, 3e38, -3e38, 2, 5], np.float32)
    arena = case.arena.copy()
    at = case.arguments["planes"][0][case.arguments["index"][0]][0]
    arena[at : at + 16] = values
    ones = np.ones(mb, np.float32)
    case = case.changed(value=ones, bias=0 * ones)
    wanted = torch.clamp(torch.from_numpy(values), *clamp).numpy()
    found = case.run(isa, arena=arena)
    for out in case.arguments["out"]:
        np.testing.assert_array_equal(found[out : out + 16], wanted)
    case = steps.dense(outputs=16, columns=1, residual=False, grid=(1, 16, 16, 1, 16), clamp=clamp)
    case = case.changed(value=np.ones(16, np.float32), bias=np.zeros(16, np.float32))
    arena = case.arena.copy()
    at = case.arguments["planes"][0][0][0]
    arena[at : at + 16] = values
    found = case.run(isa, arena=arena)
    for out in case.arguments["out"]:
        np.testing.assert_array_equal(found[out : out + 16], wanted)
    case = steps.rows(width=16, counts=(1,), batch=1, clamp=clamp)
    case = case.changed(bias=np.zeros(16, np.float32), value=values)
    arena = case.arena.copy()
    arena[11 + case.arguments["index"][0]] = 1
    y = case.arguments["y"]
    np.testing.assert_array_equal(case.run(isa, arena=arena)[y : y + 16], wanted)


@every_isa
@many
@given(
    seed=seeds,
    width=st.sampled_from([16, 32]),
    step=st.integers(1, 2),
    tile=st.tuples(st.integers(1, 3), st.integers(1, 14)),
    outputs=st.integers(1, 70),
    columns=st.integers(0, 30),
    groups=st.integers(1, 3),
    residual=st.booleans(),
    clamp=clamps,
    grid=grids(),
    row_chunks=st.integers(1, 9),
    tile_chunks=st.integers(1, 9),
)
def test_dense(isa, **options):
    case = steps.dense(**options)
    found, wanted = case.run(isa), case.run("reference")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@every_isa
@many
@given(seed=seeds, tile=st.tuples(st.integers(1, 3), st.integers(1, 14)), outputs=st.integers(1, 40), grid=grids())
def test_dense_writes_its_pixels_only(isa, seed, tile, outputs, grid):
    case = steps.dense(seed, 16, 1, tile, outputs, grid=grid)
    flags = steps.inside(grid)
    written = np.zeros(len(case.arena), bool)
    flags = flags[: np.flatnonzero(flags)[-1] + 1]
    for out in case.arguments["out"]:
        written[out : out + len(flags)] |= flags
    np.testing.assert_array_equal(case.run(isa)[~written], case.arena[~written])


@every_isa
@many
@given(
    seed=seeds,
    width=st.sampled_from(steps.WIDTHS),
    samples=st.integers(1, 6),
    batch=st.integers(1, 9),
    clamp=clamps,
    counts=st.lists(st.integers(0, 70), min_size=1, max_size=5).map(tuple),
    row_chunks=st.integers(1, 9),
)
def test_rows(isa, **options):
    case = steps.rows(**options)
    found, wanted = case.run(isa), case.run("reference")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@every_isa
@pytest.mark.parametrize("width", steps.WIDTHS)
@pytest.mark.parametrize("batch", [1, 4])
def test_rows_read_no_other_columns(isa, width, batch):
    """NaN everywhere else is not seen and nothing else is written, also where 16 bits do not count the columns."""
    for features in (300, 70_000):
        case = steps.rows(3, width, 3, batch, (5, 16, 0, 33), features=features)
        start, index = case.arguments["start"], case.arguments["index"]
        if features > 300:
            index[0] = features - 1
        arena = np.full_like(case.arena, NAN)
        y, stride, outputs = case.arguments["y"], case.arguments["y_stride"], width * 4
        for n in range(batch):
            at = 11 + n * case.arguments["x_stride"] + index
            arena[at] = case.arena[at]
        found = case.run(isa, arena=arena)
        for n in range(batch):
            row = found[y + n * stride :][:stride]
            assert np.isfinite(row[:outputs]).all() and np.isnan(row[outputs:]).all()
        np.testing.assert_allclose(found, case.run("reference", arena=arena), rtol=1e-5, atol=1e-5)
        arena[11 + index[start[1]]] = INF  # now one that the second panel reads
        touched = ~np.isfinite(case.run(isa, arena=arena)[y : y + outputs].reshape(4, width)).all(axis=1)
        wanted = [(index[a:b] == index[start[1]]).any() for a, b in itertools.pairwise(start)]
        np.testing.assert_array_equal(touched, wanted)


@every_isa
@pytest.mark.parametrize("width", steps.WIDTHS)
def test_dense_rows(isa, width):
    columns = 21
    case = steps.rows(width=width, counts=(columns,) * 3).changed(dense=True, columns=columns, start=..., index=...)
    np.testing.assert_allclose(case.run(isa), case.run("reference"), rtol=1e-5, atol=1e-5)


@st.composite
def windows(draw):
    """A pooling that PyTorch allows: the window as PyTorch's options, and what `steps.pool` is told of it."""
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride, dilation = draw(pair), draw(pair), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(
        draw(st.integers(d * (k - 1) + 1, most)) for k, d, most in zip(kernel, dilation, (19, 75), strict=True)
    )
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), *size)
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    options = {"kernel_size": kernel, **window, "ceil_mode": draw(st.booleans())}
    out = F.max_pool2d(torch.zeros(shape), **options).shape[2:]
    return options, {"shape": shape, "out": tuple(out), "kernel": kernel, **window}


@every_isa
@many
@given(window=windows(), seed=seeds, odd=st.booleans(), external=st.booleans())
def test_max_pool_is_pytorchs_also_for_nan_and_infinity(isa, window, seed, odd, external):
    options, geometry = window
    shape = geometry["shape"]
    rng = np.random.default_rng(seed)
    x = steps.f32(shape, rng)
    if odd:
        x = np.where(rng.random(shape) < 0.3, rng.choice(np.array([NAN, INF, -INF], np.float32), shape), x)
    wanted = F.max_pool2d(torch.from_numpy(x), **options)
    case = steps.pool(seed, True, x=x, external=external, **geometry)
    for table in (isa, "reference"):
        np.testing.assert_array_equal(steps.read(wanted.shape, case.run(table), case.arguments, "y"), wanted.numpy())


@every_isa
@pytest.mark.parametrize(
    ("width", "kernel", "stride", "padding", "dilation"),
    [(5000, 3, 1, 1, 1), (5000, 3, 2, 1, 1), (4999, 2, 3, 0, 1), (2049, 5, 2, 2, 400), (3000, 1100, 7, 500, 1)],
)
def test_images_wider_than_a_line_are_pooled_in_pieces(isa, width, kernel, stride, padding, dilation):
    x = np.random.default_rng(0).standard_normal((1, 1, 3, width)).astype(np.float32)
    x[0, 0, 1, ::97] = NAN
    x[0, 0, 2, ::89] = -INF
    x = torch.from_numpy(x)
    wanted = F.max_pool2d(x, (2, kernel), (1, stride), (0, padding), (1, dilation))
    window = {"kernel": (2, kernel), "stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation)}
    case = steps.pool(0, True, tuple(x.shape), tuple(wanted.shape[2:]), x=x.numpy(), **window)
    found = case.run(isa)
    np.testing.assert_array_equal(steps.read(wanted.shape, found, case.arguments, "y"), wanted.numpy())
    case = steps.pool(0, False, tuple(x.shape), tuple(wanted.shape[2:]), **window)
    # sums of up to 1,000 numbers in float32, scaled by numbers of about one
    np.testing.assert_allclose(case.run(isa), case.run("reference"), rtol=1e-4, atol=1e-4)


@every_isa
@many
@given(window=windows(), seed=seeds, is_max=st.booleans())
def test_pooling_writes_its_pixels_only(isa, window, seed, is_max):
    _, geometry = window
    case = steps.pool(seed, is_max, **geometry)
    found, wanted, out = case.run(isa), case.arena.copy(), (*geometry["shape"][:2], *geometry["out"])
    steps.place(steps.read(out, found, case.arguments, "y"), wanted, case.arguments, "y")
    np.testing.assert_array_equal(found, wanted)


@every_isa
@many
@given(window=windows(), seed=seeds, external=st.booleans())
def test_avg_pool(isa, window, seed, external):
    _, geometry = window
    case = steps.pool(seed, False, external=external, **geometry)
    np.testing.assert_allclose(case.run(isa), case.run("reference"), rtol=1e-5, atol=1e-5)


@every_isa
@many
@given(
    seed=seeds,
    step=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    external=st.booleans(),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 40)),
)
def test_copy_is_exact_and_writes_its_pixels_only(isa, seed, step, external, shape):
    case, wanted = steps.copy(seed, shape, step, external)
    found = case.run(isa)
    np.testing.assert_array_equal(found, case.run("reference"))
    target = found[len(case.arena) :] if external else found
    before = (case.buffers[0] if external else case.arena).copy()
    np.testing.assert_array_equal(steps.read(wanted.shape, target, case.arguments, "y"), wanted)
    steps.place(wanted, before, case.arguments, "y")
    np.testing.assert_array_equal(target, before)


@every_isa
@many
@given(seed=seeds, shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 40)))
def test_mean(isa, seed, shape):
    case, wanted = steps.mean(seed, shape)
    y, stride = case.arguments["y"], case.arguments["y_stride"]
    for table in (isa, "reference"):
        found = case.run(table)[y:].reshape(shape[0], stride)[:, : shape[1]]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("name", steps.every_case())
def test_threads_do_not_change_a_bit(isa, name):
    case = steps.every_case()[name]
    few = ("rows", "balanced", "circulant")
    if case.family in ("taps", "dense", *few):
        cut = {} if case.family in few else {"tile_chunks": 3}
        case = case.changed(row_chunks=5, **cut)
    wanted = case.run(isa, threads=1)
    for threads in (2, 3, 4):
        np.testing.assert_array_equal(case.run(isa, threads), wanted)


@pytest.mark.parametrize("isa", _native.isas())
def test_a_tile_too_wide_for_an_instruction_set_is_narrowed(isa):
    case = steps.taps(mb=8, vectors=12, grid=(1, 208, 208, 1, 208))
    program = _native.Program(len(case.arena), [], 1, isa)
    case.add(program)
    assert program.kernel_name(0) == f"taps_f32_8x{_native.widest_tile(isa, 8)}_{isa}"
    case = steps.dense(width=32, tile=(3, 14), outputs=32, grid=(1, 300, 14, 14, 14))
    program = _native.Program(len(case.arena), [], 1, isa)
    case.add(program)
    rows, columns, width = map(int, program.kernel_name(0).split("_")[2].split("x"))
    assert width == 32 and _native.dense_fits(isa, 32, rows, columns)
    assert not _native.dense_fits(isa, 32, rows + 1, columns + 1) or isa == "reference"


@every_isa
def test_the_comparison_sees_one_wrong_weight(isa):
    case = steps.taps()
    value = case.arguments["value"].copy()
    value[3] *= 1.001
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(case.changed(value=value).run(isa), case.run("reference"), rtol=1e-5, atol=1e-5)
