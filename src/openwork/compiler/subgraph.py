"""From a graph of Dynamo's, with its arguments, to an engine that stands in for it exactly.

Exactly means: the same number of outputs, also those that are no tensors, of the same types; outputs that share memory
do so again; and nothing that is written into, drawn at random or a view of an input is taken over.
"""

import hashlib
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.engine import Engine
from ..errors import CaptureError, CompileError
from ..formats.program import torch_calls
from .capture import capture
from .compile import Settings, compile_graph
from .graph import Graph, Node

_ENGINES: "weakref.WeakValueDictionary[str, Engine]" = weakref.WeakValueDictionary()
"""Engines in use by what they compute: Dynamo may trace one function twice, for a size and for any size."""


class Subgraph(nn.Module):
    """A graph in which sizes are numbers and weights are buffers: the form that `torch.export` captures."""

    def __init__(
        self, run: Callable[..., Sequence[Any]], arguments: Sequence[Any], weights: Sequence[int], inputs: Sequence[int]
    ) -> None:
        super().__init__()
        self.run = run  # a method, not a module: nodes are not to be named after it
        self.arguments = [None if isinstance(a, Tensor) else a for a in arguments]
        self.inputs = inputs
        self.names = {i: f"weight{number}" for number, i in enumerate(weights)}
        for i, name in self.names.items():
            self.register_buffer(name, arguments[i])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The tensors among the graph's outputs."""
        arguments = list(self.arguments)
        for i, name in self.names.items():
            arguments[i] = getattr(self, name)
        for i, value in zip(self.inputs, inputs, strict=True):
            arguments[i] = value
        return tuple(out for out in self.run(*arguments) if isinstance(out, Tensor))


@dataclass(frozen=True)
class Output:
    """How to make one output of the graph from what the engine returns."""

    source: int = -1
    """Which of the engine's results it is; -1: `constant`."""
    dtype: torch.dtype | None = None
    view: tuple[Any, Any, int] | None = None
    """Size, stride and offset of what is a view of that result."""
    constant: Any = None


@dataclass(frozen=True)
class Prepared:
    """An engine and how its results become the graph's outputs."""

    engine: Engine
    outputs: tuple[Output, ...]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Any]:
        found = self.engine(*inputs)
        results = [found] if isinstance(found, Tensor) else found
        return [self._output(output, results) for output in self.outputs]

    @staticmethod
    def _output(output: Output, results: Sequence[Tensor]) -> Any:
        if output.source < 0:
            return output.constant
        result = results[output.source]
        if output.dtype not in (None, result.dtype):
            result = result.to(output.dtype)
        return result if output.view is None else result.as_strided(*output.view)

    def summary(self) -> str:
        """What was compiled, in one line."""
        spec = self.engine.artifact.program
        left = sorted({call.target for call in torch_calls(spec)})
        rest = f"; left to PyTorch: {', '.join(left)}" if left else ""
        return f"compiled for {', '.join(str(i.shape) for i in self.engine.inputs)}, {len(spec.steps)} steps{rest}"


def prepare(
    run: Callable[..., Sequence[Any]],
    arguments: Sequence[Any],
    weights: Sequence[int],
    inputs: Sequence[int],
    settings: Settings,
) -> tuple[Prepared, bool]:
    """The graph `run` compiled for the sizes of `arguments`, and whether that took a new engine.

    `weights` and `inputs` are places of tensors among the arguments. Raises an `OpenworkError` that says why the graph
    cannot be compiled.
    """
    for i in (*weights, *inputs):
        if type(arguments[i]) not in (Tensor, nn.Parameter) or arguments[i].device.type != "cpu":
            kind = f"{type(arguments[i]).__name__} on {arguments[i].device}"
            raise CaptureError(f"an argument is a {kind}, the engine takes plain tensors on the CPU")
    if not inputs or any(arguments[i].numel() == 0 for i in inputs):
        raise CaptureError("there is nothing to compute: no input, or an empty one")
    # export refuses tensors made under inference_mode, so it gets copies made outside of it
    with torch.inference_mode(False), torch.no_grad():
        module = Subgraph(run, arguments, weights, inputs).eval()
        examples = tuple(arguments[i].detach().clone() for i in inputs)
        graph = capture(module, examples)
        _check_worth(graph)
        outputs = _outputs(run(*arguments), arguments)
        key = _fingerprint(graph, settings)
        engine = _ENGINES.get(key)
        fresh = engine is None
        if engine is None:
            engine = compile_graph(graph, module, examples, settings, {"name": "torch.compile"})
            _ENGINES[key] = engine
    return Prepared(engine, outputs), fresh


def _check_worth(graph: Graph) -> None:
    """Leave what PyTorch would run anyway, and random numbers, to PyTorch."""
    left = [str(node["target"]) for node in graph if node.op == "torch"]
    if all(node.op in ("input", "torch") for node in graph):
        raise CompileError(f"none of its operators has a native form: {', '.join(sorted(set(left)))}")
    for node in graph:
        if node.op == "torch" and _is_random(node):
            raise CompileError(f"it draws random numbers ({node['target']}), as in training mode")


def _is_random(node: Node) -> bool:
    """Whether an operator's results depend on chance: it may draw numbers, and its arguments do not forbid it."""
    namespace, _, name = str(node["target"]).partition(".")
    if namespace != "aten":
        return False
    packet, _, overload = name.rpartition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload)
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    given = {a.name: a.default_value for a in operator._schema.arguments}
    given |= dict(zip(given, node["args"], strict=False)) | node["kwargs"]["dict"]
    switched_off = given.get("train", given.get("training")) is False
    return not switched_off and not any(given.get(share) == 0 for share in ("p", "dropout_p", "dropout"))


def _outputs(found: Sequence[Any], arguments: Sequence[Any]) -> tuple[Output, ...]:
    """How the outputs `found` by PyTorch are made from the tensors among them."""
    taken = {_memory(a) for a in arguments if isinstance(a, Tensor)}
    results = [out for out in found if isinstance(out, Tensor)]
    sharing: dict[int, list[int]] = {}
    for i, out in enumerate(results):
        if out.dtype is torch.float64 or out.is_complex():
            raise CompileError(f"an output has type {out.dtype}, the engine computes in float32")
        if out.numel() and _memory(out) in taken:
            raise CompileError("an output is a view of an input or weight, which people may write into")
        if out.numel():
            sharing.setdefault(_memory(out), []).append(i)
    made = [Output(i, out.dtype) for i, out in enumerate(results)]
    for group in sharing.values():
        whole = [i for i in group if _is_whole(results[i])]
        if whole:
            for i in set(group) - {whole[0]}:
                made[i] = _view(results[i], results[whole[0]], whole[0])
        elif _overlap([results[i] for i in group]):
            raise CompileError("outputs share memory in a way that an engine does not repeat")
    tensors = iter(made)
    return tuple(next(tensors) if isinstance(out, Tensor) else Output(constant=out) for out in found)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor is all that lies in its memory, in order."""
    return tensor.is_contiguous() and tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _view(out: Tensor, base: Tensor, source: int) -> Output:
    if out.dtype is not base.dtype:
        raise CompileError("outputs of several types share memory")
    return Output(source, out.dtype, (out.shape, out.stride(), int(out.storage_offset())))


def _overlap(tensors: Sequence[Tensor]) -> bool:
    """Whether any two of the tensors, which lie in one memory, have an element in common."""
    size = tensors[0].untyped_storage().nbytes() // min(t.element_size() for t in tensors)
    if len({t.dtype for t in tensors}) > 1:
        return True
    seen = torch.zeros(size, dtype=torch.bool)
    for tensor in tensors:
        place = seen.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        if place.any():
            return True
        place.fill_(True)
    return False


def _fingerprint(graph: Graph, settings: Settings) -> str:
    """The same for graphs that compute the same with the same weights."""
    digest = hashlib.sha256(repr((graph.nodes, graph.outputs, settings)).encode())
    for name, array in sorted(graph.constants.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
