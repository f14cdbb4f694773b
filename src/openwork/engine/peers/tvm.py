"""TVM on the CPU: relax from ONNX, tuned by MetaSchedule, weights packed ahead.

Source: tvm.apache.org/docs, 'End-to-End Optimize Model', and the note in `relax.pipeline.static_shape_tuning_pipeline`:
on a CPU `cpu_weight_prepack` is expected, with so many trials a task and at least that times the tasks in all. Without
tuning TVM's convolutions are plain loops, a hundred times slower.

Tuning takes minutes to half an hour. Its records are kept in the cache folder by network, CPU and threads: a second run
finds them.
"""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ._onnx import to_onnx
from ._process import ProcessPeer
from .base import Arrays, Run

if TYPE_CHECKING:
    from torch import Tensor, nn

TRIALS = 32
"""Trials for each task (one shape of one fused operator): a round of MetaSchedule's search is 64 at most."""

MAX_TASKS = 100
"""No network of the zoo has more; the bound is on trials in all."""


@final
class TVM(ProcessPeer):
    """TVM's virtual machine on the CPU found here.

    OPENWORK_TVM_TRIALS sets another number of trials a task; 0 leaves the network untuned, and so far too slow.
    """

    packages = ("apache-tvm", "xgboost-cpu", "onnx", "onnxscript")
    imports = {"apache-tvm": "tvm", "xgboost-cpu": "xgboost"}  # noqa: RUF012

    def export(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", folder: Path) -> None:
        (folder / "model.onnx").write_bytes(to_onnx(model, example_inputs))

    def load(self, folder: Path, inputs: Arrays, threads: int) -> Run:
        import onnx
        import tvm
        from tvm import relax
        from tvm.relax.frontend import detach_params
        from tvm.relax.frontend.onnx import from_onnx

        network = onnx.load(folder / "model.onnx")
        trials = int(os.environ.get("OPENWORK_TVM_TRIALS", TRIALS))
        cpu = tvm.target.codegen.llvm_get_system_cpu()
        target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": threads})
        records = _records(network, str(cpu), threads, trials)
        done = records / "done"
        module, weights = detach_params(from_onnx(network, keep_params_in_input=True))
        with target:
            module = relax.get_pipeline(
                "static_shape_tuning",
                target=target,
                total_trials=0 if done.exists() else trials * MAX_TASKS,
                max_trials_per_task=trials,
                work_dir=str(records),
                cpu_weight_prepack=True,
            )(module)
        done.touch()
        machine = relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())
        packed = list(machine["main_transform_params"](weights["main"]))
        given = [tvm.runtime.tensor(value) for value in inputs]
        main = machine["main"]

        def run() -> tuple[np.ndarray, ...]:
            return tuple(output.numpy() for output in _several(main(*given, *packed)))

        return run


def _several(outputs: Any) -> list[Any]:
    return [outputs] if hasattr(outputs, "numpy") else list(outputs)


def _records(network: Any, cpu: str, threads: int, trials: int) -> Path:
    """Where tuning of this network is kept: its operators and shapes count, its weights do not."""
    graph = network.graph
    shape = [
        *([node.op_type, *node.input, *node.output] for node in graph.node),
        *([weight.name, *weight.dims] for weight in graph.initializer),
        *([value.name, str(value.type)] for value in graph.input),
        [cpu, platform.node(), threads, trials],
    ]
    digest = hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    records = cache / "openwork" / "tvm" / digest
    records.mkdir(parents=True, exist_ok=True)
    return records
