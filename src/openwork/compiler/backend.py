"""`torch.compile(model, backend="openwork")`: Dynamo finds the graphs, engines run them.

Dynamo traces a function, cuts it where it cannot go on, and hands each graph to `backend` with the weights among its
arguments. A graph is compiled when it is called, once for each combination of sizes, since an engine is laid out for
one. What an engine cannot take over runs in PyTorch, and an `OpenworkNotice` says once why.

Source: docs.pytorch.org/docs/stable/torch.compiler_custom_backends.html
"""

import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..engine.engine import Engine
from ..errors import EngineError, OpenworkError, OpenworkNotice, UsageError
from ..plugins import unknown
from .compile import Settings
from .subgraph import Prepared, prepare
from .weights import Watch

log = logging.getLogger("openwork")

SIZES = 16
"""Combinations of sizes for which a graph is compiled, unless the option `sizes` says otherwise."""


@dataclass(frozen=True)
class Options:
    """What `torch.compile(..., options={...})` may say; made by `checked`."""

    settings: Settings
    sizes: int
    on_engine: Callable[[Engine], Any] | None

    KNOWN = ("tune", "threads", "dtype", "isa", "sizes", "on_engine")

    @classmethod
    def checked(cls, options: Mapping[str, Any], mode: str | None) -> "Options":
        """The options, or a `UsageError` that names what is wrong with them."""
        if mode not in (None, "default"):
            raise UsageError(f"mode={mode!r} is one of Inductor's; for Openwork say options={{'tune': 'thorough'}}")
        for name in options:
            if name not in cls.KNOWN:
                raise UsageError(unknown("option", str(name), cls.KNOWN))
        sizes, on_engine = options.get("sizes", SIZES), options.get("on_engine")
        if isinstance(sizes, bool) or not isinstance(sizes, int) or sizes < 1:
            raise UsageError(f"sizes={sizes!r} is not a whole number of at least 1")
        if on_engine is not None and not callable(on_engine):
            raise UsageError(f"on_engine={on_engine!r} cannot be called; give a function of one engine")
        given = {name: options[name] for name in ("tune", "dtype", "isa") if name in options}
        threads = options.get("threads", torch.get_num_threads())
        return cls(Settings.checked(threads=threads, **given), sizes, on_engine)


def backend(
    graph: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Sequence[Any]]:
    """What `torch.compile` calls with each graph that Dynamo has traced; people pass the name, "openwork".

    Args:
        graph: operations on the arguments, of which some are weights and some are sizes.
        example_inputs: arguments of the first call.
        options: `tune`, `threads` (default: `torch.get_num_threads()`), `dtype` and `isa` as `openwork.compile` takes
            them; `sizes`, for how many combinations of sizes a graph may be compiled (default 16); `on_engine`, called
            with each engine that was made, for `explain()`.
        mode: none but the default; the others are Inductor's.

    Returns:
        A function of the graph's arguments.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
        >>> fast = torch.compile(model, backend="openwork")             # doctest: +SKIP
        >>> with torch.inference_mode():                                # doctest: +SKIP
        ...     fast(torch.randn(1, 3, 16, 16)).shape
        torch.Size([1, 8, 14, 14])
    """
    return CompiledGraph(graph, example_inputs, Options.checked(options or {}, mode))


class CompiledGraph:
    """One of Dynamo's graphs and its engines, one for each combination of sizes and set of weights."""

    def __init__(self, graph: fx.GraphModule, example_inputs: Sequence[Any], options: Options) -> None:
        self.run_eagerly = graph.forward
        self.options = options
        places = [n for n in graph.graph.nodes if n.op == "placeholder"]
        self.title = _title(graph)
        self.weights = [i for i, node in enumerate(places) if _is_weight(node, example_inputs[i])]
        self.wrapped = [i for i, node in enumerate(places) if _is_number(node)]
        self.sizes = [i for i, given in enumerate(example_inputs) if not isinstance(given, Tensor)]
        self.inputs = sorted(set(range(len(places))) - {*self.weights, *self.wrapped, *self.sizes})
        self.held = [*graph.parameters(), *graph.buffers()]
        self.entries: dict[Any, Entry] = {}
        self.noted: set[str] = set()
        self.lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Sequence[Any]:
        try:
            prepared = self._prepared(arguments)
            return prepared([arguments[i] for i in self.inputs])
        except Refused as reason:
            self._note(str(reason))
        except EngineError as error:  # a value that native steps cannot take, or an error that PyTorch words better
            self._note(f"on these values {error}")
        return self.run_eagerly(*arguments)  # type: ignore[no-any-return]

    def _prepared(self, arguments: Sequence[Any]) -> Prepared:
        """The engine for these arguments, compiled now if it is the first time; `Refused` if PyTorch is to run them."""
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
            raise Refused("gradients are wanted, and an engine has none; call it under torch.inference_mode()")
        if torch.is_autocast_enabled("cpu"):
            raise Refused("autocast is on; leave it, engines choose their own types")
        weights = [*self.held, *(arguments[i] for i in self.weights)]
        shapes = tuple(arguments[i].shape for i in self.inputs)
        sizes = (*shapes, *(arguments[i] for i in self.sizes), *(float(arguments[i]) for i in self.wrapped))
        key = (sizes, tuple(map(id, weights)))
        with self.lock:
            entry = self.entries.get(key)
            if entry is None:
                self._make_room(sizes)
                entry = self.entries[key] = Entry(weights)
            elif not isinstance(entry.prepared, str) and not entry.watch.unchanged(weights):
                # weights of a training step are seen once: what is worth compiling for is seen twice in a row
                if not entry.settled(weights):
                    raise Refused("weights changed; it is compiled again once they stay")
                entry = self.entries[key] = Entry(weights)
            if entry.prepared is None:
                entry.prepared = self._compile(arguments, weights)
        if isinstance(entry.prepared, str):
            raise Refused(entry.prepared)
        return entry.prepared

    def _make_room(self, sizes: Any) -> None:
        """Forget engines whose weights are gone; `Refused` if there already are engines for enough other sizes."""
        self.entries = {key: entry for key, entry in self.entries.items() if entry.watch.alive()}
        known = {key[0] for key in self.entries}
        if sizes not in known and len(known) >= self.options.sizes:
            raise Refused(f"it was compiled for {len(known)} combinations of sizes already; options={{'sizes': ...}}")

    def _compile(self, arguments: Sequence[Any], weights: Sequence[Tensor]) -> Prepared | str:
        """An engine, or the reason why there is none."""
        if any(w.is_inference() for w in weights):
            return "weights made under inference_mode change unseen; build the model outside of it"
        arguments = [Number(float(a)) if i in self.wrapped else a for i, a in enumerate(arguments)]
        try:
            prepared, fresh = prepare(self.run_eagerly, arguments, self.weights, self.inputs, self.options.settings)
        except OpenworkError as error:
            return str(error)
        log.info("%s: %s", self.title, prepared.summary() if fresh else "an engine of the same graph is used again")
        if fresh and self.options.on_engine is not None:
            self.options.on_engine(prepared.engine)
        return prepared

    def _note(self, reason: str) -> None:
        if reason not in self.noted:
            self.noted.add(reason)
            warnings.warn(f"{self.title} runs in PyTorch: {reason}", OpenworkNotice, stacklevel=3)


class Refused(Exception):
    """Why PyTorch runs a call."""


class Entry:
    """The engine, or why there is none, of one combination of sizes and one state of the weights."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.watch = Watch(weights)
        self.next: Watch | None = None
        self.prepared: Prepared | str | None = None

    def settled(self, weights: Sequence[Tensor]) -> bool:
        """Whether changed weights are as they were when they last came."""
        if self.next is not None and self.next.unchanged(weights):
            return True
        self.next = Watch(weights)
        return False


def _is_weight(node: fx.Node, example: Any) -> bool:
    """Whether an argument is a parameter or buffer: Dynamo marks them as tensors that stay where they are."""
    known = node.meta.get("tensor_dict") or {}
    return isinstance(example, nn.Parameter) or known.get("_dynamo_static_input_type") is not None


def _is_number(node: fx.Node) -> bool:
    """Whether an argument is a Python float (an `eps`, say) that Dynamo takes to be any float: it comes as a tensor."""
    return bool(getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False)) and all(
        user.op == "call_method" and user.target == "item" for user in node.users
    )


@dataclass(frozen=True)
class Number:
    """A float where a graph expects to read it from a tensor."""

    value: float

    def item(self) -> float:
        """The float."""
        return self.value


def _title(graph: fx.GraphModule) -> str:
    """'graph of conv2d, batch_norm, relu and 7 more'"""
    names = [
        node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        for node in graph.graph.nodes
        if node.op in ("call_function", "call_method", "call_module")
    ]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"graph of {', '.join(names[:3])}{more}"
