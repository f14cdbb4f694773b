"""What a layer may be run by: never nothing."""

import pytest

from openwork.compiler import candidates
from openwork.compiler.candidates import Choice
from openwork.engine import _native
from openwork.formats.program import Step


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("width", candidates.PANELS)
def test_every_image_has_a_dense_tile(isa: str, width: int) -> None:
    """Also those that no tile near the widest cuts evenly, such as 16 pixels by tiles of 14 at most."""
    for w in range(1, 65):
        for h in (1, 2, 3, 7):
            shapes = candidates._dense_tiles(isa, width, h, w)
            assert shapes, (h, w)
            assert all(_native.dense_fits(isa, width, *shape) for shape in shapes)


@pytest.mark.parametrize(
    ("channels", "reach", "tile", "pieces"), [(32, 0, 4, None), (256, 0, 4, 3), (256, 34, 4, 4), (4096, 34, 6, 64)]
)
def test_columns_are_cut_where_a_tile_of_all_channels_exceeds_the_first_cache(channels, reach, tile, pieces):
    """A channel takes a tile's lines, one more, and those that the kernel's rows reach."""
    step = Step("taps", "layer", {"planes": [[[0, 1, channels]]], "shifts": [[0, 0], [0, reach]]})
    found = candidates.in_pieces(step, Choice("taps", 4, (tile,)))
    assert (found and found.pieces) == pieces
