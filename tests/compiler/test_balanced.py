"""Weights in slots: packed as few as they can be, bit for bit, and right in whole networks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import openwork
from openwork.compiler import balanced
from openwork.compiler.candidates import Choice
from openwork.compiler.tune import _ahead, _Search
from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.darb import DARB
from openwork.constraints.gather_scatter import GatherScatter
from openwork.constraints.nm import NM
from openwork.engine import _native


def packed(matrix: np.ndarray, window: int, order: np.ndarray | None = None) -> dict[str, np.ndarray]:
    fit = balanced.Fit(window, 0, order)
    return balanced.pack(matrix.astype(np.float32), np.arange(len(matrix), dtype=np.float32), fit)


def slots(arrays: dict[str, np.ndarray], window: int) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Panel, first column of the window, columns and values of every slot."""
    bits = {4: 2, 8: 3, 32: 5}[window]
    found, line = [], 0
    words = arrays["index"].view(np.uint32).reshape(-1, 16)
    for panel in range(len(arrays["start"]) - 1):
        first, last = arrays["start"][panel : panel + 2].tolist()
        for slot in range(first, last):
            at, shift = divmod(slot - first, 32 // bits)
            begin = int(arrays["begin"][slot]) * window // 2
            column = begin + (words[line + at] >> np.uint32(bits * shift) & np.uint32(window - 1)).astype(int)
            found.append((panel, begin, column, arrays["value"][16 * slot : 16 * slot + 16]))
        line += -(-(last - first) // (32 // bits))
    assert line == len(words)
    return found


def sparse(seed: int, outputs: int, inputs: int, share: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kept = rng.random((outputs, inputs)) < share * rng.random((outputs, 1)) * 2
    return (rng.standard_normal((outputs, inputs)) * kept).astype(np.float32)


def test_a_row_of_two_of_four_is_packed_as_written_down() -> None:
    matrix = np.zeros((2, 8))
    matrix[0], matrix[1, 2] = [0, 3, 0, 5, 2, 0, 0, -1], 7
    arrays = packed(matrix, 4)
    assert arrays["start"].tolist() == [0, 4] and arrays["begin"].tolist() == [0, 1, 2, 3]
    assert arrays["begin"].dtype == np.uint16 and arrays["bias"].tolist() == [0, 1]
    value = arrays["value"].reshape(4, 16)
    assert value[:, 0].tolist() == [3, 5, 2, -1] and value[:, 1].tolist() == [7, 0, 0, 0] and not value[:, 2:].any()
    # input 1 of 0..3, 3 of 2..5, 4 of 4..7, 7 of 6..; input 2 of 0..3, then zeros at zero weights of second halves
    words = arrays["index"]
    assert words[0] == 1 + (1 << 2) + (0 << 4) + (1 << 6) and (words[1:] == 2 + (2 << 2) + (2 << 4) + (2 << 6)).all()
    assert "place" not in arrays


def test_a_row_that_is_behind_takes_from_where_others_are_not_yet() -> None:
    matrix = np.zeros((2, 16))
    matrix[0, [0, 1]], matrix[1, [5, 6, 11]] = 1, 2
    arrays = packed(matrix, 8)  # windows 0..7, 4..11, 8..15, 12..
    assert arrays["begin"].tolist() == [0, 0, 2]
    assert arrays["value"].reshape(3, 16)[:, :2].tolist() == [[1, 2], [1, 2], [0, 2]]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.sampled_from(balanced.WINDOWS),
    outputs=st.integers(1, 50),
    inputs=st.integers(1, 140),
    share=st.floats(0, 0.5),
    ordered=st.booleans(),
)
def test_every_weight_is_in_one_slot(
    seed: int, window: int, outputs: int, inputs: int, share: float, ordered: bool
) -> None:
    matrix = sparse(seed, outputs, inputs, share)
    order = np.random.default_rng(seed).permutation(outputs) if ordered else None
    arrays = packed(matrix, window, order)
    found = np.zeros((-(-outputs // 16) * 16, inputs + 2 * window), np.float32)
    for panel, begin, column, value in slots(arrays, window):
        assert 0 <= begin < inputs and (begin <= column).all() and (column < begin + window).all()
        for lane in range(16):
            assert value[lane] == 0 or found[16 * panel + lane, column[lane]] == 0
            found[16 * panel + lane, column[lane]] += value[lane]
    rows = np.arange(outputs) if order is None else order
    np.testing.assert_array_equal(found[:outputs, :inputs], matrix[rows])
    assert not found[outputs:].any() and not found[:, inputs:].any()
    np.testing.assert_array_equal(arrays["bias"], rows)
    if order is not None:
        np.testing.assert_array_equal(arrays["place"], order)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.sampled_from(balanced.WINDOWS),
    outputs=st.integers(1, 50),
    inputs=st.integers(1, 140),
    share=st.floats(0.01, 0.4),
)
def test_slots_are_counted_before_they_are_packed_and_zeros_lie_under_zeros(
    seed: int, window: int, outputs: int, inputs: int, share: float
) -> None:
    matrix = sparse(seed, outputs, inputs, share)
    fit = balanced.fits(matrix).get(window)
    if fit is None:
        return
    arrays = balanced.pack(matrix, np.zeros(outputs, np.float32), fit)
    assert len(arrays["begin"]) == fit.slots
    rows = np.arange(outputs) if fit.order is None else fit.order
    wide = np.concatenate([matrix[rows], np.zeros((outputs, 2 * window), np.float32)], axis=1)
    for panel, _, column, value in slots(arrays, window):
        for lane in range(min(16, outputs - 16 * panel)):
            if value[lane] == 0:  # what is not finite would be seen at a weight that there is
                assert wide[16 * panel + lane, column[lane]] == 0


def fewest(mask: np.ndarray, window: int) -> int:
    """Slots of one panel, by trying all numbers of slots at every window."""
    half = window // 2
    windows = -(-mask.shape[1] // half)
    columns = [np.flatnonzero(row) for row in mask]

    def fine(begins: list[int]) -> bool:
        for row in columns:
            left = list(row)
            for begin in begins:
                if left and begin * half <= left[0] < begin * half + window:
                    left.pop(0)
            if left:
                return False
        return True

    for many in range(20):
        stack: list[list[int]] = [[]]
        while stack:
            begins = stack.pop()
            if len(begins) == many:
                if fine(begins):
                    return many
                continue
            stack += [[*begins, at] for at in range(begins[-1] if begins else 0, windows)]
    raise AssertionError


@pytest.mark.parametrize("seed", range(12))
def test_no_packing_has_fewer_slots(seed: int) -> None:
    mask = np.random.default_rng(seed).random((5, 10)) < 0.25
    assert len(packed(mask.astype(float), 4)["begin"]) == fewest(mask, 4)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8), (1, 16)])
def test_nothing_is_filled_up_where_all_rows_have_equally_many(n: int, m: int) -> None:
    matrix = NM(n=n, m=m).project(torch.randn(48, 160)).numpy()
    for window, fit in balanced.fits(matrix).items():
        assert window < m or (fit.slots == 3 * 160 * n // m and fit.order is None)
    assert set(balanced.fits(matrix)) >= {32, *({m} if m < 16 else ())}


def test_rows_of_a_length_are_put_side_by_side() -> None:
    matrix = np.zeros((32, 64), np.float32)
    matrix[::2, ::4] = 1  # 16 weights in every other row, 4 in the rest
    matrix[1::2, ::16] = 1
    fit = balanced.fits(matrix)[32]
    assert fit.order is not None and fit.order.tolist() == [*range(0, 32, 2), *range(1, 32, 2)] and fit.slots == 20


@pytest.mark.parametrize("matrix", [np.zeros((20, 40)), np.ones((20, 40)), np.eye(3, 2**21, 5)])
def test_what_cannot_be_packed_so_is_not(matrix: np.ndarray) -> None:
    assert balanced.fits(matrix.astype(np.float32)) == {}


# ---- in networks ----

PATTERNS = {
    "2:4": (NM(n=2, m=4), 4),
    "1:8": (NM(n=1, m=8), 8),
    "gs 8x8": (GatherScatter(banks=8, per_row=8, sparsity=0.9), 32),
    "gs 16x1": (GatherScatter(banks=16, per_row=1, sparsity=0.9), 32),
    "darb": (DARB(sparsity=0.9), 32),
}


def layer(pattern: Constraint, outputs: int = 80, inputs: int = 256) -> nn.Linear:
    torch.manual_seed(0)
    found = nn.Linear(inputs, outputs).eval()
    with torch.no_grad():
        found.weight.copy_(pattern.fitted([found.weight.detach()])[0].project(found.weight))
    return found


def kernels_of(engine: openwork.Engine) -> list[str]:
    return [row["kernel"] for row in engine.explain(repeats=1).rows if row["op"] == "linear"]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", PATTERNS)
def test_a_layer_is_as_in_pytorch(name: str, batch: int) -> None:
    pattern, window = PATTERNS[name]
    model = nn.Sequential(layer(pattern), nn.SiLU(), nn.Linear(80, 3)).eval()
    x = torch.randn(batch, 256)
    artifact = openwork.compile(model, x, threads=1, tune="off").artifact
    with torch.no_grad():
        expected = model(x)
    for isa in _native.isas():
        engine = openwork.Engine(artifact, 1, isa)
        assert kernels_of(engine)[0] == f"balanced_f32_{window}x{batch}_{isa}_silu"
        assert (engine(x) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_the_clock_decides_and_all_are_told() -> None:
    single = layer(NM(n=1, m=4))
    x = torch.randn(1, 256)
    engine = openwork.compile(single, x, threads=1, tune="fast")
    (row,) = (row for row in engine.explain(repeats=1).rows if row["op"] == "linear")
    assert {t["kernel"].split("_")[0] for t in row["tried"]} >= {"rows", "balanced"}
    if row["kernel"].startswith("balanced"):
        assert "sparse won" in row["why"] and "inputs at a time" in row["why"]
    with torch.no_grad():
        torch.testing.assert_close(engine(x), single(x), rtol=1e-4, atol=1e-4)


def test_layers_of_one_shape_are_told_apart() -> None:
    """A search is shared by layers that are alike; as many weights elsewhere are another layer."""
    model = nn.Sequential(
        layer(NM(n=1, m=4), 256, 256),
        layer(Block(shape=(4, 1), sparsity=0.75), 256, 256),
        layer(NM(n=1, m=4), 256, 256),
    ).eval()
    x = torch.randn(1, 256)
    engine = openwork.compile(model, x, threads=1, tune="fast")
    with torch.no_grad():
        torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)
    assert not kernels_of(engine)[1].startswith(("balanced_f32_4x", "balanced_f32_8x"))


def test_what_is_not_finite_is_seen_where_pytorch_sees_it() -> None:
    single = layer(GatherScatter(banks=8, per_row=8, sparsity=0.9))
    engine = openwork.compile(single, torch.randn(2, 256), threads=1, tune="off")
    clean = torch.randn(2, 256)
    before = engine(clean)
    for value in (torch.nan, torch.inf):
        x = clean.clone()
        x[1, 7] = value
        with torch.no_grad():
            wanted = single(x)
        found, reads = engine(x), single.weight[:, 7] != 0
        torch.testing.assert_close(found[1, reads], wanted[1, reads], rtol=1e-4, atol=1e-4, equal_nan=True)
        assert torch.equal(found[0], before[0])
        odd = ~torch.isfinite(found[1]) & ~reads
        torch.testing.assert_close(found[1, odd], wanted[1, odd], equal_nan=True)
    assert torch.equal(engine(clean), before)


def test_an_engine_is_fitted_to_the_machine_again(tmp_path) -> None:
    single = layer(NM(n=2, m=4))
    x = torch.randn(3, 256)
    openwork.compile(single, x, threads=1, tune="off").save(tmp_path / "a.openwork")
    engine = openwork.load(tmp_path / "a.openwork", retune=True)
    assert kernels_of(engine)[0].startswith("balanced")
    with torch.no_grad():
        torch.testing.assert_close(engine(x), single(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("seconds", "taken"), [(0.95, "rows"), (0.91, "rows"), (0.89, "balanced"), (0.3, "balanced")])
def test_slots_that_are_filled_up_must_be_worth_their_memory(seconds: float, taken: str) -> None:
    search = _Search([0], {Choice("rows", 4, (1,)): 1.0, Choice("balanced", 32, (1,)): seconds})
    assert search.best().op == taken
    assert ("balanced" in {c.op for c in _ahead(search.alone)}) is (taken == "balanced")
    only = _Search([0], {Choice("balanced", 32, (1,)): seconds})
    assert only.best().op == "balanced"
