"""Small graphs for tests of passes: nodes in few words, and the text of a graph as tests write it."""

import re
from dataclasses import replace

import numpy as np

from openwork import plugins
from openwork.compiler.graph import Graph, Node, verify
from openwork.compiler.integers import Bytes

ONE = (1, 1)
CONV = {"stride": ONE, "padding": (0, 0), "dilation": ONE, "groups": 1}
POOL = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": ONE, "ceil": False}


def node(name, op, inputs, shape, constants=(), **attrs):
    """A node whose constants are called after it."""
    return Node(name, op, tuple(inputs.split()), shape, attrs, {role: f"{name}.{role}" for role in constants})


def x(shape=(1, 2, 6, 6)):
    return Node("x", "input", (), shape)


def conv(name, inputs, shape=(1, 2, 6, 6), **attrs):
    return node(name, "conv", inputs, shape, ("weight", "bias"), **{**CONV, **attrs})


def scale(name, inputs, shape=(1, 2, 6, 6)):
    return node(name, "scale", inputs, shape, ("weight", "bias"))


def linear(name, inputs, shape):
    return node(name, "linear", inputs, shape, ("weight", "bias"))


def whole(layer):
    """A layer with weights of whole numbers."""
    return replace(layer, constants={**layer.constants, "step": f"{layer.name}.step"})


def prelu(name, inputs, shape=(1, 2, 6, 6), op="pointwise"):
    return node(name, op, inputs, shape, ("slope",), act=("leaky_relu",))


def pool(name, inputs, shape=(1, 2, 3, 3), **attrs):
    return node(name, "max_pool", inputs, shape, **{**POOL, **attrs})


def graph(*nodes, returns=None, kernel=1):
    """A graph of these nodes; every weight is filled with 2, 3, 4, ..., every bias with 10, 20, ..."""
    constants = {}
    shapes = {n.name: n.shape for n in nodes}
    for n in nodes:
        if n.op in ("embedding", "constant"):
            (role,) = n.constants
            shape = (5, n.shape[-1]) if role == "table" else (1, *n.shape[1:])
            constants[n.constants[role]] = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        elif n.op == "linear":
            shape = (n.shape[-1], shapes[n.inputs[0]][-1])
            constants[f"{n.name}.weight"] = np.arange(2, 2 + np.prod(shape), dtype=np.float32).reshape(shape)
            constants[f"{n.name}.bias"] = 10 * np.arange(1, 1 + n.shape[-1], dtype=np.float32)
        elif "slope" in n.constants:
            constants[f"{n.name}.slope"] = np.full(n.shape[1], 0.5, np.float32)
        elif n.constants:
            out, into = n.shape[1], shapes[n.inputs[0]][1]
            shape = {
                "conv": (out, into, kernel, kernel),
                "conv_transpose": (out, into, kernel, kernel),
                "scale": (out,),
            }[n.op]
            constants[f"{n.name}.weight"] = np.arange(2, 2 + np.prod(shape), dtype=np.float32).reshape(shape)
            constants[f"{n.name}.bias"] = 10 * np.arange(1, 1 + out, dtype=np.float32)
        if "step" in n.constants:
            constants[f"{n.name}.step"] = np.ones(n.shape[1], np.float32)
    return verify(Graph(tuple(nodes), tuple((returns or nodes[-1].name).split()), constants), "building")


def lines(text):
    """Text of a graph, indented as the test likes, with short words for the attributes that do not matter."""
    plain = "dilation=(1,1) groups=1 padding=(0,0) stride=(1,1)"
    clamped = r"dilation=(1,1) groups=1 hi=\1 lo=\2 padding=(0,0) stride=(1,1)"
    text = text.replace("EXTRA", plain.replace("groups", "extra=(0,0) groups"))
    text = re.sub(r"CLAMPED:hi=(\S+),lo=(\S+)", clamped, text).replace("CONV", plain)
    text = re.sub(r"SIDES:(\S+):(\S+)", r"after=\2 dilation=(1,1) groups=1 padding=\1 stride=(1,1)", text)
    return [line.strip() for line in text.strip().splitlines()]


def after(name, g):
    return verify(plugins.module("compiler.passes", name).run(g), name)


WORDS = (1, 9, 4)


def words(name, op, inputs="", constants=(), shape=WORDS, **attrs):
    return node(name, op, inputs, shape, constants, **attrs)


def rounding(name, inputs, shape=(1, 2, 6, 6), lo=-127, hi=127, scale=0.5):
    return node(name, "quantize", inputs, shape, bytes=Bytes(scale, lo, hi))
