"""How recurrent weights are packed, against the matrix that they come from."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.compiler.recurrent import Cells, arrange, pack


def sparse(cells: Cells, density: float, seed: int) -> np.ndarray:
    """Random weights, about a third of the rows and columns empty."""
    rng = np.random.default_rng(seed)
    shape = (cells.directions * cells.gates * cells.hidden, cells.hidden)
    mask = (rng.random(shape) < density) & (rng.random((shape[0], 1)) < 0.7) & (rng.random((1, shape[1])) < 0.7)
    return np.where(mask, rng.standard_normal(shape), 0).astype(np.float32)


def unpacked(cells: Cells, fields, arrays) -> tuple[np.ndarray, np.ndarray]:
    """The matrix [gated, units] that packed weights stand for, and how often each of its rows is computed."""
    width, value = fields["width"], arrays["value"].reshape(-1, fields["width"])
    matrix, computed = np.zeros((cells.gated, cells.units), np.float32), np.zeros(cells.gated, int)
    panel = at = 0
    for group, count in enumerate(arrays["panels"]):
        columns = arrays["index"][arrays["start"][group] : arrays["start"][group + 1]]
        for _ in range(count):
            rows = arrays["place"][panel * width : (panel + 1) * width]
            used = rows >= 0
            matrix[np.ix_(rows[used], columns)] = value[at : at + len(columns), used].T
            computed[rows[used]] += 1
            assert not value[at : at + len(columns), ~used].any()
            panel, at = panel + 1, at + len(columns)
    assert at == len(value) and panel * width == len(arrays["bias"])
    return matrix, computed


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["gru", "lstm", "tanh"]),
    hidden=st.integers(1, 90),
    directions=st.integers(1, 2),
    width=st.sampled_from([16, 32, 64]),
    parts=st.integers(1, 7),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    dense=st.booleans(),
    seed=st.integers(0, 99),
)
def test_packed_weights_are_the_matrix_and_rows_without_a_weight_are_left_out(
    kind, hidden, directions, width, parts, density, dense, seed
):
    cells = Cells(kind, hidden, directions)
    matrix = sparse(cells, density, seed)
    bias = np.arange(len(matrix), dtype=np.float32)
    fields, arrays = pack(matrix, bias, cells, width, parts, dense)
    found, computed = unpacked(cells, fields, arrays)
    places = cells.places()
    blocks = found.reshape(directions, -1, directions, cells.padded)
    for d, rows in enumerate(np.split(matrix, directions)):
        own = blocks[d].reshape(cells.gates, cells.padded, directions, cells.padded)[:, :hidden]
        np.testing.assert_array_equal(own[:, :, d, :hidden].reshape(rows.shape), rows)
        own[:, :, d, :hidden] = 0
    assert not found.any()  # nothing reads the other direction, or padding
    np.testing.assert_array_equal(computed[places], 1 if dense else matrix.any(axis=1))
    assert computed.sum() == computed[places].sum()
    np.testing.assert_array_equal(arrays["rest"][places], bias)
    used = arrays["place"] >= 0
    np.testing.assert_array_equal(arrays["bias"][used], arrays["rest"][arrays["place"][used]])


@settings(max_examples=50, deadline=None)
@given(hidden=st.integers(1, 300), directions=st.integers(1, 2), parts=st.integers(1, 9), seed=st.integers(0, 99))
def test_parts_cover_all_units_once_and_share_the_work(hidden, directions, parts, seed):
    cells = Cells("gru", hidden, directions)
    layout = arrange(sparse(cells, 0.3, seed), cells, 16, parts, False)
    assert layout.units[0] == 0 and layout.units[-1] == cells.units
    assert all(b > a and a % 16 == 0 for a, b in zip(layout.units, layout.units[1:], strict=False))
    assert len(layout.parts) == len(layout.units) - 1 <= parts
    assert len(layout.parts) == parts or cells.units < 64 * parts


def test_a_dense_part_is_cut_where_panels_end():
    cells = Cells("gru", 512, 1)
    layout = arrange(np.ones((1536, 512), np.float32), cells, 64, 3, True)
    assert [u % 64 for u in layout.units] == [0, 0, 0, 0]
    assert all(len(p.rows) == 64 for part in layout.parts for p in part)


def test_the_blocks_of_rtmobile_need_no_fill_in_and_one_list_of_columns_a_strip():
    """Column blocks in strips of 128 rows, then rows pruned at random: panels hold weights only, lists are shared."""
    rng = np.random.default_rng(0)
    cells = Cells("gru", 512, 1)
    columns = rng.random((12, 512)) < 0.2
    mask = columns.repeat(128, axis=0) & (rng.random((1536, 1)) < 0.5)
    matrix = np.where(mask, 1, 0).astype(np.float32)
    fields, arrays = pack(matrix, np.zeros(1536, np.float32), cells, 16, 1, False)
    found, _ = unpacked(cells, fields, arrays)
    np.testing.assert_array_equal(found, matrix)
    assert len(arrays["value"]) < 1.2 * mask.sum()  # panels across two strips read the columns of both
    assert len(arrays["index"]) < 3 * columns.sum()  # ... of which there is one at each border
