"""Each pass on small graphs: the text before and after; and that `verify` finds what a broken pass would do."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import ONE, WORDS, after, conv, graph, linear, lines, node, pool, prelu, rounding, scale, words, x
from integer_pass_cases import INTEGERS
from torch import Generator, no_grad, randn
from torch.testing import assert_close

from openwork import compile, plugins
from openwork.compiler.graph import Node
from openwork.compiler.operators import window_size
from openwork.compiler.optimize import optimize, passes

GOLDEN = [
    (
        "fold_embedding",
        "rows that are added to an embedding come along with it, one after the other",
        lambda: graph(
            x((1, 9)),
            words("e", "embedding", "x", ["table"]),
            words("p", "constant", "", ["value"]),
            words("q", "constant", "", ["value"]),
            words("a", "add", "e p"),
            words("b", "add", "q a"),
        ),
        """
        x: 1x9 = input()
        b: 1x9x4 = embedding(x) added=%b.added table=%e.table
        return b
        """,
    ),
    (
        "fold_embedding",
        "an embedding that others read, a clamp, and two embeddings stay",
        lambda: graph(
            x((1, 9)),
            words("e", "embedding", "x", ["table"]),
            words("f", "embedding", "x", ["table"]),
            words("p", "constant", "", ["value"]),
            words("a", "add", "e p"),
            words("b", "add", "f p", lo=0.0),
            words("c", "add", "e f"),
            returns="a b c",
        ),
        """
        x: 1x9 = input()
        e: 1x9x4 = embedding(x) table=%e.table
        f: 1x9x4 = embedding(x) table=%f.table
        p: 1x9x4 = constant() value=%p.value
        a: 1x9x4 = add(e, p)
        b: 1x9x4 = add(f, p) lo=0.0
        c: 1x9x4 = add(e, f)
        return a, b, c
        """,
    ),
    (
        "merge_linears",
        "matrices on the same tokens are one, with different clamps they are not",
        lambda: graph(
            x(WORDS),
            linear("q", "x", (1, 9, 3)),
            linear("k", "x", (1, 9, 2)),
            linear("r", "x", (1, 9, 2)).with_attrs(lo=0.0),
            linear("o", "q", (1, 9, 2)),
            returns="k r o",
        ),
        """
        x: 1x9x4 = input()
        q.merged: 1x9x5 = linear(x) bias=%q.merged.bias weight=%q.merged.weight
        q: 1x9x3 = features(q.merged) first=0
        k: 1x9x2 = features(q.merged) first=3
        r: 1x9x2 = linear(x) lo=0.0 bias=%r.bias weight=%r.weight
        o: 1x9x2 = linear(q) bias=%o.bias weight=%o.weight
        return k, r, o
        """,
    ),
    (
        "merge_added_convs",
        "the shortcut of a residual block is part of the sum; kernels of 3x3, several readers and clamps keep apart",
        lambda: graph(
            x((1, 2, 6, 6)),
            conv("a", "x", (1, 3, 6, 6)),
            conv("b", "x", (1, 3, 6, 6)),
            conv("c", "x a", (1, 3, 6, 6), lo=0.0),
            conv("d", "x b", (1, 3, 6, 6)),
            conv("e", "x", (1, 3, 6, 6), lo=0.0),
            conv("f", "x e", (1, 3, 6, 6)),
            returns="c d f b",
        ),
        """
        x: 1x2x6x6 = input()
        b: 1x3x6x6 = conv(x) dilation=(1,1) groups=1 padding=(0,0) stride=(1,1) bias=%b.bias weight=%b.weight
        c: 1x3x6x6 = conv_sum(x, x) groups=1 lo=0.0 strides=((1,1),(1,1)) bias=%c.bias.sum weight=%c.weight.sum
        d: 1x3x6x6 = conv(x, b) dilation=(1,1) groups=1 padding=(0,0) stride=(1,1) bias=%d.bias weight=%d.weight
        e: 1x3x6x6 = conv(x) dilation=(1,1) groups=1 lo=0.0 padding=(0,0) stride=(1,1) bias=%e.bias weight=%e.weight
        f: 1x3x6x6 = conv(x, e) dilation=(1,1) groups=1 padding=(0,0) stride=(1,1) bias=%f.bias weight=%f.weight
        return c, d, f, b
        """,
    ),
    (
        "merge_linears",
        "few tokens are rows, and stay apart",
        lambda: graph(
            x((1, 3, 4)),
            linear("q", "x", (1, 3, 3)),
            linear("k", "x", (1, 3, 2)),
            returns="q k",
        ),
        """
        x: 1x3x4 = input()
        q: 1x3x3 = linear(x) bias=%q.bias weight=%q.weight
        k: 1x3x2 = linear(x) bias=%k.bias weight=%k.weight
        return q, k
        """,
    ),
    (
        "fold_batch_norm",
        "conv and batch norm",
        lambda: graph(x(), conv("c", "x"), scale("b", "c")),
        """
        x: 1x2x6x6 = input()
        b: 1x2x6x6 = conv(x) CONV bias=%b.folded.bias weight=%b.folded.weight
        return b
        """,
    ),
    (
        "fold_batch_norm",
        "transposed conv and batch norm",
        lambda: graph(x(), replace(conv("c", "x", extra=(0, 0)), op="conv_transpose"), scale("b", "c")),
        """
        x: 1x2x6x6 = input()
        b: 1x2x6x6 = conv_transpose(x) EXTRA bias=%b.folded.bias weight=%b.folded.weight
        return b
        """,
    ),
    (
        "fuse_activation",
        "not one slope a channel into a transposed conv, whose outputs are other rows",
        lambda: graph(x(), replace(conv("c", "x", extra=(0, 0)), op="conv_transpose"), prelu("s", "c")),
        None,
    ),
    (
        "fold_batch_norm",
        "linear and batch norm",
        lambda: graph(x((3, 4)), linear("l", "x", (3, 2)), scale("b", "l", (3, 2))),
        """
        x: 3x4 = input()
        b: 3x2 = linear(x) bias=%b.folded.bias weight=%b.folded.weight
        return b
        """,
    ),
    (
        "fold_batch_norm",
        "not where something else reads the conv",
        lambda: graph(x(), conv("c", "x"), scale("b", "c"), returns="b c"),
        None,
    ),
    ("fold_batch_norm", "not behind a clamp", lambda: graph(x(), conv("c", "x", lo=0.0), scale("b", "c")), None),
    ("fold_batch_norm", "not without a layer", lambda: graph(x(), scale("b", "x")), None),
    (
        "fuse_clamp",
        "conv, relu, relu6",
        lambda: graph(
            x(),
            conv("c", "x"),
            node("r", "clamp", "c", (1, 2, 6, 6), lo=0.0),
            node("s", "clamp", "r", (1, 2, 6, 6), lo=-1.0, hi=6.0),
        ),
        """
        x: 1x2x6x6 = input()
        s: 1x2x6x6 = conv(x) CLAMPED:hi=6.0,lo=0.0 bias=%c.bias weight=%c.weight
        return s
        """,
    ),
    (
        "fuse_clamp",
        "bounds that do not meet: the outer one wins",
        lambda: graph(
            x(), node("r", "clamp", "x", (1, 2, 6, 6), hi=-1.0), node("s", "clamp", "r", (1, 2, 6, 6), lo=0.0)
        ),
        """
        x: 1x2x6x6 = input()
        s: 1x2x6x6 = clamp(x) hi=0.0 lo=0.0
        return s
        """,
    ),
    (
        "fuse_clamp",
        "not where something else reads the conv",
        lambda: graph(
            x(), conv("c", "x"), node("r", "clamp", "c", (1, 2, 6, 6), lo=0.0), node("a", "add", "c r", (1, 2, 6, 6))
        ),
        None,
    ),
    (
        "fuse_clamp",
        "not into pooling",
        lambda: graph(
            x(),
            node(
                "p",
                "max_pool",
                "x",
                (1, 2, 3, 3),
                kernel=(2, 2),
                stride=(2, 2),
                padding=(0, 0),
                dilation=ONE,
                ceil=False,
            ),
            node("r", "clamp", "p", (1, 2, 3, 3), lo=0.0),
        ),
        None,
    ),
    (
        "fuse_activation",
        "conv, silu",
        lambda: graph(x(), conv("c", "x"), node("s", "pointwise", "c", (1, 2, 6, 6), act=("silu",))),
        """
        x: 1x2x6x6 = input()
        s: 1x2x6x6 = conv(x) act=('silu',) CONV bias=%c.bias weight=%c.weight
        return s
        """,
    ),
    (
        "fuse_activation",
        "one slope a channel",
        lambda: graph(x(), conv("c", "x"), prelu("s", "c")),
        """
        x: 1x2x6x6 = input()
        s: 1x2x6x6 = conv(x) act=('leaky_relu',) CONV bias=%c.bias slope=%s.slope weight=%c.weight
        return s
        """,
    ),
    (
        "fuse_activation",
        "not one slope a channel into what may become a fully connected layer",
        lambda: graph(x((1, 2, 1, 1)), conv("c", "x", (1, 2, 1, 1)), prelu("s", "c", (1, 2, 1, 1))),
        None,
    ),
    (
        "fuse_activation",
        "not behind a clamp or another activation",
        lambda: graph(
            x(),
            conv("c", "x", lo=0.0),
            node("s", "pointwise", "c", (1, 2, 6, 6), act=("silu",)),
            conv("d", "s", act=("tanh",)),
            node("t", "pointwise", "d", (1, 2, 6, 6), act=("leaky_relu", 0.1)),
        ),
        None,
    ),
    (
        "fuse_activation",
        "not where something else reads the conv",
        lambda: graph(x(), conv("c", "x"), node("s", "pointwise", "c", (1, 2, 6, 6), act=("silu",)), returns="s c"),
        None,
    ),
    (
        "fuse_clamp",
        "not behind an activation",
        lambda: graph(x(), conv("c", "x", act=("silu",)), node("r", "clamp", "c", (1, 2, 6, 6), lo=0.0)),
        None,
    ),
    (
        "fuse_add",
        "with the sum's activation",
        lambda: graph(x(), conv("c", "x"), prelu("a", "x c", op="add")),
        """
        x: 1x2x6x6 = input()
        a: 1x2x6x6 = conv(x, x) act=('leaky_relu',) CONV bias=%c.bias slope=%a.slope weight=%c.weight
        return a
        """,
    ),
    (
        "fuse_add",
        "not a conv with an activation",
        lambda: graph(x(), conv("c", "x", act=("silu",)), node("a", "add", "c x", (1, 2, 6, 6))),
        None,
    ),
    (
        "fuse_add",
        "conv on the right, with the sum's clamp",
        lambda: graph(x(), conv("c", "x"), node("a", "add", "x c", (1, 2, 6, 6), lo=0.0)),
        """
        x: 1x2x6x6 = input()
        a: 1x2x6x6 = conv(x, x) CLAMPED:hi=inf,lo=0.0 bias=%c.bias weight=%c.weight
        return a
        """,
    ),
    (
        "fuse_add",
        "two convs: the later one",
        lambda: graph(x(), conv("c", "x"), conv("d", "x"), node("a", "add", "d c", (1, 2, 6, 6))),
        """
        x: 1x2x6x6 = input()
        c: 1x2x6x6 = conv(x) CONV bias=%c.bias weight=%c.weight
        a: 1x2x6x6 = conv(x, c) CONV bias=%d.bias weight=%d.weight
        return a
        """,
    ),
    (
        "fuse_add",
        "the earlier conv where the later value is none",
        lambda: graph(
            x(), conv("c", "x"), node("r", "clamp", "x", (1, 2, 6, 6), lo=0.0), node("a", "add", "c r", (1, 2, 6, 6))
        ),
        """
        x: 1x2x6x6 = input()
        r: 1x2x6x6 = clamp(x) lo=0.0
        a: 1x2x6x6 = conv(x, r) CONV bias=%c.bias weight=%c.weight
        return a
        """,
    ),
    (
        "fuse_add",
        "not a clamped conv",
        lambda: graph(x(), conv("c", "x", lo=0.0), node("a", "add", "c x", (1, 2, 6, 6))),
        None,
    ),
    (
        "fuse_add",
        "not a conv with another reader",
        lambda: graph(x(), conv("c", "x"), node("a", "add", "c x", (1, 2, 6, 6)), returns="a c"),
        None,
    ),
    (
        "fuse_add",
        "not twice the same value",
        lambda: graph(x(), conv("c", "x"), node("a", "add", "c c", (1, 2, 6, 6))),
        None,
    ),
    (
        "merge_pad",
        "even padding",
        lambda: graph(
            x(), node("p", "pad", "x", (1, 2, 8, 10), amounts=((0, 0), (1, 1), (2, 2))), conv("c", "p", (1, 2, 8, 10))
        ),
        """
        x: 1x2x6x6 = input()
        c: 1x2x8x10 = conv(x) dilation=(1,1) groups=1 padding=(1,2) stride=(1,1) bias=%c.bias weight=%c.weight
        return c
        """,
    ),
    (
        "merge_pad",
        "uneven padding",
        lambda: graph(
            x(), node("p", "pad", "x", (1, 2, 7, 6), amounts=((0, 0), (1, 0), (0, 0))), conv("c", "p", (1, 2, 7, 6))
        ),
        """
        x: 1x2x6x6 = input()
        c: 1x2x7x6 = conv(x) SIDES:(1,0):(0,0) bias=%c.bias weight=%c.weight
        return c
        """,
    ),
    (
        "merge_pad",
        "padding of a conv that itself pads, and adds",
        lambda: graph(
            x(),
            node("p", "pad", "x", (1, 2, 7, 8), amounts=((0, 0), (0, 1), (2, 0))),
            conv("c", "p p", (1, 2, 7, 8), padding=(1, 1)),
            kernel=3,
        ),
        """
        x: 1x2x6x6 = input()
        p: 1x2x7x8 = pad(x) amounts=((0,0),(0,1),(2,0))
        c: 1x2x7x8 = conv(x, p) SIDES:(1,3):(2,1) bias=%c.bias weight=%c.weight
        return c
        """,
    ),
    (
        "merge_pad",
        "one side after the other is both",
        lambda: graph(
            x(),
            node("p", "pad", "x", (1, 2, 6, 7), amounts=((0, 0), (0, 0), (0, 1))),
            node("q", "pad", "p", (1, 2, 6, 8), amounts=((0, 0), (0, 0), (1, 0))),
            conv("c", "q", (1, 2, 6, 8)),
        ),
        """
        x: 1x2x6x6 = input()
        c: 1x2x6x8 = conv(x) dilation=(1,1) groups=1 padding=(0,1) stride=(1,1) bias=%c.bias weight=%c.weight
        return c
        """,
    ),
    (
        "merge_added_convs",
        "zeros behind the image keep apart",
        lambda: graph(
            x(),
            conv("a", "x", (1, 3, 7, 6), after=(1, 0)),
            conv("b", "x a", (1, 3, 7, 6), after=(1, 0)),
            Node("y", "input", (), (1, 2, 7, 6)),
            conv("c", "x", (1, 3, 7, 6), after=(1, 0)),
            conv("d", "y c", (1, 3, 7, 6)),
            conv("e", "y", (1, 3, 7, 6)),
            conv("f", "x e", (1, 3, 7, 6), after=(1, 0)),
            returns="b d f",
        ),
        None,
    ),
    (
        "merge_pad",
        "not padding of channels",
        lambda: graph(
            x(), node("p", "pad", "x", (1, 4, 6, 6), amounts=((1, 1), (0, 0), (0, 0))), conv("c", "p", (1, 2, 6, 6))
        ),
        None,
    ),
    (
        "merge_slices",
        "option A: rows, then columns",
        lambda: graph(
            x(),
            node("r", "slice", "x", (1, 2, 3, 6), start=(0, 0, 0), stop=(2, 6, 6), step=(1, 2, 1)),
            node("c", "slice", "r", (1, 2, 3, 3), start=(0, 0, 0), stop=(2, 3, 6), step=(1, 1, 2)),
        ),
        """
        x: 1x2x6x6 = input()
        c: 1x2x3x3 = slice(x) start=(0,0,0) step=(1,2,2) stop=(2,6,6)
        return c
        """,
    ),
    (
        "move_views",
        "tokens of PyTorch's attention: swapped once at each end",
        lambda: graph(
            x((9, 2, 4)),
            linear("q", "x", (9, 2, 4)),
            node("t", "swap", "q", (2, 9, 4)),
            node("a", "attention", "t t t", (2, 9, 4), heads=1, size=4),
            node("b", "swap", "a", (9, 2, 4)),
            node("c", "regroup", "b", (18, 4)),
            linear("o", "c", (18, 4)),
            node("d", "regroup", "o", (9, 2, 4)),
            node("s", "add", "x d", (9, 2, 4)),
            linear("z", "s", (9, 2, 3)),
        ),
        """
        x: 9x2x4 = input()
        x.swapped: 2x9x4 = swap(x)
        t: 2x9x4 = linear(x.swapped) bias=%q.bias weight=%q.weight
        a: 2x9x4 = attention(t, t, t) heads=1 size=4
        o.moved: 2x9x4 = linear(a) bias=%o.bias weight=%o.weight
        s.moved: 2x9x4 = add(x.swapped, o.moved)
        z.moved: 2x9x3 = linear(s.moved) bias=%z.bias weight=%z.weight
        z: 9x2x3 = swap(z.moved)
        return z
        """,
    ),
    (
        "move_views",
        "there and back is nowhere",
        lambda: graph(
            x((9, 2, 4)),
            node("t", "swap", "x", (2, 9, 4)),
            linear("q", "t", (2, 9, 4)),
            node("u", "swap", "q", (9, 2, 4)),
            node("s", "add", "u x", (9, 2, 4)),
        ),
        """
        x: 9x2x4 = input()
        u: 9x2x4 = linear(x) bias=%q.bias weight=%q.weight
        s: 9x2x4 = add(u, x)
        return s
        """,
    ),
    (
        "move_views",
        "groups of an input stay, those of a matrix on many tokens go",
        lambda: graph(
            x((18, 4)),
            node("r", "regroup", "x", (2, 9, 4)),
            linear("q", "r", (2, 9, 4)),
            node("u", "regroup", "q", (18, 4)),
            linear("v", "u", (18, 3)),
            node("w", "regroup", "v", (2, 9, 3)),
            returns="w q",
        ),
        """
        x: 18x4 = input()
        r: 2x9x4 = regroup(x)
        q: 2x9x4 = linear(r) bias=%q.bias weight=%q.weight
        v.moved: 2x9x3 = linear(q) bias=%v.bias weight=%v.weight
        w: 2x9x3 = regroup(v.moved)
        return w, q
        """,
    ),
    (
        "move_views",
        "few tokens are rows already",
        lambda: graph(
            x((1, 3, 4)), linear("q", "x", (1, 3, 4)), node("r", "regroup", "q", (3, 4)), linear("o", "r", (3, 2))
        ),
        None,
    ),
    (
        "merge_scales",
        "normalisation, a difference and a quotient",
        lambda: graph(x(), scale("d", "x"), scale("q", "d")),
        """
        x: 1x2x6x6 = input()
        q: 1x2x6x6 = scale(x) bias=%q.merged.bias weight=%q.merged.weight
        return q
        """,
    ),
    (
        "merge_scales",
        "not one that is read elsewhere, or is clamped",
        lambda: graph(
            x(), scale("d", "x"), scale("q", "d"), scale("r", "q").with_attrs(lo=0.0), scale("s", "r"), returns="s d"
        ),
        """
        x: 1x2x6x6 = input()
        d: 1x2x6x6 = scale(x) bias=%d.bias weight=%d.weight
        r: 1x2x6x6 = scale(d) lo=0.0 bias=%r.merged.bias weight=%r.merged.weight
        s: 1x2x6x6 = scale(r) bias=%s.bias weight=%s.weight
        return s, d
        """,
    ),
    (
        "move_clamp",
        "before a max-pooling, to what can take it along",
        lambda: graph(x(), conv("c", "x"), pool("p", "c"), node("r", "clamp", "p", (1, 2, 3, 3), lo=0.0, hi=6.0)),
        """
        x: 1x2x6x6 = input()
        c: 1x2x6x6 = conv(x) CONV bias=%c.bias weight=%c.weight
        p: 1x2x6x6 = clamp(c) hi=6.0 lo=0.0
        r: 1x2x3x3 = max_pool(p) ceil=False dilation=(1,1) kernel=(2,2) padding=(0,0) stride=(2,2)
        return r
        """,
    ),
    (
        "move_clamp",
        "not where a layer or the pooling is read elsewhere, nor to an input, nor over windows of padding alone",
        lambda: graph(
            *(x(), conv("c", "x"), conv("d", "x"), conv("e", "x", lo=0.0).with_attrs(act=("tanh",))),
            *(pool("p", "c"), pool("q", "d"), pool("r", "x"), pool("s", "e")),
            pool("t", "q", (1, 2, 1, 1), padding=(1, 1), dilation=(3, 3)),
            *(node(f"{n}1", "clamp", n, (1, 2, 3, 3), lo=0.0) for n in "pqrs"),
            node("t1", "clamp", "t", (1, 2, 1, 1), lo=0.0),
            returns="c p1 q q1 r1 s1 t1",
        ),
        None,
    ),
    (
        "merge_slices",
        "not of something else",
        lambda: graph(x(), node("r", "slice", "x", (1, 1, 6, 6), start=(1, 0, 0), stop=(2, 6, 6), step=(1, 1, 1))),
        None,
    ),
    *INTEGERS,
]


@pytest.mark.parametrize(("name", "case", "build", "wanted"), GOLDEN, ids=[f"{g[0]}: {g[1]}" for g in GOLDEN])
def test_golden_text(name, case, build, wanted):
    before = build()
    text = str(before)
    found = after(name, before)
    assert str(found).splitlines() == (lines(wanted) if wanted else text.splitlines())
    assert str(before) == text  # passes change nothing in place
    assert set(found.constants) == {key for n in found for key in n.constants.values()}


def test_every_pass_has_a_golden_text_and_a_place():
    assert {g[0] for g in GOLDEN} == set(plugins.names("compiler.passes")) == set(passes())
    orders = [plugins.module("compiler.passes", name).ORDER for name in passes()]
    assert orders == sorted(set(orders))


def test_folding_scales_rows_and_keeps_zeros():
    g = graph(x(), conv("c", "x"), scale("b", "c"))
    g.constants["c.weight"][1, 0] = 0
    folded = after("fold_batch_norm", g)
    np.testing.assert_array_equal(folded.constant(folded["b"], "weight").reshape(2, 2), [[2 * 2, 3 * 2], [0, 5 * 3]])
    np.testing.assert_array_equal(folded.constant(folded["b"], "bias"), [10 * 2 + 10, 20 * 3 + 20])


def test_merged_scales_are_one_after_the_other():
    merged = after("merge_scales", graph(x(), scale("d", "x"), scale("q", "d")))
    np.testing.assert_array_equal(merged.constant(merged["q"], "weight"), [4, 9])
    np.testing.assert_array_equal(merged.constant(merged["q"], "bias"), [2 * 10 + 10, 3 * 20 + 20])


def test_scales_whose_product_overflows_stay_apart():
    g = graph(x(), scale("d", "x"), scale("q", "d"))
    g.constants["d.weight"][:] = g.constants["q.weight"][:] = 1e30
    assert after("merge_scales", g) == g


def test_whole_numbers_are_those_of_the_weights_unless_sums_could_overflow(monkeypatch):
    g = graph(x(), rounding("q", "x"), conv("c", "q"))
    found = after("use_integers", g)
    weight, step = (found.constant(found["c"], role) for role in ("weight", "step"))
    assert weight.dtype == np.int8 and weight.reshape(2, 2).tolist() == [[2, 3], [4, 5]] and step.tolist() == [1, 1]
    monkeypatch.setattr("openwork.compiler.passes.use_integers.SUM", 127 * 9)
    assert after("use_integers", g) == g
    g.constants["c.weight"][0] = [[[0.123]], [[0.457]]]
    monkeypatch.undo()
    assert after("use_integers", g) == g


def test_merged_matrices_and_added_rows_hold_the_values():
    pair = graph(x(WORDS), linear("q", "x", (1, 9, 3)), linear("k", "x", (1, 9, 2)), returns="q k")
    merged = plugins.module("compiler.passes", "merge_linears").run(pair)
    for role in ("weight", "bias"):
        wanted = np.concatenate([pair.constants[f"{n}.{role}"] for n in "qk"])
        np.testing.assert_array_equal(merged.constants[f"q.merged.{role}"], wanted)
    both = graph(
        x((1, 9)),
        words("e", "embedding", "x", ["table"]),
        words("p", "constant", "", ["value"]),
        words("a", "add", "e p"),
        words("b", "add", "a p"),
    )
    folded = plugins.module("compiler.passes", "fold_embedding").run(both)
    np.testing.assert_array_equal(folded.constants["b.added"], 2 * both.constants["p.value"][0])


def test_all_passes_make_one_node_of_a_residual_block():
    shape = (1, 2, 6, 6)
    g = graph(
        x(), conv("c", "x"), scale("b", "c"), node("a", "add", "b x", shape), node("r", "clamp", "a", shape, lo=0.0)
    )
    assert [n.op for n in optimize(g)] == ["input", "conv"]
    assert optimize(g)["r"].inputs == ("x", "x") and optimize(g)["r"].lo == 0


@pytest.mark.parametrize("value", [1.5, float("nan")])
def test_a_clamp_before_a_pooling_changes_no_value(value):
    from torch import nn

    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(3, 2, 1), nn.ReLU6())
    example = randn(1, 2, 7, 6, generator=Generator().manual_seed(0))
    engine = compile(model, example, threads=1, tune="off")
    assert [row["op"] for row in engine.explain(1).rows if row["op"] != "clear"] == ["copy", "conv", "pool", "copy"]
    example[0, 1, 3, 2] = value
    with no_grad():
        assert_close(engine(example), model(example), equal_nan=True)


def test_window_size_is_pytorchs():
    import torch.nn.functional as F
    from torch import zeros

    for size in range(3, 12):
        for kernel in range(1, 4):
            for stride in range(1, 4):
                for padding in range(kernel // 2 + 1):
                    for ceil in (False, True):
                        pooled = F.max_pool2d(
                            zeros(1, 1, size, 1), (kernel, 1), (stride, 1), (padding, 0), ceil_mode=ceil
                        )
                        assert window_size(size, kernel, stride, padding, 1, ceil) == pooled.shape[2]
