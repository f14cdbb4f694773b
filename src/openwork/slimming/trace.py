"""A model as an `fx` graph whose nodes know what they hold, so that decisions over shapes can be followed."""

import contextlib
import functools
import inspect
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrize

from ..errors import ModelError, UsageError


def traced(model: nn.Module, inputs: Sequence[Tensor]) -> fx.Graph:
    """The graph of `model` in its present mode; `meta["value"]` of a node is a tensor without data, a size, ...

    Raises ModelError where control flow depends on data, or tracing fails otherwise.
    """
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module) or hasattr(module, "weight_orig"):
            where = name or type(model).__name__
            raise ModelError(f"{where} has a parametrized or masked weight; call openwork.strip(model) first")
    tracer = _Tracer(inputs)
    parameters = list(inspect.signature(model.forward).parameters.values())
    rest = {p.name: p.default for p in parameters[len(inputs) :] if p.default is not inspect.Parameter.empty}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # arguments left at their defaults are baked in, which is what is wanted
            return tracer.trace(model, concrete_args=rest or None)
    except Exception as error:  # whatever tracing user code may raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{type(model).__name__} cannot be traced by torch.fx ({reason}); control flow that depends on data must "
            "move out of forward(), into modules of their own"
        ) from error
    finally:
        for name in [n for n in vars(model) if n.startswith("_tensor_constant")]:
            delattr(model, name)


class _Known(fx.Proxy):
    """A value whose numbers Python may use: sizes in slices and ranges, lengths of tuples."""

    def _value(self) -> Any:
        value = self.node.meta["value"]
        if isinstance(value, Tensor):
            raise TypeError("a number is taken out of a tensor")
        return value

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "ndim"):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name)

    def __len__(self) -> int:
        held = self.node.meta["value"]
        return len(held)

    def __index__(self) -> int:
        return operator.index(self._value())

    def __int__(self) -> int:
        return int(self._value())

    def __float__(self) -> float:
        return float(self._value())


class _Tracer(fx.Tracer):
    """Runs every operator on tensors without data as it is recorded."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._inputs = iter([self._mode.from_tensor(x) for x in inputs])
        self._running = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Known(node, self)

    def create_node(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        if kind == "placeholder":
            node.meta["value"] = next(self._inputs, args[0] if args else None)
        elif kind != "output":
            node.meta["value"] = self._run(node)
        return node

    def _run(self, node: fx.Node) -> Any:
        target: Any = node.target
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: source.meta["value"])
        self._running, before = True, self._running
        try:
            with self._mode:
                if node.op == "get_attr":
                    return functools.reduce(getattr, target.split("."), self.root)
                if node.op == "call_module":
                    return self.root.get_submodule(target)(*args, **kwargs)
                if node.op == "call_method":
                    return getattr(args[0], target)(*args[1:], **kwargs)
                return target(*args, **kwargs)
        finally:
            self._running = before

    # While an operator runs, what it calls itself is nothing to record.

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        value = obj.node.meta["value"]
        return super().to_bool(obj) if isinstance(value, Tensor) else bool(value)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        value, each = obj.node.meta["value"], cast(Any, obj)
        return iter([each[i] for i in range(len(value))]) if isinstance(value, tuple | list) else super().iter(obj)


def given(example_inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs of one call as a tuple; UsageError if they are no tensors."""
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(x, Tensor) for x in inputs):
        raise UsageError("example_inputs must be a tensor, or a tuple of the tensors that one call takes")
    return inputs


def require_finite(model: nn.Module) -> None:
    """Raise ModelError, which names the tensor, if a value of the model's state is NaN or infinite."""
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelError(f"{name!r} holds NaN or infinite values; start from finite weights")


@contextlib.contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode that it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
