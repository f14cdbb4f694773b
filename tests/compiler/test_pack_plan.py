"""Packing keeps every weight, runs keep every plane, the plan lets nothing that is alive overlap."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.compiler import layout
from openwork.compiler.drafts import TILE, Draft
from openwork.compiler.graph import Node
from openwork.compiler.layout import UNIT, Grid, Planes, PlaneView, Rows, Slabs
from openwork.compiler.pack import pack, tile_taps, union_taps
from openwork.compiler.plan import SPACIOUS, largest_live, lifetimes, plan
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
@given(st.integers(1, 40), st.integers(1, 50), densities, st.booleans(), st.integers(0, 99))
def test_tiles_hold_the_same_weights_in_whole_tiles(out, columns, density, keep_zeros, seed):
    matrix = sparse(out, columns, density, seed)
    packed = pack(matrix, np.zeros(out, np.float32), TILE, dense=keep_zeros)
    tiled = packed.tiled()
    assert tiled.taps == tile_taps(matrix, keep_zeros) and not (tiled.start % TILE).any()
    by_tap = tiled.value.reshape(-1, TILE, TILE).swapaxes(1, 2).reshape(-1, TILE)  # [taps, rows]
    for block in range(len(packed.start) - 1):
        taps = slice(packed.start[block], packed.start[block + 1])
        count, first, end = taps.stop - taps.start, tiled.start[block], tiled.start[block + 1]
        assert end - first == -(-count // TILE) * TILE
        np.testing.assert_array_equal(tiled.index[first : first + count], packed.index[taps])
        np.testing.assert_array_equal(by_tap[first : first + count], packed.value.reshape(-1, TILE)[taps])
        assert not by_tap[first + count : end].any()
        assert set(tiled.index[first + count : end]) <= set(packed.index[taps][-1:])


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


@dataclass(eq=False)
class Touch:
    """A step of a plan. It needs zeros around the images of `padded`, which it reads."""

    taken: list = field(default_factory=list)
    filled: list = field(default_factory=list)
    padded: list = field(default_factory=list)

    def reads(self):
        return [*self.taken, *self.padded]

    def writes(self):
        return self.filled

    def pads(self):
        return self.padded


@st.composite
def programs(draw):
    """Random storage of a few kinds, and steps that touch it. Only what is written in part may be read before."""
    batch = draw(st.integers(1, 2))
    grids = [Grid(batch) for _ in range(3)]
    grids[1].merge(grids[2])
    seldom = st.integers(0, 7).map(lambda n: n == 0)
    storages = []
    for _ in range(draw(st.integers(1, 16))):
        kind = draw(st.sampled_from([0, 1, 2, 3, 3]))
        if kind == 3:
            storages.append(Rows(batch, draw(st.integers(1, 200)), permanent=draw(seldom)))
            continue
        grid, size = grids[kind], draw(st.sampled_from([(3, 5), (4, 4)]))
        grid.need(*size, before=(draw(st.integers(0, 2)), draw(st.integers(0, 2))), after=(1, draw(st.integers(0, 2))))
        storages.append(Planes(grid, draw(st.integers(1, 5)), *size, permanent=draw(seldom), private=draw(seldom)))
    steps, known = [], [s for s in storages if isinstance(s, Planes) and s.private]
    for _ in range(draw(st.integers(1, 24))):
        some = st.lists(st.sampled_from(known), max_size=2) if known else st.just([])
        taken, padded = draw(some), [s for s in draw(some) if isinstance(s, Planes)]
        filled = [s for s in draw(st.lists(st.sampled_from(storages), max_size=2)) if s not in taken + padded]
        steps.append(Touch(taken, filled, padded))
        known += filled
    return steps


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
    arena, storages = plan(steps).arena, list(lifetimes(steps))
    for storage in storages:
        begin, end = places(storage)
        assert begin >= 0 and begin % UNIT == 0 and end + UNIT <= arena
        if isinstance(storage, Planes):
            assert storage.base % UNIT == 0
    for a, b in itertools.combinations(storages, 2):
        apart = places(a)[1] <= places(b)[0] or places(b)[1] <= places(a)[0]
        assert apart or not any(_alive(a, i, steps) and _alive(b, i, steps) for i in range(len(steps)))


def _alive(storage, at, steps):
    """By the definition: touched at or before a step, and at or after it; permanent storage always is."""
    touched = [i for i, s in enumerate(steps) if any(t is storage for t in [*s.reads(), *s.writes()])]
    return storage.permanent or touched[0] <= at <= touched[-1]


class Simulation:
    """The arena of a planned program, whose steps stamp what they write and look at every float that they rely on."""

    def __init__(self, steps, seed):
        self.steps, self.rng, self.plan = steps, np.random.default_rng(seed), plan(steps)
        self.arena = np.zeros(self.plan.arena, np.float32)
        self.written = {s: self._written(s) for s in lifetimes(steps)}

    def _written(self, storage):
        """Positions that steps write: of rows any, of images the pixels, or some of them."""
        begin, end = places(storage)
        if isinstance(storage, Rows):
            return np.arange(begin, end)
        pixels = _pixels(storage)
        return pixels[self.rng.random(len(pixels)) < 0.7] if storage.private else pixels

    def zeros(self, storage):
        """Positions that must be zero: whatever a reader reaches from a pixel; all that is never written."""
        if storage.private:
            reached = np.arange(*places(storage))
        else:
            (up, left), (down, right), pitch = storage.grid.root._before, storage.grid.root._after, storage.grid.pitch
            shifts = [dy * pitch + dx for dy in range(-up, down + 1) for dx in range(-left, right + 1)]
            reached = (_pixels(storage)[:, None] + np.array(shifts)).reshape(-1)
        return np.setdiff1d(reached, self.written[storage])

    def write(self, step, stamps):
        for storage in step.writes():
            self.arena[self.written[storage]] = stamps[storage]

    def disturb(self):
        """Runs that ended anywhere."""
        for at in self.rng.integers(0, len(self.steps), 3 * len(self.steps)):
            self.write(self.steps[at], dict.fromkeys(self.written, self.rng.standard_normal()))

    def run(self):
        stamps = {s: np.float32(self.rng.standard_normal()) for s in self.written}
        known = set()
        for at, step in enumerate(self.steps):
            for storage, channels in self.plan.clears.get(at, ()):
                for channel, (first, length) in itertools.product(channels, storage.stretches()[0]):
                    begin = places(storage)[0] + channel * storage.grid.plane + first
                    self.arena[begin : begin + length] = 0
            for storage in step.reads():
                assert storage not in known or (self.arena[self.written[storage]] == stamps[storage]).all()
                if storage in step.pads() or (isinstance(storage, Planes) and storage.private):
                    assert not self.arena[self.zeros(storage)].any()
            self.write(step, stamps)
            known.update(step.writes())


def _pixels(planes):
    """Positions of all pixels of all channels."""
    grid = planes.grid
    channel, image, y, x = np.ix_(*map(range, (planes.channels, grid.batch, planes.h, planes.w)))
    return (planes.base + channel * grid.plane + image * grid.stride + y * grid.pitch + x).reshape(-1)


@settings(max_examples=400, deadline=None)
@given(programs(), st.integers(0, 99))
def test_every_step_finds_what_was_written_and_zeros_around_it(program, seed):
    simulation = Simulation(program, seed)
    simulation.run()
    simulation.disturb()
    simulation.run()


def two_kinds():
    """Images of two kinds, too large for places of their own, one after the other."""
    a, b = (Planes(Grid(1), channels, size, size) for channels, size in ((20, 3), (5, 9)))
    for planes in (a, b):
        planes.grid.need(planes.h, planes.w, (1, 1), (1, 1))
    return [Touch([], [a]), Touch([], [], [a]), Touch([], [b]), Touch([], [], [b])]


def test_kinds_that_share_a_place_are_cleared_in_every_run():
    simulation = Simulation(two_kinds(), 0)
    assert set(simulation.plan.clears) == {0, 2}
    simulation.run()
    simulation.run()


def test_the_simulation_notices_when_nothing_is_cleared():
    simulation = Simulation(two_kinds(), 0)
    simulation.plan.clears.clear()
    with pytest.raises(AssertionError):
        simulation.run()


def test_padding_that_nobody_reads_is_not_cleared():
    steps = two_kinds()
    for step in steps:
        step.taken, step.padded = step.padded, []
    assert not plan(steps).clears


def test_small_kinds_have_a_place_of_their_own():
    steps = two_kinds()
    large = Rows(1, 100_000)
    assert not plan([*steps, Touch([], [large])]).clears
    assert large.stride <= plan([*steps, Touch([], [large])]).arena <= SPACIOUS * large.stride


@many
@given(programs())
def test_no_arena_is_smaller_than_what_is_alive_together(program):
    arena, lives = plan(program).arena, lifetimes(program)
    alive = [sum(s.floats for s in lives if _alive(s, at, program)) for at in range(len(program))]
    assert max(alive) <= largest_live(lives) < arena


@pytest.mark.parametrize("padded", [False, True])
def test_storage_whose_lives_do_not_meet_shares_a_place(padded):
    grid = Grid(1)
    chain = [Planes(grid, 4, 8, 8) for _ in range(6)]
    for _ in chain:
        grid.need(8, 8, (1, 1), (1, 1))
    steps = [Touch([], [b], [a]) if padded else Touch([a], [b]) for a, b in itertools.pairwise(chain)]
    made = plan(steps)
    assert made.arena == 2 * 4 * grid.plane + UNIT and not made.clears
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


@many
@given(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.integers(1, 40)), max_size=6))
def test_a_pitch_that_was_asked_for_follows_later_needs(batch, needs):
    """One pair of grids is asked after every change, the other at the end only."""
    asked, silent = ((Grid(batch), Grid(batch)) for _ in range(2))
    for grids in (asked, silent):
        for grid in grids:
            grid.need(7, 9)
        for kind, h, w in needs:
            first, second = grids
            if kind == 0:
                first.merge(second)
            elif kind == 1:
                first.keep_whole()
            elif kind == 2:
                second.cut(Slabs(2), h, w)
            else:
                first.need(h, w, (1, 1), (0, 2))
            if grids is asked:
                assert min(first.pitch, second.pitch) >= 9
    assert [grid.pitch for grid in asked] == [grid.pitch for grid in silent]


def test_a_pitch_is_worked_out_once():
    grid = Grid(1)
    grid.need(13, 57, (1, 1), (1, 1))
    before = layout._pitch.cache_info().misses
    assert len({grid.pitch for _ in range(100)}) == 1
    assert layout._pitch.cache_info().misses <= before + 1


def test_storage_is_told_in_the_order_of_channels_wherever_it_lies_in_memory():
    """So that the same model is planned alike in every process."""
    grid = Grid(1)
    grid.need(4, 4)
    storages = [Planes(grid, 2, 4, 4) for _ in range(40)]
    order = np.random.default_rng(0).permutation(40)
    view = PlaneView(grid, 4, 4, tuple((storages[i], c) for i in order for c in (1, 0)))
    assert list(view.storages()) == [storages[i] for i in order]
    node = Node("a", "input", (), (1, 80, 4, 4))
    draft = Draft("copy", node, [view, view], [view], dict)
    assert list(draft.reads()) == list(draft.writes()) == [storages[i] for i in order]
