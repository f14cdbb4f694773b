"""Packing keeps every weight, runs keep every plane, the plan lets nothing that is alive overlap."""

import itertools
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.compiler.layout import UNIT, Grid, Planes, Rows
from openwork.compiler.pack import pack, union_taps
from openwork.compiler.plan import lifetimes, plan
from openwork.formats.program import runs

many = settings(max_examples=150, deadline=None)


def dense(packed, out, columns):
    """The matrix that a packing stands for, [blocks * rows, columns], built tap by tap."""
    matrix = np.zeros((len(packed.bias), columns), np.float32)
    for block in range(len(packed.start) - 1):
        for k in range(packed.start[block], packed.start[block + 1]):
            for row in range(packed.rows):
                matrix[block * packed.rows + row, packed.index[k]] += packed.value[k * packed.rows + row]
    return matrix


def sparse(out, columns, density, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((out, columns)).astype(np.float32)
    return np.where(rng.random((out, columns)) < density, matrix, 0).astype(np.float32)


densities = st.sampled_from([0.0, 0.05, 0.3, 1.0])


@many
@given(
    st.integers(1, 20),
    st.integers(1, 12),
    st.sampled_from([1, 2, 4, 8, 16]),
    densities,
    st.booleans(),
    st.integers(0, 99),
)
def test_packing_keeps_every_weight_and_no_more_taps_than_the_union(out, columns, rows, density, keep_zeros, seed):
    matrix = sparse(out, columns, density, seed)
    bias = np.arange(1, out + 1, dtype=np.float32)
    packed = pack(matrix, bias, rows, dense=keep_zeros)
    unpacked = dense(packed, out, columns)
    np.testing.assert_array_equal(unpacked[:out], matrix)
    assert not unpacked[out:].any() and not packed.bias[out:].any()
    np.testing.assert_array_equal(packed.bias[:out], bias)
    blocks = [matrix[i : i + rows] for i in range(0, out, rows)]
    union = sum(len(b[0]) if keep_zeros else int((b != 0).any(axis=0).sum()) for b in blocks)
    assert packed.taps == union == packed.start[-1] and len(packed.start) == len(blocks) + 1
    for begin, end in zip(packed.start, packed.start[1:], strict=False):
        assert (np.diff(packed.index[begin:end]) > 0).all()  # in order, none twice
    if not keep_zeros:
        assert union_taps(matrix, rows) == union


@many
@given(
    st.integers(1, 4), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 6), densities, st.integers(0, 99)
)
def test_packing_of_groups_reads_each_groups_own_columns(groups, rows, blocks, columns, density, seed):
    per_group = rows * blocks
    matrix = sparse(groups * per_group, columns, density, seed)
    packed = pack(matrix, np.zeros(len(matrix), np.float32), rows, groups)
    wanted = np.zeros((len(matrix), groups * columns), np.float32)
    for g in range(groups):
        mine = slice(g * per_group, (g + 1) * per_group)
        wanted[mine, g * columns : (g + 1) * columns] = matrix[mine]
    np.testing.assert_array_equal(dense(packed, len(matrix), groups * columns), wanted)


@many
@given(st.lists(st.integers(-1000, 10**6), max_size=40))
def test_runs_and_back(offsets):
    assert [first + stride * i for first, stride, count in runs(offsets) for i in range(count)] == offsets


@given(st.integers(-100, 100), st.integers(-50, 50), st.integers(1, 30))
def test_equally_spaced_planes_are_one_run(first, stride, count):
    found = runs([first + stride * i for i in range(count)])
    assert found == [[first, stride if count > 1 else 0, count]]


@dataclass
class Touch:
    """A step of a plan."""

    taken: list = field(default_factory=list)
    filled: list = field(default_factory=list)

    def reads(self):
        return self.taken

    def writes(self):
        return self.filled


@st.composite
def programs(draw):
    """Random storage of a few spaces, and steps that touch it."""
    batch = draw(st.integers(1, 3))
    grids = [Grid(batch) for _ in range(3)]
    grids[1].merge(grids[2])
    seldom = st.integers(0, 7).map(lambda n: n == 0)
    storages = []
    for _ in range(draw(st.integers(1, 20))):
        kind = draw(st.sampled_from([0, 1, 2, 3, 3]))
        if kind == 3:
            storages.append(Rows(batch, draw(st.integers(1, 500)), permanent=draw(seldom)))
            continue
        grid, size = grids[kind], draw(st.sampled_from([(3, 5), (4, 4)]))
        grid.need(*size, before=(draw(st.integers(0, 2)), draw(st.integers(0, 2))), after=(1, draw(st.integers(0, 2))))
        storages.append(Planes(grid, draw(st.integers(1, 5)), *size, permanent=draw(seldom), private=draw(seldom)))
    some = st.lists(st.sampled_from(storages), max_size=3)
    steps = [Touch(draw(some), draw(some)) for _ in range(draw(st.integers(1, 16)))]
    return [*steps, Touch(storages)] if draw(st.booleans()) else [Touch([], storages[:1]), *steps]


def places(storage):
    """Every float that a storage may occupy."""
    begin = storage.base - (storage.grid.lead if isinstance(storage, Planes) else 0)
    return begin, begin + storage.floats


@settings(max_examples=300, deadline=None)
@given(programs())
def test_storage_that_is_alive_together_never_overlaps(program):
    assert_apart(program)


def test_a_gap_is_looked_for_behind_the_longest_neighbour():
    a, b, c, d = (Rows(1, features) for features in (1000, 400, 300, 200))
    assert_apart([Touch([], [a]), Touch([a], [d]), Touch([d], [b, c]), Touch([b, c], [])])


def assert_apart(steps):
    """By brute force over all pairs and all steps."""
    arena = plan(steps)
    lives = lifetimes(steps)
    for storage in lives:
        begin, end = places(storage)
        assert begin >= 0 and begin % UNIT == 0 and end + UNIT <= arena
        if isinstance(storage, Planes):
            assert storage.base % UNIT == 0
    pairs = [(a, b) for a in lives for b in lives if a is not b]
    for a, b in pairs:
        apart = places(a)[1] <= places(b)[0] or places(b)[1] <= places(a)[0]
        same_padding = a.space == b.space and _multiple(a, b)
        alive_together = any(_alive(a, i, steps) and _alive(b, i, steps) for i in range(len(steps)))
        assert apart or (same_padding and not alive_together)


def _multiple(a, b):
    """Planes that share a place must lie on the same raster, or one's pixels are the other's padding."""
    return not isinstance(a, Planes) or (a.base - b.base) % a.grid.plane == 0


def _alive(storage, at, steps):
    """By the definition: touched at or before a step, and at or after it; permanent storage always is."""
    touched = [i for i, s in enumerate(steps) if any(t is storage for t in [*s.reads(), *s.writes()])]
    return storage.permanent or touched[0] <= at <= touched[-1]


def test_storage_whose_lives_do_not_meet_shares_a_place():
    grid = Grid(1)
    chain = [Planes(grid, 4, 8, 8) for _ in range(6)]
    for _ in chain:
        grid.need(8, 8, (1, 1), (1, 1))
    steps = [Touch([a], [b]) for a, b in itertools.pairwise(chain)]
    assert plan(steps) == 2 * 4 * grid.plane + UNIT
    assert len({s.base for s in chain}) == 2


@many
@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_a_readers_shifts_stay_inside_the_plane_and_never_meet_a_pixel_of_another_row(batch, h, w, before, after):
    """Brute force: from every pixel, as far as a reader reaches, lies the right pixel or padding that nobody writes."""
    grid = Grid(batch)
    grid.need(h, w, before, after)
    pixels = {n * grid.stride + i * grid.pitch + j: (n, i, j) for n in range(batch) for i in range(h) for j in range(w)}
    assert len(pixels) == batch * h * w and max(pixels) == grid.count(h, w) - 1
    written = -(-grid.count(h, w) // UNIT) * UNIT
    for at, (n, i, j) in pixels.items():
        for dy in range(-before[0], after[0] + 1):
            for dx in range(-before[1], after[1] + 1):
                inside = 0 <= i + dy < h and 0 <= j + dx < w
                there = at + dy * grid.pitch + dx
                assert pixels.get(there) == ((n, i + dy, j + dx) if inside else None)
                assert -grid.lead <= there < grid.plane - grid.lead
    assert written + max(0, after[0] * grid.pitch + after[1]) <= grid.plane - grid.lead
    assert grid.plane % (2 * UNIT) == UNIT
