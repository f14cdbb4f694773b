"""Codes: bit by bit, bytes by the papers' formulas, in the places of every pattern."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openwork import plugins
from openwork.constraints.and_ import And
from openwork.constraints.base import Constraint
from openwork.constraints.levels import Levels
from openwork.constraints.unstructured import Unstructured
from openwork.errors import ArtifactError, ShapeError
from openwork.formats.packed import base
from openwork.formats.packed.codes import Codes


def stored(constraint: Constraint, w: torch.Tensor) -> Codes:
    z = constraint.project(w)
    packed = base.pack(constraint.storage, z.numpy(), **constraint.layout_of(z))
    assert isinstance(packed, Codes) and np.array_equal(packed.unpack(), z.numpy())
    return packed


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("scheme", "bits", "weight", "codes", "scale"),
    [
        # two's complement of 3 bits: 1, -3, 0, 2
        ("uniform", 3, [0.5, -1.5, 0, 1], [0b00_101_001, 0b010_0], [0.5]),
        # a bit each, 1 for minus
        ("uniform", 1, [2, -2, -2, 2], [0b0110], [2]),
        # sign and multiple - 1: 1, -2, 4, -4
        ("nonzero", 3, [0.25, -0.5, 1, -1], [0b11_101_000, 0b111_0], [0.25]),
        # halvings + 1 with their sign: 1, -2, 0, 3
        ("power_of_two", 3, [4, -2, 0, 1], [0b00_110_001, 0b011_0], [4]),
        # the values that are no zero, rising, from 1 on
        ("codebook", 2, [7, -1, 0, 0.5], [0b10_00_01_11], [-1, 0.5, 7]),
    ],
)
def test_every_scheme_bit_by_bit(
    scheme: str, bits: int, weight: list[float], codes: list[int], scale: list[float]
) -> None:
    packed = base.pack("codes", np.array([weight], np.float32), bits=bits, scheme=scheme, per="layer")
    assert isinstance(packed, Codes)
    assert packed.codes.tolist() == codes and packed.scale.tolist() == [scale] and packed.pattern == ""
    assert packed.unpack().tolist() == [weight]


@pytest.mark.parametrize("per", ["layer", "channel"])
@pytest.mark.parametrize("scheme", ["uniform", "nonzero", "power_of_two"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_dense_weights_take_their_bits_and_a_scale(bits: int, scheme: str, per: str) -> None:
    if (bits, scheme) == (1, "power_of_two"):
        return
    w = random(7, 45)
    packed = stored(Levels(bits=bits, scheme=scheme, per=per), w)  # type: ignore[arg-type]
    groups = 7 if per == "channel" else 1
    if packed.pattern == "":
        assert packed.nbytes == -(-7 * 45 * bits // 8) + 4 * groups
    else:  # of 2 bits so many are zero that places take less
        assert packed.nbytes < -(-7 * 45 * bits // 8) + 4 * groups
    book = stored(Levels(bits=bits, scheme="codebook", per=per), w)  # type: ignore[arg-type]
    used = max(len(np.unique(row)) for row in book.unpack().reshape(groups, -1))
    assert book.nbytes == -(-7 * 45 * bits // 8) + 4 * groups * used and used <= 2**bits


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_sparse_weights_take_bits_for_values_and_for_relative_indices(bits: int) -> None:
    both = And(of=(Unstructured(sparsity=0.95), Levels(bits=bits, scheme="nonzero")))
    packed = stored(both, random(40, 60))
    relative = packed.numbers()
    assert relative is not None and packed.pattern == "relative"
    assert packed.value_bytes == -(-120 * bits // 8) + 4
    assert packed.nbytes == packed.value_bytes + relative.arrays["gap"].nbytes


LENET5 = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}


def test_lenet5_with_3_and_2_bits_has_the_published_size(tmp_path: Path) -> None:
    """ADMM-NN: some 2.57 thousand of 430,500 weights, 3 bits in convolutions and 2 in linear layers, are 1,910 times
    less without indices; so 2,073 of them lie in convolutions. With indices it is some 623 times less, which depends
    on how many lie in which layer: that is our guess here."""
    left = {"conv1": 100, "conv2": 1973, "fc1": 400, "fc2": 97}
    data = total = on_disk = 0
    for name, shape in LENET5.items():
        w = random(*shape)
        b = 3 if name.startswith("conv") else 2
        both = And(of=(Unstructured(sparsity=1 - left[name] / w.numel()), Levels(bits=b, scheme="nonzero")))
        packed = stored(both, w)
        assert packed.value_bytes == -(-left[name] * b // 8) + 4
        packed.save(tmp_path / name)
        data, total = data + packed.value_bytes, total + packed.nbytes
        on_disk += (tmp_path / name).stat().st_size
    assert (data, total) == (919, 3009)
    dense = 4 * sum(np.prod(shape) for shape in LENET5.values())
    assert dense / (data - 16) == pytest.approx(1910, abs=10), "the publication leaves the intervals out"
    assert dense / total == pytest.approx(623, rel=0.1)
    assert on_disk - total < 4 * 1200, "headers"


def test_lenet5_in_binary_takes_a_bit_a_weight() -> None:
    packed = [stored(Levels(bits=1, zeros="level"), random(*shape)) for shape in LENET5.values()]
    assert 8 * sum(p.codes.nbytes for p in packed) in range(430_500, 430_500 + 32)
    assert sum(p.scale.nbytes for p in packed) == 4 * 4


PATTERNS = [
    {"kind": "block", "shape": (4, 1), "sparsity": 0.75},
    {"kind": "block_column", "shape": (4, 4), "sparsity": 0.75},
    {"kind": "filter", "sparsity": 0.5},
    {"kind": "column", "sparsity": 0.5},
    {"kind": "nm", "n": 2, "m": 4},
    {"kind": "permuted", "of": {"kind": "nm", "n": 2, "m": 4}},
    {"kind": "gather_scatter", **plugins.find("constraints", "gather_scatter", Constraint).EXAMPLES[0]},
    {"kind": "darb", **plugins.find("constraints", "darb", Constraint).EXAMPLES[0]},
    {"kind": "pattern"},
    {"kind": "unified", "shape": (4, 4), "unified": 0.5, "pruned": 0.25},
    {"kind": "polarized", **plugins.find("constraints", "polarized", Constraint).EXAMPLES[0]},
    {"kind": "circulant", "block": 4},
]


@pytest.mark.parametrize("per", ["layer", "channel"])
@pytest.mark.parametrize(("bits", "scheme"), [(1, "uniform"), (4, "uniform"), (3, "nonzero"), (3, "codebook")])
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p["kind"])
def test_every_pattern_holds_codes_in_its_places(pattern: dict[str, Any], bits: int, scheme: str, per: str) -> None:
    w = random(8, 16, 3, 3)
    both = And(of=(pattern, {"kind": "levels", "bits": bits, "scheme": scheme, "per": per}))  # type: ignore[arg-type]
    (both,) = both.fitted([w])  # type: ignore[assignment]
    packed = stored(both, w)
    alone = both.of[0]
    z = alone.project(w)
    floats = base.pack(alone.storage, z.numpy(), **alone.layout_of(z))
    assert packed.nbytes < floats.nbytes
    if per == "layer" and pattern["kind"] == "nm" and scheme != "uniform":
        assert packed.pattern == alone.storage
        indices = sum(a.nbytes for a in floats.arrays.values() if a.dtype != np.float32)
        assert packed.places.nbytes == indices


def test_weights_on_no_levels_are_refused() -> None:
    for scheme in ("uniform", "nonzero", "power_of_two", "codebook"):
        for per in ("layer", "channel"):
            with pytest.raises(ShapeError, match="on no levels of 2 bits; project"):
                base.pack("codes", random(4, 9).numpy(), bits=2, scheme=scheme, per=per)
    with pytest.raises(ShapeError, match="no levels"):
        base.pack("codes", np.array([[np.nan, 1]], np.float32), bits=2)


def test_fields_that_are_none_are_refused() -> None:
    packed = stored(And(of=(Unstructured(sparsity=0.9), Levels(bits=3))), random(16, 16))
    wrong: list[dict[str, Any]] = [
        {"bits": 0},
        {"bits": 10},
        {"bits": 2},
        {"zero": 1},
        {"kind_of_numbers": "floats"},
        {"pattern": "nonsense"},
        {"pattern": "csr"},
        {"pattern": ""},
        {"settings": {}},
        {"settings": 3},
        {"fields": ()},
        {"fields": (("gap", "float64", (3,)),)},
        {"fields": 7},
        {"places": packed.places[:-1]},
        {"scale": np.ones((2, 1), np.float32)},
        {"scale": np.full((1, 1), np.nan, np.float32)},
        {"scale": np.full((1, 1), np.inf, np.float32)},
        {"scale": np.full((1, 1), 3e38, np.float32)},
    ]
    for fields in wrong:
        with pytest.raises(ArtifactError, match="codes"):
            type(packed)(**{**vars(packed), **fields})
