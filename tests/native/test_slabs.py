"""Images cut into slabs of rows: every step gives what it gives of whole images, and touches nothing else."""

import native_steps as steps
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

every_isa = pytest.mark.parametrize("isa", steps.FAST)
many = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def winograd(**options):
    return steps.winograd(**options)[0]


@every_isa
@many
@given(
    seed=seeds,
    family=st.sampled_from([steps.taps, steps.dense, winograd]),
    count=st.integers(1, 4),
    h=st.integers(1, 9),
    w=st.integers(1, 20),
    threads=st.integers(1, 3),
    act=st.booleans(),
    cuts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_each_slab_is_computed_as_an_image_of_its_rows(isa, seed, family, count, h, w, threads, act, cuts):
    rows = -(-h // count)
    case = family(seed=seed, grid=(1, 1, w + 2, rows, w), row_chunks=cuts[0], tile_chunks=cuts[1])
    case = case.changed(**({"act": ["silu"]} if act else {}))
    whole = steps.cut(case, count, rows, seed).changed(grid=[1, 1, w + 2, h, w])
    found = whole.run(isa, threads).reshape(count, -1)
    for slab, before in enumerate(whole.arena.reshape(count, -1)):
        height = min(rows, h - slab * rows)
        wanted = before
        if height > 0:
            wanted = case.changed(grid=[1, 1, w + 2, height, w]).run("reference", arena=before)
        tolerance = 2e-4 if family is winograd else 1e-5
        np.testing.assert_allclose(found[slab], wanted, rtol=tolerance, atol=tolerance)


@every_isa
@many
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 40)),
    step=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    first=st.integers(0, 2),
    count=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    halo=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    threads=st.integers(1, 3),
)
def test_a_copy_fills_slabs_and_their_halos_from_wherever_the_rows_lie(
    isa, seed, shape, step, first, count, halo, threads
):
    case, target, wanted = steps.slab_copy(seed, shape, step, min(first, shape[1] - 1), count, halo)
    expected = case.arena.copy()
    target.fill(expected, wanted, halo=True)
    np.testing.assert_array_equal(case.run(isa, threads), expected)
    np.testing.assert_array_equal(case.run("reference"), expected)


@every_isa
@many
@given(seed=seeds, h=st.integers(1, 12), count=st.integers(1, 4), halo=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_a_copy_of_halos_leaves_a_slabs_own_rows_alone(isa, seed, h, count, halo):
    case, target, wanted = steps.slab_copy(seed, (3, h, 5), count=(1, count), halo=halo)
    expected = case.arena.copy()
    for (rows, _), (wider, pixels) in zip(target.pixels(expected), target.pixels(expected, halo=True), strict=True):
        for at, row in enumerate(wider):
            if row not in rows:
                pixels[:, at] = wanted[:, row]
    np.testing.assert_array_equal(case.changed(only_halo=True).run(isa), expected)


@many
@given(seed=seeds, shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), together=st.integers(1, 4))
def test_copies_that_read_the_same_plane_may_be_made_together(seed, shape, together):
    case = steps.slab_copy(seed, (shape[0] * together, *shape[1:]))[0]
    np.testing.assert_array_equal(case.changed(together=together).run("base", 2), case.run("base"))


@every_isa
@many
@given(
    seed=seeds,
    is_max=st.booleans(),
    shape=st.tuples(st.integers(1, 3), st.integers(2, 14), st.integers(2, 20)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    slabs=st.integers(1, 4),
    whole=st.booleans(),
    data=st.data(),
)
def test_pooling(isa, seed, is_max, shape, kernel, stride, slabs, whole, data):
    kernel = min(kernel, *shape[1:])
    padding = data.draw(st.integers(0, kernel // 2))
    case, target, x = steps.slab_pool(seed, is_max, shape, kernel, stride, padding, slabs, whole)
    if is_max:
        wanted = F.max_pool2d(torch.from_numpy(x)[None], kernel, stride, padding)[0].numpy()
    else:
        sums = F.avg_pool2d(torch.from_numpy(x)[None], kernel, stride, padding, divisor_override=1)[0].numpy()
        wanted = sums * case.arguments["scale_y"][:, None] * case.arguments["scale_x"]
    found = case.run(isa, 2)
    expected = case.arena.copy()
    target.fill(expected, wanted)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@every_isa
@many
@given(seed=seeds, shape=st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 9)), slabs=st.integers(1, 4))
def test_mean(isa, seed, shape, slabs):
    case, wanted = steps.slab_mean(seed, shape, slabs)
    found = case.run(isa, 2)
    np.testing.assert_allclose(found[len(case.arena) - shape[0] :], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message", "slabs"),
    [
        *((steps.taps, message, slabs) for message, slabs in (
            ("slabs are out of range", [0, 100, 3]),
            ("slabs are out of range", [2, 100, 0]),
            ("slabs are out of range", [2, -1, 3]),
            ("slabs are out of range", [1025, 1, 1]),
            ("slabs lie outside the arena", [2, 2**30, 3]),
            ("fewer rows than an image", [2, 100, 1]),
            ("outside the arena", [2, 60, 3]),
            ("wrong length", [2, 100]),
        )),
        (steps.dense, "fewer rows than an image", [2, 100, 1]),
        (steps.dense, "outside the arena", [2, 60, 3]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_slabs_is_said(make, message, slabs):
    with pytest.raises(ValueError, match=message):
        make(grid=(1, 40, 7, 5, 6)).changed(slabs=slabs).run("base")


@pytest.mark.parametrize("make", [steps.taps, steps.dense])
def test_a_batch_is_not_cut(make):
    with pytest.raises(ValueError, match="a batch of one image"):
        make().changed(slabs=[2, 100, 2]).run("base")


@pytest.mark.parametrize(
    ("case", "message", "changes"),
    [
        (steps.slab_copy()[0], "a batch of one image", {"batch": 2}),
        (steps.slab_copy()[0], "outside its buffer", {"halo": [0, 4]}),
        (steps.slab_copy()[0], "rows of a halo", {"halo": [-1, 0]}),
        (steps.slab_copy()[0], "outside its buffer", {"from": steps.i32([0, 0, -1])}),
        (steps.slab_copy()[0], "fewer rows than an image", {"from": steps.i32([0, 0, 2])}),
        (steps.slab_copy()[0], "a first row for each plane", {"from": steps.i32([0])}),
        (steps.slab_copy()[0], "as many as each other", {"together": 2}),
        (steps.slab_copy()[0], "at least one", {"together": 0}),
        (steps.slab_pool()[0], "a batch of one image", {"batch": 2}),
        (
            steps.slab_pool()[0],
            "outside its buffer",
            {"x": {**steps.slab_pool()[0].arguments["x"], "planes": steps.i32([10**6, 10**6])}},
        ),
        (steps.slab_depthwise()[0], "a batch of one image", {"batch": 2}),
        (steps.slab_depthwise(count=(0, 2))[0], "a batch of one image", {"batch": 2}),
        (steps.slab_depthwise(count=(2, 0))[0], "a batch of one image", {"batch": 2}),
        (steps.slab_depthwise()[0], "fewer rows than an image", {"size": [11, 8, 5, 4]}),
        (steps.slab_depthwise()[0], "fewer rows than an image", {"size": [9, 8, 7, 4]}),
        (
            steps.slab_depthwise()[0],
            "outside its buffer",
            {"y": {**steps.slab_depthwise()[0].arguments["y"], "planes": steps.i32([0, 0, 10**6])}},
        ),
        (steps.slab_mean()[0], "a batch of one image", {"batch": 2}),
        (steps.slab_mean()[0], "fewer rows than an image", {"h": 9}),
    ],
    ids=lambda v: v.family if isinstance(v, steps.Case) else None,
)
def test_what_is_wrong_with_images_in_slabs_is_said(case, message, changes):
    with pytest.raises(ValueError, match=message):
        case.changed(**changes).run("base")


def test_slabs_are_pooled_into_as_many():
    case = steps.slab_pool()[0]
    with pytest.raises(ValueError, match="into as many slabs"):
        case.changed(y={k: v for k, v in case.arguments["y"].items() if k != "slabs"}).run("base")


def test_slabs_of_a_dense_layers_input_may_lie_farther_on_but_not_outside():
    case = steps.cut(steps.dense(grid=(1, 40, 7, 5, 6)), 2, 3)
    slab = len(case.arena) // 2
    first = case.run("base")
    np.testing.assert_array_equal(case.changed(x_shift=0, x_whole=False).run("base"), first)
    # the second slab reads what lies at the same place of the first one
    whole = case.changed(x_whole=True).run("base")
    again = case.changed(x_whole=True, x_shift=slab).run("base")
    np.testing.assert_array_equal(whole[:slab], first[:slab])
    np.testing.assert_array_equal(again, first)
    assert (whole != first).any()
    for shift in (slab, -slab, 2 * slab):
        with pytest.raises(ValueError, match="a tap reads outside the arena"):
            case.changed(x_shift=shift).run("base")
    for shift in (2 * slab, -slab):
        with pytest.raises(ValueError, match="a tap reads outside the arena"):
            case.changed(x_whole=True, x_shift=shift).run("base")
