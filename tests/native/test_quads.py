"""Integer steps give the same bits on every instruction set: those that NumPy gives."""

import functools
import itertools
import math

import native_steps as steps
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_steps import quads
from native_steps.strategies import byte_bounds, grids

from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", _native.isas())
many = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def same(case, isa, wanted, threads=1):
    np.testing.assert_array_equal(quads.words(case, case.run(isa, threads)), wanted)


@every_isa
@many
@given(
    seed=seeds,
    channels=st.integers(1, 9),
    grid=grids(6, 20),
    bounds=byte_bounds,
    inverse=st.sampled_from([1.0, 0.37, 40.0, -2.0]),
)
def test_quantize(isa, **options):
    case = steps.quantize(**options)
    same(case, isa, quads.quantized(case))


@every_isa
@many
@given(
    seed=seeds,
    channels=st.integers(1, 13),
    grid=grids(1, 60),
    most=st.sampled_from([1, 7, 127]),
    results=st.sampled_from([("quads",), ("y",), ("quads", "y")]),
    threads=st.integers(1, 3),
)
def test_tokens_get_scales_of_their_own(isa, threads, **options):
    case = steps.quantize_tokens(**options)
    same(case, isa, quads.tokens_quantized(case), threads)


@every_isa
def test_tokens_of_odd_numbers(isa):
    """Where one is NaN or infinite, the scale is NaN."""
    case = steps.quantize_tokens(channels=7, grid=(1, 48, 48, 1, 48))
    columns = np.random.default_rng(0).standard_normal((7, 48)).astype(np.float32)
    odd = (*quads.ODD, np.float32(3.4e38), np.float32(-2e-38), np.float32(1e-44), -np.float32(np.nan))
    for at, value in enumerate(odd):
        columns[at % 7, 2 * at] = value
        columns[:, 2 * at + 1] = value
    quads.put(case.arena, case.arguments["x"], columns)
    with np.errstate(over="ignore"):
        same(case, isa, quads.tokens_quantized(case))
    scales = case.run(isa)[case.arguments["token"] :][:48]
    np.testing.assert_array_equal(np.isnan(scales), ~np.isfinite(columns).all(axis=0))


@every_isa
@many
@given(
    seed=seeds,
    channels=st.integers(1, 9),
    grid=grids(6, 20),
    signed=st.booleans(),
    scale=st.sampled_from([1.0, 0.3, 1e-39]),
)
def test_dequantize(isa, **options):
    case = steps.dequantize(**options)
    same(case, isa, quads.dequantized(case))


@every_isa
def test_rounding_is_pytorchs(isa):
    torch = pytest.importorskip("torch")
    x = np.concatenate([quads.numbers(3000, np.random.default_rng(0)), quads.ODD]).astype(np.float32)
    size = len(x) // 4 * 4
    grid = (1, size, size, 1, size)
    case = steps.quantize(channels=1, grid=grid)
    for bounds in ((0, 255), (-127, 127)):
        case = case.changed(lo=bounds[0], hi=bounds[1])
        case.arena[case.arguments["x"][0] :][:size] = x[:size]
        y = quads.words(case, case.run(isa))[case.arguments["y"][0] :][:size].astype(np.int8 if bounds[0] else np.uint8)
        wanted = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x[:size]), 1.0, 0, *bounds)
        np.testing.assert_array_equal(y, wanted.numpy())


@every_isa
@pytest.mark.parametrize(
    ("case", "computed"), [(steps.quantize, quads.quantized), (steps.dequantize, quads.dequantized)]
)
def test_slabs_are_steps_of_their_own(isa, case, computed):
    cut = steps.cut(case(grid=(1, 40, 7, 5, 6)), 2, 3)
    if case is steps.quantize:
        cut.arena[:] = quads.numbers(len(cut.arena), np.random.default_rng(1))
    wanted = steps.each_slab(cut, computed)
    for threads in (1, 3):
        same(cut, isa, wanted, threads)


# ---- taps ----

EPILOGUES = (
    {"quads_out": False},
    {"quads_out": False, "residual": "float", "bounds": (0.0, math.inf)},
    {"quads_out": False, "residual": "u8", "bounds": (-3.0, 60.5)},
    {"quads_out": False, "residual": "s8", "bounds": (-math.inf, math.inf)},
    {"bounds": (0, 255)},
    {"residual": "float", "bounds": (-127, 127)},
    {"residual": "u8", "bounds": (0, 15)},
    {"residual": "s8", "bounds": (-128, 127)},
)


@functools.cache
def tapped(**options):
    """A case of `quad_taps` and what it must give."""
    case = steps.quad_taps(**{"bounds": (-math.inf, math.inf), **options})
    return case, quads.added(case)


@every_isa
@pytest.mark.parametrize("mb", [1, 2, 4, 8, 16])
def test_every_register_block_and_epilogue(isa, mb):
    counts = {1: (3, 0, 7, 1), 2: (4, 5), 4: (6,), 8: (7,), 16: (16, 0, 32)}[mb]
    for vectors in range(1, _native.widest_quad_tile(isa, mb) + 1):
        width = vectors * _native.lanes(isa)
        for signed, epilogue in itertools.product((False, True), EPILOGUES):
            case, wanted = tapped(
                mb=mb,
                vectors=vectors,
                counts=counts,
                signed=signed,
                grid=(1, 1, width // 2 + 6, 2, width // 2 + 5),
                **epilogue,
            )
            same(case, isa, wanted)


def test_tiles_are_as_wide_as_registers_allow():
    widest = {isa: tuple(_native.widest_quad_tile(isa, mb) for mb in (1, 2, 4, 8, 16)) for isa in _native.isas()}
    known = {
        "avx512amx": (12, 10, 6, 3, 6),
        "avx512vnni": (12, 10, 6, 3, 3),
        "avx512": (12, 7, 4, 2, 2),
        "avx2vnni": (12, 4, 2, 1, 1),
        "avx2": (10, 3, 2, 1, 1),
        "neondot": (12, 10, 6, 3, 3),
        "neon": (12, 10, 6, 3, 3),
        "reference": (12, 12, 12, 12, 12),
    }
    for isa in widest.keys() & known.keys():
        assert widest[isa] == known[isa], isa


@every_isa
@many
@given(
    seed=seeds,
    mb=st.sampled_from([1, 2, 4, 8, 16]),
    vectors=st.integers(1, 12),
    quarters=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    grid=grids(6, 20),
    signed=st.booleans(),
    epilogue=st.sampled_from(EPILOGUES),
    cuts=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    token=st.booleans(),
    threads=st.integers(1, 3),
)
def test_quad_taps(isa, seed, mb, vectors, quarters, grid, signed, epilogue, cuts, token, threads):
    counts = tuple(quarters * max(1, 4 // mb)) if mb < quads.TILE else tuple(n // 8 * quads.TILE for n in quarters)
    options = {"bounds": (-math.inf, math.inf), "token": token, **epilogue}
    case = steps.quad_taps(seed, mb, vectors, counts, grid, signed, row_chunks=cuts[0], tile_chunks=cuts[1], **options)
    same(case, isa, quads.added(case), threads)


@every_isa
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("mb", [1, 4, 8, 16])
def test_the_largest_sums(isa, mb, signed):
    """All weights -128, -127 or 127 under all values at their bounds: no product and no sum of two saturates."""
    taps, grid, rows = 304, (1, 40, 40, 1, 37), max(mb, 8)
    case = steps.quad_taps(mb=mb, counts=(taps,) * (rows // mb), grid=grid, signed=signed, quads_out=False)
    case = case.changed(scale=np.ones(rows, np.float32), bias=np.zeros(rows, np.float32), lo=-math.inf, hi=math.inf)
    for weight, x in itertools.product((-128, -127, 127), (-128, -127, 127, -1) if signed else (255, 254, 1)):
        words = np.full(len(case.arena), int.from_bytes(bytes([x & 255] * 4)), np.uint32)
        full = steps.Case(
            "quad_taps", {**case.arguments, "value": np.full(taps * rows * 4, weight, np.int8)}, words.view(np.float32)
        )
        found = full.run(isa)[case.arguments["out"][0] :][: grid[4]]
        assert (found == weight * x * 4 * taps).all()
        same(full, isa, quads.added(full))


@every_isa
@pytest.mark.parametrize("residual", ["none", "u8", "s8", "float"])
def test_results_beyond_all_integers_are_the_bounds(isa, residual):
    """Also those just below, which have an epilogue of their own where no result of a step can be beyond."""
    case = steps.quad_taps(counts=(5, 0, 9), residual=residual)
    odd = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, 3e9, -3e9, 0.0, 1.0, 2.0, 3.0, 4.0], np.float32)
    large = np.array([1e9, -1e9, 0.0, 1.0, 2.0, 3.0, 1e8, -1e8, 5e8, 4.0, 5.0, 6.0], np.float32)
    for bounds in ((0, 255), (3, 200), (-127, 127), (-100, 90)):
        for change in ({"bias": odd}, {"scale": odd}, {"bias": large}):
            changed = case.changed(lo=bounds[0], hi=bounds[1], **change)
            with np.errstate(all="ignore"):
                same(changed, isa, quads.added(changed))


@every_isa
@pytest.mark.parametrize("quads_out", [False, True])
def test_dense_blocks_share_their_columns(isa, quads_out):
    listed = steps.quad_taps(counts=(5, 5, 5), quads_out=quads_out)
    groups = [1, 0, 1]
    index = np.concatenate([np.arange(5) + 5 * group for group in groups]).astype(np.int32)
    listed = listed.changed(index=index)
    dense = listed.changed(dense=True, columns=5, block_group=groups, start=..., index=...)
    same(dense, isa, quads.added(listed))


@every_isa
@many
@given(
    seed=seeds,
    columns=st.integers(1, 40),
    groups=st.lists(st.integers(0, 1), min_size=2, max_size=5),
    vectors=st.integers(1, 8),
    apart=st.sampled_from([64, 80, 72]),
    signed=st.booleans(),
    threads=st.integers(1, 2),
)
def test_dense_tiles(isa, seed, columns, groups, vectors, apart, signed, threads):
    """Planes at equal distances, whole cache lines or not; columns that blocks share, filled up with the last one."""
    whole = -(-columns // quads.TILE) * quads.TILE
    grid = (1, 70, 12, 5, 11)
    case = steps.quad_taps(seed, 16, vectors, (whole,) * len(groups), grid, signed)
    count = columns * (max(groups) + 1)
    case.arena = np.concatenate([case.arena, np.zeros((count + 2) * apart, np.float32)])
    first = -(-(len(case.arena) - (count + 1) * apart) // 16) * 16
    case.arena[first:] = (
        np.random.default_rng(seed).integers(-(2**31), 2**31, len(case.arena) - first).astype(np.int32).view(np.float32)
    )
    places = first + apart * np.arange(count)
    value = quads.tiled(case.arguments["value"]).reshape(len(groups), whole, 64)
    value[:, columns:] = 0
    index = np.concatenate([np.minimum(np.arange(whole), columns - 1) + columns * group for group in groups])
    planes = [steps.stretches(places.astype(np.int32))]
    listed = case.changed(planes=planes, value=quads.tiled(value.reshape(-1)), index=index.astype(np.int32))
    wanted = quads.added(listed)
    same(listed, isa, wanted, threads)
    lists = {"dense": True, "columns": columns, "block_group": groups, "start": ..., "index": ...}
    same(listed.changed(**lists), isa, wanted, threads)
    # behind an activation blocks are worked on two at a time, and still share what was copied
    same(listed.changed(act=["silu"], **lists), isa, quads.words(case, listed.changed(act=["silu"]).run(isa)), threads)


@every_isa
def test_tiles_are_whole(isa):
    case = steps.quad_taps(mb=16, counts=(16, 8, 8))
    with pytest.raises(ValueError, match="whole tiles"):
        case.run(isa)


@every_isa
@pytest.mark.parametrize("mb", [4, 16])
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_quad_taps_on_slabs(isa, mb, epilogue):
    counts = (5, 0, 9) if mb == 4 else (16, 0, 32)
    whole = steps.quad_taps(
        mb=mb, counts=counts, grid=(1, 40, 7, 5, 6), **{"bounds": (-math.inf, math.inf), **epilogue}
    )
    cut = steps.cut(whole, 2, 3)
    wanted = steps.each_slab(cut, quads.added)
    for threads in (1, 3):
        same(cut, isa, wanted, threads)


@every_isa
def test_an_activation_comes_over_floats(isa):
    plain = steps.quad_taps(mb=4, counts=(5, 0, 9) * 5, quads_out=False, residual="s8", bounds=(-math.inf, math.inf))
    y = plain.run(isa)
    for out in plain.arguments["out"]:
        stretch = y[out:][: len(steps.inside(plain.arguments["grid"]))]
        stretch[...] = np.where(stretch > 0, stretch, stretch * np.float32(0.25))
    np.testing.assert_array_equal(plain.changed(act=["leaky_relu", 0.25]).run(isa).view(np.int32), y.view(np.int32))


@every_isa
@pytest.mark.parametrize("mb", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("residual", ["none", "float", "u8", "s8"])
def test_bytes_behind_an_activation(isa, mb, residual):
    """They are those of the floats that the same step gives without rounding, of more rows than wait at once."""
    counts = (5, 0, 9, 2) * (20 // mb + 1) if mb < quads.TILE else (16, 0, 48)
    width = _native.widest_quad_tile(isa, mb)
    for vectors, bounds, act in ((width, (-127, 127), ["silu"]), (1, (0, 255), ["leaky_relu"])):
        plain = steps.quad_taps(mb=mb, vectors=vectors, counts=counts, quads_out=False, residual=residual)
        slopes = {"slope": np.linspace(-1, 1, mb * len(counts), dtype=np.float32)} if act == ["leaky_relu"] else {}
        plain = plain.changed(act=act, lo=-math.inf, hi=math.inf, **slopes)
        out, pixels = plain.arguments["out"], steps.inside(plain.arguments["grid"])
        floats = quads.taken(plain.run(isa), out, len(pixels))
        wanted = quads.words(plain).copy()
        quads.put(wanted, out[: len(out) // 4], quads.packed(quads.rounded(floats * np.float32(0.7), *bounds) * pixels))
        case = plain.changed(quads_out=True, inverse=0.7, lo=bounds[0], hi=bounds[1], out=out[: len(out) // 4])
        same(case, isa, wanted)  # and nothing else is written


def test_the_comparison_sees_one_wrong_weight():
    case = steps.quad_taps(quads_out=False)
    value = case.arguments["value"].copy()
    value[7] ^= 1
    with pytest.raises(AssertionError):
        same(case.changed(value=value), "auto", quads.added(case))
