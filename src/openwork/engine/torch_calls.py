"""Runs what the compiler left to PyTorch: a list of ATen operators with JSON arguments. Imports torch on first use."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArtifactError, EngineError, MissingDependencyError
from ..formats.program import Array, ProgramSpec, TorchCall

if TYPE_CHECKING:
    pass


class TorchRunner:
    """Values that live in PyTorch for one run, and the operators that make them."""

    def __init__(self, spec: ProgramSpec) -> None:
        try:
            import torch
        except ImportError as error:
            names = sorted({c.target for s in spec.segments for c in s.calls})
            raise MissingDependencyError(
                f"this artifact runs {', '.join(names)} in PyTorch: pip install torch"
            ) from error
        self.torch = torch
        self.constants = {k: torch.from_numpy(np.array(v)) for k, v in spec.constants.items()}
        self.operators = {c.target: self._operator(c.target) for s in spec.segments for c in s.calls}
        self.values: dict[str, Any] = {}

    def run(self, calls: tuple[TorchCall, ...], buffers: list[Array]) -> None:
        """Run operators in order; results that the engine needs are written to their buffers."""
        torch = self.torch
        with torch.no_grad():
            for call in calls:
                for name, buffer in call.reads.items():
                    self.values[name] = torch.from_numpy(buffers[buffer])
                result = self._call(call)
                self.values[call.name] = result
                if call.writes >= 0:
                    self._give(call, result, buffers)

    def forget(self) -> None:
        """Drop the values of a run."""
        self.values.clear()

    def _call(self, call: TorchCall) -> Any:
        try:
            return self.operators[call.target](*self._decode(call.args), **self._decode(call.kwargs))
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"{call.target} ({call.name}) failed in PyTorch: {reason[0]}") from error

    def _give(self, call: TorchCall, result: Any, buffers: list[Array]) -> None:
        if not isinstance(result, self.torch.Tensor):
            kind = type(result).__name__
            raise EngineError(f"{call.target} ({call.name}) returned {kind}, the program expects a tensor")
        array = result.detach().to(getattr(self.torch, str(buffers[call.writes].dtype))).contiguous().numpy()
        if array.shape != buffers[call.writes].shape:
            raise EngineError(
                f"{call.target} returned shape {array.shape}, the program expects {buffers[call.writes].shape}"
            )
        buffers[call.writes] = array

    def _operator(self, target: str) -> Any:
        if target == "getitem":
            return lambda values, index: values[index]
        # values that native steps made are row-major whatever strides they had in the model, so a view may need a copy
        if target in ("aten.view.default", "aten._unsafe_view.default"):
            target = "aten.reshape.default"
        packet, _, overload = target.removeprefix("aten.").rpartition(".")
        found = (
            getattr(self.torch.ops.aten, packet, None) if target.startswith("aten.") and packet.isidentifier() else None
        )
        operator = getattr(found, overload, None)
        if operator is None:
            raise ArtifactError(
                f"this artifact needs the operator {target!r}, which this PyTorch ({self.torch.__version__}) lacks"
            )
        return operator

    def _decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._decode(v) for v in value]
        if isinstance(value, Mapping):
            return self._object(value)
        return value

    def _object(self, value: Mapping[str, Any]) -> Any:
        if len(value) != 1:
            raise ArtifactError(f"a PyTorch operator has an unknown argument {value!r}")
        (kind, content), *_ = value.items()
        try:
            if kind == "value":
                return self.values[content]
            if kind == "constant":
                return self.constants[content]
            if kind == "float":
                return float(content)
            if kind == "dict":
                return {k: self._decode(v) for k, v in content.items()}
            if kind == "torch" and content == "cpu":
                return self.torch.device("cpu")
            if kind == "torch" and str(content).removeprefix("torch.").isidentifier():
                return getattr(self.torch, content.removeprefix("torch."))
        except (KeyError, AttributeError) as error:
            raise ArtifactError(f"a PyTorch operator names {content!r}, which is not there") from error
        raise ArtifactError(f"a PyTorch operator has an unknown argument {value!r}")
