"""Between passes every graph is checked: what is broken is found, and named with the pass that did it."""

from dataclasses import replace

import pytest
from graphs import POOL, conv, graph, node, x

from openwork.compiler.graph import verify
from openwork.errors import CompileError


def broken(change):
    g = graph(x(), conv("c", "x"), node("a", "add", "c x", (1, 2, 6, 6)))
    return change(g)


def with_node(g, at, **changes):
    return replace(g, nodes=(*g.nodes[:at], replace(g.nodes[at], **changes), *g.nodes[at + 1 :]))


BROKEN = [
    ("named twice", lambda g: replace(g, nodes=(*g.nodes, g.nodes[-1]))),
    ("before it is made", lambda g: replace(g, nodes=(g.nodes[0], g.nodes[2], g.nodes[1]))),
    ("before it is made", lambda g: with_node(g, 2, inputs=("c", "nobody"))),
    ("constant that is not there", lambda g: replace(g, constants={})),
    ("unknown operator 'dance'", lambda g: with_node(g, 2, op="dance")),
    ("are not made by any node", lambda g: replace(g, outputs=("nobody",))),
    (r"shape \(1, 2, 5, 6\), but its inputs imply \(1, 2, 6, 6\)", lambda g: with_node(g, 1, shape=(1, 2, 5, 6))),
    ("inputs imply", lambda g: with_node(g, 2, shape=(1, 3, 6, 6))),
    ("inputs imply", lambda g: with_node(g, 2, op="clamp", inputs=("c",), shape=(1, 2, 6, 5))),
    ("inputs imply", lambda g: with_node(g, 2, op="flatten", inputs=("c",), shape=(1, 71))),
    ("inputs imply", lambda g: with_node(g, 2, op="concat", shape=(1, 2, 6, 6))),
    ("inputs imply", lambda g: with_node(g, 2, op="mean", inputs=("c",), shape=(1, 2))),
    ("inputs imply", lambda g: with_node(g, 2, op="max_pool", inputs=("c",), attrs=POOL, shape=(1, 2, 3, 4))),
    ("inputs imply", lambda g: with_node(g, 2, op="avg_pool", inputs=("c",), attrs=POOL, shape=(1, 2, 6, 6))),
    ("inputs imply", lambda g: with_node(g, 2, op="pad", inputs=("c",), attrs={"amounts": ((0, 1), (0, 0), (0, 0))})),
    (
        "inputs imply",
        lambda g: with_node(
            g, 2, op="slice", inputs=("c",), attrs={"start": (0, 0, 0), "stop": (2, 6, 6), "step": (1, 2, 1)}
        ),
    ),
    ("inputs imply", lambda g: with_node(g, 2, op="scale", inputs=("c",), shape=(1, 2, 6))),
    ("inputs imply", lambda g: with_node(g, 2, op="linear", inputs=("c",), constants={"weight": "c.weight"})),
]


@pytest.mark.parametrize(("message", "change"), BROKEN)
def test_verify_finds_a_broken_graph(message, change):
    with pytest.raises(CompileError, match=rf"internal error after a pass.*{message}"):
        verify(broken(change), "a pass")


def test_verify_accepts_the_graph_that_those_were_made_from():
    assert verify(broken(lambda g: g), "a pass").outputs == ("a",)
