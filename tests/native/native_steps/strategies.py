"""What property tests of several kinds of steps draw at random."""

from typing import Any

from hypothesis import strategies as st

byte_bounds = st.sampled_from([(0, 255), (-128, 127), (-127, 127), (0, 15), (3, 200), (-7, 7), (0, 0)])


@st.composite
def grids(draw: st.DrawFn, height: int = 9, width: int = 40) -> tuple[int, int, int, int, int]:
    """Batch, stride, pitch, height and width, at most these, of images with shared padding."""
    h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
    pitch = w + draw(st.integers(0, 3))
    return draw(st.integers(1, 3)), (h + draw(st.integers(0, 2))) * pitch, pitch, h, w


@st.composite
def depthwise_windows(draw: st.DrawFn, kernels: list[tuple[int, int]], batch: int = 3) -> dict[str, Any]:
    """Sizes of images, up to `batch` of them, and of outputs that do not depend on each other, a kernel, one of these
    or any, a stride, and the zeros in front."""
    most, sizes = (14, 40), st.integers(1, 15)
    kernel = draw(st.sampled_from(kernels) | st.tuples(sizes, sizes))
    return {
        "shape": (draw(st.integers(1, batch)), draw(st.integers(1, 3)), *(draw(st.integers(1, n)) for n in most)),
        "out": tuple(draw(st.integers(1, n)) for n in most),
        "kernel": kernel,
        "stride": draw(st.integers(1, 2)),
        "before": tuple(draw(st.integers(0, k + 1)) for k in kernel),
    }
