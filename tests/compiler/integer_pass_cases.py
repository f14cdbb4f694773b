"""More graphs for test_passes: what rounds values, and layers of whole numbers."""

from graphs import conv, graph, linear, node, pool, prelu, rounding, whole, x

INTEGERS = [
    (
        "move_quantize",
        "before pooling, concatenation and a channel shuffle, once for all readers, with the bounds of a clamp",
        lambda: graph(
            *(x(), conv("c", "x"), conv("d", "x"), node("r", "clamp", "c", (1, 2, 6, 6), lo=0.0, hi=6.0)),
            node("j", "concat", "r d", (1, 4, 6, 6)),
            pool("p", "j", (1, 4, 3, 3)),
            rounding("q", "p", (1, 4, 3, 3)),
            rounding("t", "p", (1, 4, 3, 3)),
            conv("e", "q", (1, 2, 3, 3)),
            conv("f", "t", (1, 2, 3, 3)),
            returns="e f",
        ),
        """
        x: 1x2x6x6 = input()
        c: 1x2x6x6 = conv(x) CONV bias=%c.bias weight=%c.weight
        d: 1x2x6x6 = conv(x) CONV bias=%d.bias weight=%d.weight
        j: 1x2x6x6 = quantize(c) bytes=Bytes(scale=0.5,lo=0,hi=12)
        j.1: 1x2x6x6 = quantize(d) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        p: 1x4x6x6 = concat(j, j.1)
        q: 1x4x3x3 = max_pool(p) ceil=False dilation=(1,1) kernel=(2,2) padding=(0,0) stride=(2,2)
        e: 1x2x3x3 = conv(q) CONV bias=%e.bias weight=%e.weight
        f: 1x2x3x3 = conv(q) CONV bias=%f.bias weight=%f.weight
        return e, f
        """,
    ),
    (
        "move_quantize",
        "what is rounded already is not rounded again, and a clamp between numbers of the grid is its bound",
        lambda: graph(
            *(x(), rounding("q", "x"), node("r", "clamp", "q", (1, 2, 6, 6), lo=0.0)),
            rounding("s", "r"),
            node("c", "channels", "s", (1, 1, 6, 6), index=(1,)),
            rounding("t", "c", (1, 1, 6, 6)),
            conv("e", "t", (1, 1, 6, 6)),
        ),
        """
        x: 1x2x6x6 = input()
        r: 1x2x6x6 = quantize(x) bytes=Bytes(scale=0.5,lo=0,hi=127)
        c: 1x1x6x6 = channels(r) index=(1,)
        e: 1x1x6x6 = conv(c) CONV bias=%e.bias weight=%e.weight
        return e
        """,
    ),
    (
        "move_quantize",
        "features are rounded where they are read, images before they become features",
        lambda: graph(
            *(x(), node("m", "mean", "x", (1, 2, 1, 1)), rounding("q", "m", (1, 2, 1, 1))),
            *(node("f", "flatten", "q", (1, 2)), linear("l", "f", (1, 3))),
            *(
                conv("c", "x"),
                node("g", "flatten", "c", (1, 72)),
                rounding("s", "g", (1, 72)),
                linear("k", "s", (1, 3)),
            ),
            returns="l k",
        ),
        """
        x: 1x2x6x6 = input()
        m: 1x2x1x1 = mean(x)
        q: 1x2 = flatten(m)
        f: 1x2 = quantize(q) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        l: 1x3 = linear(f) bias=%l.bias weight=%l.weight
        c: 1x2x6x6 = conv(x) CONV bias=%c.bias weight=%c.weight
        g: 1x2x6x6 = quantize(c) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        s: 1x72 = flatten(g)
        k: 1x3 = linear(s) bias=%k.bias weight=%k.weight
        return l, k
        """,
    ),
    (
        "move_quantize",
        "not where others read what is not rounded, nor with bounds between numbers or beyond 0, nor of other steps, "
        "nor before a pooling whose windows may lie in padding alone",
        lambda: graph(
            *(x(), conv("c", "x"), pool("p", "c"), rounding("q", "p", (1, 2, 3, 3))),
            *(rounding("a", "q", (1, 2, 3, 3), scale=0.25), node("b", "clamp", "a", (1, 2, 3, 3), lo=-0.3)),
            *(node("d", "clamp", "x", (1, 2, 6, 6), lo=1.0), rounding("e", "d")),
            # Less than half a step inside the last number, 63.5, to which it is the nearest.
            *(rounding("f", "x", (1, 2, 6, 6), scale=0.5), node("g", "clamp", "f", (1, 2, 6, 6), hi=63.3)),
            *(pool("h", "c", (1, 2, 3, 3), padding=(1, 1), dilation=(3, 3)), rounding("i", "h", (1, 2, 3, 3))),
            returns="b p e g i",
        ),
        None,
    ),
    (
        "use_integers",
        "weights are whole numbers of a step where what is read is rounded, with or without a pooling between",
        lambda: graph(
            *(x(), rounding("q", "x"), pool("p", "q"), conv("c", "p", (1, 2, 3, 3), lo=0.0), conv("d", "x")),
            returns="c d",
        ),
        """
        x: 1x2x6x6 = input()
        q: 1x2x6x6 = quantize(x) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        p: 1x2x3x3 = max_pool(q) ceil=False dilation=(1,1) kernel=(2,2) padding=(0,0) stride=(2,2)
        c: 1x2x3x3 = conv(p) dilation=(1,1) groups=1 lo=0.0 padding=(0,0) reads=Bytes(scale=0.5,lo=-127,hi=127) """
        """stride=(1,1) bias=%c.bias step=%c.step weight=%c.weight.whole
        d: 1x2x6x6 = conv(x) CONV bias=%d.bias weight=%d.weight
        return c, d
        """,
    ),
    (
        "use_integers",
        "linear layers read tokens that have scales of their own, in units of these; nothing else does",
        lambda: graph(
            *(x((1, 9, 2)), node("q", "quantize_tokens", "x", (1, 9, 2), most=7)),
            *(linear("l", "q", (1, 9, 3)), linear("m", "x", (1, 9, 3)), node("p", "token", "q", (1, 2), index=0)),
            linear("n", "p", (1, 3)),
            returns="l m n",
        ),
        """
        x: 1x9x2 = input()
        q: 1x9x2 = quantize_tokens(x) most=7
        l: 1x9x3 = linear(q) reads=Bytes(scale=1.0,lo=-7,hi=7) bias=%l.bias step=%l.step weight=%l.weight.whole
        m: 1x9x3 = linear(x) bias=%m.bias weight=%m.weight
        p: 1x2 = token(q) index=0
        n: 1x3 = linear(p) bias=%n.bias weight=%n.weight
        return l, m, n
        """,
    ),
    (
        "fuse_quantize",
        "into layers of integers and sums of what is rounded, which others do not read",
        lambda: graph(
            *(x(), rounding("q", "x")),
            *(whole(conv("c", "q", hi=6.0)), rounding("r", "c", lo=0)),
            *(whole(conv("d", "q")), rounding("s", "d"), whole(conv("e", "q", act=("tanh",))), rounding("t", "e")),
            *(node("a", "add", "q s", (1, 2, 6, 6), lo=0.0), rounding("u", "a")),
            *(node("b", "add", "d s", (1, 2, 6, 6)), rounding("v", "b")),
            returns="r t u v",
        ),
        """
        x: 1x2x6x6 = input()
        q: 1x2x6x6 = quantize(x) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        r: 1x2x6x6 = conv(q) bytes=Bytes(scale=0.5,lo=0,hi=12) CONV bias=%c.bias step=%c.step weight=%c.weight
        d: 1x2x6x6 = conv(q) CONV bias=%d.bias step=%d.step weight=%d.weight
        s: 1x2x6x6 = quantize(d) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        t: 1x2x6x6 = conv(q) act=('tanh',) bytes=Bytes(scale=0.5,lo=-127,hi=127) CONV ROUNDED
        u: 1x2x6x6 = add(q, s) bytes=Bytes(scale=0.5,lo=0,hi=127)
        b: 1x2x6x6 = add(d, s)
        v: 1x2x6x6 = quantize(b) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        return r, t, u, v
        """.replace("ROUNDED", "bias=%e.bias step=%e.step weight=%e.weight"),
    ),
    (
        "fuse_quantize",
        "an activation of what is rounded",
        lambda: graph(
            *(x(), rounding("q", "x"), node("a", "pointwise", "q", (1, 2, 6, 6), act=("silu",)), rounding("r", "a")),
            *(node("b", "pointwise", "x", (1, 2, 6, 6), act=("silu",)), rounding("s", "b")),
            *(prelu("c", "q"), rounding("t", "c")),
            returns="r s t",
        ),
        """
        x: 1x2x6x6 = input()
        q: 1x2x6x6 = quantize(x) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        r: 1x2x6x6 = quantize(q) act=('silu',) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        b: 1x2x6x6 = pointwise(x) act=('silu',)
        s: 1x2x6x6 = quantize(b) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        c: 1x2x6x6 = pointwise(q) act=('leaky_relu',) slope=%c.slope
        t: 1x2x6x6 = quantize(c) bytes=Bytes(scale=0.5,lo=-127,hi=127)
        return r, s, t
        """,
    ),
]
