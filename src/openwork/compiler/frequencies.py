"""Convolutions of block-circulant weights as three: into frequencies, one for each frequency, and back.

A circulant block is a circular convolution, which a Fourier transform turns into products. With n blocks of b channels
at the input and m at the output, the middle convolution has b / 2 groups of 2 n inputs and 2 m outputs, which is 2 / b
of the products; the transforms around it are 1x1 convolutions in which every output reads the b channels of its block.
All three are layers like any other: they are packed, tuned and run by the kernels that there are.

Source: Ding et al. 2017, arXiv:1708.08917 (CirCNN), which transforms by FFT; here the transforms are sparse matrices,
since b is small.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .circulant import BLOCKS
from .graph import Array, Graph, Node, rewritten, verify
from .integers import is_integer

F64 = NDArray[np.float64]

ROUNDED = 1e-5
"""Error, relative to the largest number of a row, that scaling by batch norm may have left in a circulant block."""


def in_frequencies(graph: Graph) -> Graph | None:
    """The same network with every convolution of circulant blocks in three parts; None if it has no such layer.

    Outputs may differ in scale, as they do where batch norm was folded into the weights. Whether the result is faster
    depends on blocks, channels and the machine: only a clock can tell.
    """
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    for node in graph:
        parts = _parts(graph, node) if _suits(graph, node) else None
        nodes += [node] if parts is None else _three(graph, node, *parts, constants)
    return verify(rewritten(graph, nodes, constants), "in_frequencies") if constants else None


def _suits(graph: Graph, node: Node) -> bool:
    """A convolution over all channels of an image larger than a pixel; of one pixel the circulant step is the means.
    Zeros alone are circulant, too, and nothing to transform."""
    whole = node.op == "conv" and node["groups"] == 1 and node.shape[2:] != (1, 1) and not is_integer(node)
    return whole and bool(graph.constant(node, "weight").any())


def _parts(graph: Graph, node: Node) -> tuple[F64, F64] | None:
    """What each output is scaled by [out], and the first columns [block rows, block columns, positions, b] of the
    largest circulant blocks; None if there are none."""
    weight = graph.constant(node, "weight")
    out, inputs = weight.shape[:2]
    matrix = weight.reshape(out, inputs, -1)
    for b in BLOCKS:
        # the first row of blocks tells nearly always
        if out % b == inputs % b == 0 and _unscaled(matrix[:b], b) and (found := _unscaled(matrix, b)):
            return found
    return None


def _unscaled(weight: Array, b: int) -> tuple[F64, F64] | None:
    """Scales and first columns of a matrix [out, in, positions] whose rows are those of circulant blocks of `b`, each
    times a number."""
    matrix = np.asarray(weight, np.float64)
    out, inputs, positions = matrix.shape
    # the rows of a block hold the same numbers in another order, so their lengths tell the scales but for the signs
    scale = np.linalg.norm(matrix.reshape(out, -1), axis=1)
    rows = matrix / np.where(scale > 0, scale, 1.0)[:, None, None]
    first = rows[::b].reshape(out // b, inputs // b, b, positions)[:, :, -np.arange(b) % b]
    row, column = np.arange(out)[:, None], np.arange(inputs)[None]
    wanted = first[row // b, column // b, (row - column) % b]
    sign = np.where((wanted * rows).sum((1, 2)) < 0, -1.0, 1.0)
    gap = np.abs(wanted * sign[:, None, None] - rows)
    return (scale * sign, first) if gap.max() <= ROUNDED * np.abs(rows).max() else None


def _three(graph: Graph, node: Node, scale: F64, first: F64, constants: dict[str, Array]) -> Iterator[Node]:
    """The node's three parts; the last has its name, bias and everything that is fused into it."""
    m, n, b, _ = first.shape
    weight = graph.constant(node, "weight")
    into, back = _transform(b, n), scale[:, None] * _inverse(b, m)
    products = _by_frequency(np.fft.rfft(first, axis=2), b).reshape(m * b, 2 * n, *weight.shape[2:])
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    window = {k: node[k] for k in ("stride", "padding", "after", "dilation") if k in node.attrs}

    def made(name: str, x: str, shape: tuple[int, ...], matrix: F64, attrs: dict[str, object]) -> Node:
        keys = {"weight": f"{name}.weight.frequencies", "bias": f"{name}.bias.frequencies"}
        constants[keys["weight"]] = matrix.astype(np.float32).reshape(*matrix.shape, *(1,) * (4 - matrix.ndim))
        constants[keys["bias"]] = np.zeros(len(matrix), np.float32)
        # Reports go by the path in the user's model: the last part, which has everything that is fused, keeps it.
        source = node.source and node.source + name.removeprefix(node.name)
        return Node(name, "conv", (x,), shape, attrs, keys, source)

    x = node.inputs[0]
    batch, _, *size = graph[x].shape
    yield made(f"{node.name}.into", x, (batch, n * b, *size), into, plain)
    middle = (batch, m * b, *node.shape[2:])
    yield made(f"{node.name}.products", f"{node.name}.into", middle, products, {**window, "groups": b // 2})
    last = made(node.name, f"{node.name}.products", node.shape, back, plain)
    fused = {k: v for k, v in node.attrs.items() if k not in (*window, "groups")}
    yield replace(
        last,
        inputs=(*last.inputs, *node.inputs[1:]),
        attrs={**plain, **fused},
        constants={**node.constants, "weight": last.constants["weight"]},
    )


def _waves(b: int) -> F64:
    """Two waves for each of b / 2 groups, [b/2, 2, b]: the real and imaginary part of a frequency; in the first group
    the two frequencies that are real, the lowest and the highest."""
    place, frequency = np.arange(b), np.arange(b // 2)[:, None]
    angle = 2 * np.pi * frequency * place / b
    waves = np.stack([np.cos(angle), -np.sin(angle)], 1)
    waves[0, 1] = np.cos(np.pi * place)
    return waves


def _transform(b: int, blocks: int) -> F64:
    """Channels block by block -> frequencies, group by group: of all blocks the first part, then the second.
    [b * blocks, b * blocks]."""
    found = np.zeros((b // 2, 2, blocks, blocks, b))
    here = np.arange(blocks)
    found[:, :, here, here] = _waves(b)[:, :, None]
    return found.reshape(b * blocks, blocks * b)


def _inverse(b: int, blocks: int) -> F64:
    """The way back. Frequencies in the middle stand for two, since those of real numbers come in pairs."""
    waves = _waves(b) * 2 / b
    waves[0] /= 2
    found = np.zeros((blocks, b, b // 2, 2, blocks))
    here = np.arange(blocks)
    found[here, :, :, :, here] = waves.transpose(2, 0, 1)
    return found.reshape(blocks * b, b * blocks)


def _by_frequency(spectrum: NDArray[np.complex128], b: int) -> F64:
    """Weights of the groups, [b/2, 2 m, 2 n, positions], of a spectrum [m, n, b/2 + 1, positions]: a complex product as
    four real ones, and in the first group the products of the two real frequencies."""
    m, n, _, positions = spectrum.shape
    found = np.zeros((b // 2, 2, m, 2, n, positions))
    middle = spectrum[:, :, 1 : b // 2].transpose(2, 0, 1, 3)
    found[1:, 0, :, 0], found[1:, 0, :, 1] = middle.real, -middle.imag
    found[1:, 1, :, 0], found[1:, 1, :, 1] = middle.imag, middle.real
    found[0, 0, :, 0], found[0, 1, :, 1] = spectrum[:, :, 0].real, spectrum[:, :, b // 2].real
    return found.reshape(b // 2, 2 * m, 2 * n, positions)
