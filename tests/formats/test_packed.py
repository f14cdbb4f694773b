"""What every storage format owes: files come back as they were, and no file that lies gets through."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from openwork import plugins
from openwork.constraints.base import Constraint
from openwork.errors import ArtifactError, ShapeError
from openwork.formats.packed import base
from openwork.formats.packed.base import Packed
from openwork.formats.packed.codes import Codes

SHAPES = [(16, 32), (8, 16, 3, 3)]


def examples() -> list[Packed]:
    """A member of every constraint, stored."""
    found = []
    for cls in plugins.every("constraints", Constraint).values():
        for example in cls.EXAMPLES:
            for shape in SHAPES:
                w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
                try:
                    cls(**example).check(shape)
                except ShapeError:
                    continue
                (constraint,) = cls(**example).fitted([w])
                z = constraint.project(w)
                found.append(base.pack(constraint.storage, z.numpy(), **constraint.layout_of(z)))
    # Codes hold the numbers of a weight in another format, which has to be as good by itself.
    return found + [inner for packed in found if isinstance(packed, Codes) and (inner := packed.numbers()) is not None]


EXAMPLES = examples()
every = pytest.mark.parametrize("packed", EXAMPLES, ids=lambda p: f"{p.kind()}-{len(p.shape)}")


def test_every_format_holds_a_constraint() -> None:
    assert {p.kind() for p in EXAMPLES} == set(plugins.names(base.ROOM))


@every
def test_a_file_comes_back_as_it_was(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "weight.safetensors"
    packed.save(path)
    back = base.load(path)
    assert type(back) is type(packed) and back.shape == packed.shape
    assert np.array_equal(back.unpack(), packed.unpack())
    assert all(np.array_equal(a, back.arrays[name]) for name, a in packed.arrays.items())
    assert 0 <= path.stat().st_size - packed.nbytes < 1200, "a file is its arrays and a short header"


@every
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damaged_arrays_are_refused_or_are_a_weight(packed: Packed, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(packed.arrays)))
    array = packed.arrays[name].copy()
    how = data.draw(st.sampled_from(["number", "cut", "longer", "type", "axis"]))
    if how == "number" and array.size:
        limit = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
        value = data.draw(st.integers(limit.min, limit.max)) if limit else data.draw(st.floats(width=32))
        array.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = value
    elif how == "cut":
        array = array[: data.draw(st.integers(0, max(0, len(array) - 1)))]
    elif how == "longer":
        array = np.concatenate([array, array[:1]])
    elif how == "type":
        array = array.astype(np.float64)
    else:
        array = array[None]
    content: dict[str, Any] = {**vars(packed), name: array}
    try:
        made = type(packed)(**content)
    except ArtifactError as error:
        assert packed.kind() in str(error)
        return
    assert made.unpack().shape == packed.shape


@pytest.mark.parametrize("shape", [(), (4,), (0, 4), (4, -1), (1 << 40, 1 << 40)], ids=str)
@pytest.mark.parametrize("packed", {p.kind(): p for p in EXAMPLES}.values(), ids=lambda p: p.kind())
def test_shapes_that_the_arrays_do_not_fill_are_refused(packed: Packed, shape: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError):
        type(packed)(**{**vars(packed), "shape": shape})


def test_files_that_are_no_packed_weight_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weight.safetensors"
    with pytest.raises(ArtifactError, match="not a packed weight"):
        base.load(path)
    save_file({"x": np.zeros(3, np.float32)}, path)
    with pytest.raises(ArtifactError, match="not a packed weight"):
        base.load(path)
    save_file({"x": np.zeros(3, np.float32)}, path, {"openwork_weight": '{"format": "nonsense"}'})
    with pytest.raises(ArtifactError, match="unknown format 'nonsense'"):
        base.load(path)
    EXAMPLES[0].save(path)
    save_file(load_file(path) | {"more": np.zeros(1, np.float32)}, path, {"openwork_weight": '{"format": "csr"}'})
    with pytest.raises(ArtifactError, match="csr has index, shape, start, value"):
        base.load(path)
