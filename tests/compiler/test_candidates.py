"""What a layer may be run by: never nothing."""

import pytest

from openwork.compiler import candidates
from openwork.engine import _native


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("width", candidates.PANELS)
def test_every_image_has_a_dense_tile(isa: str, width: int) -> None:
    """Also those that no tile near the widest cuts evenly, such as 16 pixels by tiles of 14 at most."""
    for w in range(1, 65):
        for h in (1, 2, 3, 7):
            shapes = candidates._dense_tiles(isa, width, h, w)
            assert shapes, (h, w)
            assert all(_native.dense_fits(isa, width, *shape) for shape in shapes)
