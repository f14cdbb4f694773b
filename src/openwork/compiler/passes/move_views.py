"""Move views of tokens behind what treats every token alike, where they meet their inverse and vanish.

PyTorch's attention works on [S, N, C] and on [S N, C]; an engine would copy from and to each of these layouts.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..graph import Graph, Node, Shape, rewritten
from ..ops._affine import many_tokens

ORDER = 3
ALIKE = ("linear", "layer_norm", "pointwise", "scale", "clamp", "add", "binary", "quantize", "quantize_tokens")
"""Operators that treat every token alike, whatever their order."""
PLANES = (*ALIKE, "attention", "embedding", "join", "tokens", "features", "constant")
"""Operators whose tokens lie as planes, so that another layout would be a copy."""

View = tuple[str, Shape, Shape]
"""Swap or regroup, and the axes before the features that go in and come out."""


def run(graph: Graph) -> Graph:
    """swap(linear(x)) becomes linear(swap(x)), then linear(view(x)) view(linear(x)); what cancels goes."""
    graph = rewritten(graph, graph.nodes)  # what nobody needs would be a reader that wants no other order
    while (lifted := _lifted(graph)) is not None:
        graph = lifted
    return _Sinking(graph).run()


def _lifted(graph: Graph) -> Graph | None:
    """The last operator that is only read swapped, computed swapped; None if there is none."""
    users = graph.users()
    for at in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[at]
        swaps = users[node.name]
        alike = _is_alike(node, [graph[name].shape for name in node.inputs]) and many_tokens(node.shape)
        if not alike or node.name in graph.outputs or not swaps or any(user.op != "swap" for user in swaps):
            continue
        made = {f"{name}.swapped": graph[name] for name in node.inputs}
        before = [n for name, n in ((k, _swap(k, v)) for k, v in made.items()) if name not in {m.name for m in graph}]
        turned = replace(node, name=swaps[0].name, inputs=tuple(made), shape=swaps[0].shape)
        others = {user.name: _same(user, turned) for user in swaps[1:]}
        after = [others.get(n.name, n) for n in graph.nodes[at + 1 :] if n is not swaps[0]]
        return rewritten(graph, [*_in_order(graph.nodes[:at], before), turned, *after])
    return None


def _in_order(nodes: Sequence[Node], more: Sequence[Node]) -> list[Node]:
    """Nodes, each followed by those of `more` that read it: a swap that is there already must come first."""
    return [n for node in nodes for n in (node, *(m for m in more if m.inputs[0] == node.name))]


def _swap(name: str, source: Node) -> Node:
    a, b, features = source.shape
    return Node(name, "swap", (source.name,), (b, a, features), source=source.source)


def _same(node: Node, source: Node) -> Node:
    """Another name of a value."""
    return Node(node.name, "regroup", (source.name,), node.shape, source=node.source)


def _is_alike(node: Node, shapes: Sequence[Shape]) -> bool:
    return node.op in ALIKE and len(node.shape) in (2, 3) and all(s[:-1] == node.shape[:-1] for s in shapes)


class _Sinking:
    """One walk over the graph; `views` says of which value, and through which views, a value is seen, `shown` where."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made: dict[str, Node] = {}
        self.views: dict[str, tuple[str, tuple[View, ...]]] = {}
        self.shown: dict[tuple[str, tuple[View, ...]], str] = {}

    def run(self) -> Graph:
        for node in self.graph:
            if node.op in ("swap", "regroup"):
                source, views = self.seen(node.inputs[0])
                shape = self.graph[node.inputs[0]].shape
                self.show(node, source, _shortened((*views, (node.op, shape[:-1], node.shape[:-1]))))
            elif _is_alike(node, [self.graph[name].shape for name in node.inputs]):
                self.sink(node)
            else:
                self.made[node.name] = replace(node, inputs=tuple(map(self.name, node.inputs)))
        return rewritten(self.graph, self.made.values())

    def seen(self, name: str) -> tuple[str, tuple[View, ...]]:
        return self.views.get(name, (name, ()))

    def name(self, name: str) -> str:
        """A value under the name that it has without views, if it has none."""
        source, views = self.seen(name)
        return name if views else source

    def sink(self, node: Node) -> None:
        seen = [self.seen(name) for name in node.inputs]
        movable = [(self.made[source], views) for source, views in seen if views]
        chosen = next((m for m in movable if m[0].op in PLANES and many_tokens(m[0].shape)), None)
        if chosen is None:
            self.made[node.name] = replace(node, inputs=tuple(map(self.name, node.inputs)))
            return
        planes, views = chosen
        back = tuple((op, after, before) for op, before, after in reversed(views))
        inputs = tuple(self.viewed(source, _shortened((*theirs, *back))) for source, theirs in seen)
        inner = replace(node, name=f"{node.name}.moved", inputs=inputs, shape=(*planes.shape[:-1], node.shape[-1]))
        self.made[inner.name] = inner
        self.show(node, inner.name, views)

    def viewed(self, source: str, views: tuple[View, ...]) -> str:
        """The name of a value seen through views."""
        node, name = self.made[source], source
        for i, (op, _, after) in enumerate(views):
            key = source, views[: i + 1]
            if key not in self.shown:
                before, name = name, f"{name}.{op}.{'x'.join(map(str, after))}"
                self.made[name] = Node(name, op, (before,), (*after, node.shape[-1]), source=node.source)
                self.shown[key] = name
            name = self.shown[key]
        return name

    def show(self, node: Node, source: str, views: tuple[View, ...]) -> None:
        """Make `node` the value `source` seen through views."""
        self.views[node.name] = source, views
        last = self.viewed(source, views[:-1])
        op = views[-1][0] if views else "regroup"
        self.shown.setdefault((source, views), node.name if views else source)
        if views or node.name in self.graph.outputs:
            self.made[node.name] = Node(node.name, op, (last,), node.shape, source=node.source)


def _shortened(views: tuple[View, ...]) -> tuple[View, ...]:
    """The same without what undoes what was before."""
    found: list[View] = []
    for op, before, after in views:
        last = found[-1] if found else None
        if op == "swap" and last is not None and last[0] == "swap":
            found.pop()
        elif op == "regroup":
            if last is not None and last[0] == "regroup":
                before = found.pop()[1]
            if before != after:
                found.append((op, before, after))
        else:
            found.append((op, before, after))
    return tuple(found)
