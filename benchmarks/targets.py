"""The speed that Openwork aims at, row by row: a network or layers, the engines to beat, and by how much.

    python benchmarks/targets.py [--rows resnet50-4x1,dense-*] [--again] [--list] [--against onnxruntime,openvino]

Batch 1, two threads, random weights. All engines of a row run the same network with the same zeros, in turn in one run;
outputs are compared. Engines that are not installed or cannot take a network are left out and named. TVM is only in the
rows whose target names it, since it tunes for half an hour; --against takes it into others.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from _suite import Suite, goal, show_goals
from _workloads import INT8_BLOCKS, in_int8, network, sparsity_of
from torch import nn

import openwork
from openwork import models, plugins
from openwork.engine import _native
from openwork.engine.bench_result import BenchResult
from openwork.engine.peers.base import Peer

FP32 = ("onnxruntime", "openvino")
PHONES = ("litert", "tvm", "mnn")
ALL = ("pytorch", "torch_compile", *FP32, "openvino_bf16", "openvino_int8", "litert", "mnn", "ncnn", "deepsparse")
INT8 = ("pytorch", *FP32, "openvino_int8")
VNNI = "avx512vnni"
"""Our kernels on CPUs without AMX."""
ROUNDS = 30


@dataclass(frozen=True)
class Goal:
    """How much faster than the fastest of some engines."""

    than: tuple[str, ...]
    at_least: float
    said: str = ""
    """Who set it, if not this project."""


@dataclass(frozen=True)
class Network:
    """A network beside other engines."""

    title: str
    model: str
    pattern: str
    sparsity: float
    goals: tuple[Goal, ...]
    peers: tuple[str, ...] = ALL
    int8: bool = False
    """Quantized for our engine; the peers get the network before that, some of which quantize it themselves."""
    isa: str = "auto"
    """Of our engine, if the CPU has it."""


def dense(model: str) -> Network:
    return Network(f"{model}, dense", model, "dense", 0.0, (Goal(FP32, 1.0),))


def int8(name: str, title: str, model: str, sparsity: float, against: float, *goals: Goal) -> dict[str, Network]:
    """In whole numbers, in blocks of 4 outputs by 4 channels where anything is zero; `against` OpenVINO in int8, with
    what the CPU has, and once more with neither side using AMX."""
    here = (Goal(("openvino_int8",), against), *goals)
    without = (Goal(("openvino_int8_vnni",), against, "both as on CPUs without AMX"),)
    pattern = INT8_BLOCKS if sparsity else "dense"
    return {
        name: Network(title, model, pattern, sparsity, here, INT8, int8=True),
        f"{name}-vnni": Network(
            f"{title}, without AMX", model, pattern, sparsity, without, ("openvino_int8_vnni",), int8=True, isa=VNNI
        ),
    }


NETWORKS = {
    "resnet50-4x1": Network(
        "ResNet-50, 90 % in 4x1 blocks",
        "resnet50", "4x1", 0.9,
        (Goal(("onnxruntime",), 6.0), Goal(("openvino_bf16",), 3.0), Goal(("deepsparse",), 6.0)),
    ),
    **int8(
        "resnet50-int8", "ResNet-50, 90 % in 4x4 blocks, int8",
        "resnet50", 0.9, 4.0, Goal(("onnxruntime",), 12.0),
    ),
    **int8("vgg16-int8", "VGG-16, 90 % in 4x4 blocks, int8", "vgg16", 0.9, 3.0),
    **int8("minilm-int8", "MiniLM, 80 % in 4x4 blocks, int8", "minilm", 0.8, 2.0),
    **int8("dense-mobilenetv2-int8", "mobilenetv2, dense, int8", "mobilenetv2", 0.0, 1.0),
    **int8("dense-efficientnet_lite0-int8", "efficientnet_lite0, dense, int8", "efficientnet_lite0", 0.0, 1.0),
    **{f"dense-{m}": dense(m) for m in ("resnet50", "vgg16", "mobilenetv2", "efficientnet_lite0", "minilm")},
    "vgg16-patdnn": Network(
        "VGG-16, PatDNN patterns and connectivity, 8x",
        "vgg16", "patdnn", 1 - 1 / 8,
        (
            Goal(PHONES, 5.0),
            Goal(("litert",), 44.5, "PatDNN's largest"),
            Goal(("tvm",), 11.4, "PatDNN's largest"),
            Goal(("mnn",), 7.1, "PatDNN's largest"),
        ),
        (*ALL, "tvm"),
    ),
    "bert-4x1": Network(
        "BERT-base, 128 tokens, 90 % in 4x1 blocks", "bert_base", "4x1", 0.9, (Goal(("onnxruntime",), 5.0),)
    ),
}  # fmt: skip

GRUS = {"gru-10x": 10.0, "gru-103x": 103.0}
OF_BYTES = 0.90
"""Share of the bytes-bound limit that a step of the GRU shall reach."""

UNSTRUCTURED = {"unstructured-random": 3.5, "unstructured-trained": 5.0}
EFFICIENCY = {"efficiency-dense": ("dense", 0.85), "efficiency-8x1": ("90 % in 8x1", 0.75)}

ROWS = {
    **{name: row.title for name, row in NETWORKS.items()},
    **{name: f"GRU 1,024 x 2, one step, {rate:g}x compression, against its bytes" for name, rate in GRUS.items()},
    "unstructured-random": "3x3 and 1x1 layers, 90 % unstructured at random, against dense in the same engine",
    "unstructured-trained": "3x3 and 1x1 layers, 90 % unstructured by magnitude of trained weights, against dense",
    "efficiency-dense": "ResNet-50's layers, dense, one thread, operations by definition, against the measured peak",
    "efficiency-8x1": "ResNet-50's layers, 90 % in 8x1 blocks, one thread, against the multiply-add peak",
}


def measure(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row, measured."""
    if row in NETWORKS:
        return measure_network(NETWORKS[row], options)
    import _layer_rows as layers

    if row in GRUS:
        return layers.gru(GRUS[row], OF_BYTES, options.threads)
    if row in UNSTRUCTURED:
        return layers.unstructured(row.endswith("trained"), UNSTRUCTURED[row], options.threads)
    return layers.efficiency(*EFFICIENCY[row])


def measure_network(row: Network, options: argparse.Namespace) -> dict[str, Any]:
    """Our engine and the peers on one network, and where our time goes."""
    if row.model not in plugins.names("models"):
        return {"not_yet": f"the zoo has no {row.model}", "goals": [_goal(goal, None) for goal in row.goals]}
    from _roofline import layers, peaks, summary

    model = network(row.model, row.pattern, row.sparsity)
    inputs = models.example_inputs(row.model)
    ours = in_int8(model, row.model) if row.int8 else model
    isa = row.isa if row.isa in _native.isas() else "auto"
    engine = openwork.compile(ours, inputs, threads=options.threads, tune=options.tune, isa=isa, name=row.model)
    peers, absent = _peers(options.against or row.peers)
    result = bench(engine, peers, model, inputs, options.rounds)
    steps = layers(engine)
    return {
        "sparsity": round(sparsity_of(model), 4),
        "result": result.to_dict(),
        "left_out": [*absent, *result.notes],
        "goals": [_goal(goal, result) for goal in row.goals],
        "peaks": peaks(engine.isa, engine.threads),
        "roofline": summary(steps),
        "steps": steps,
    }


def bench(
    engine: openwork.Engine, peers: list[str], model: nn.Module, inputs: tuple[torch.Tensor, ...], rounds: int
) -> BenchResult:
    """All sides in turn."""
    given = tuple(x.numpy() for x in inputs)
    return openwork.bench(engine, peers, threads=engine.threads, repeats=rounds, compiled_from=model, inputs=given)


def _peers(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Those that can run here, and why the others cannot."""
    found = {name: plugins.find("engine.peers", name, Peer)().available() for name in names}
    return [n for n, a in found.items() if a], [f"{n} left out: {a.reason}" for n, a in found.items() if not a]


def _goal(wanted: Goal, result: BenchResult | None) -> dict[str, Any]:
    """A goal beside what was measured: the ratio to the fastest of its engines."""
    sides = [s for s in result.sides if s.engine in wanted.than] if result else []
    than = wanted.than[0] if len(wanted.than) == 1 else f"the fastest of {', '.join(wanted.than)}"
    target = f">= {wanted.at_least:g}x {than}" + (f" ({wanted.said})" if wanted.said else "")
    if not sides:
        return goal(target, wanted.at_least, None)
    best = min(sides, key=lambda side: side.median_us)
    unit = "x" if len(wanted.than) == 1 else f"x {best.engine}"
    return goal(target, wanted.at_least, best.ratio, unit, (best.ratio_low, best.ratio_high))


def names(text: str) -> tuple[str, ...]:
    """'a,b' as ('a', 'b')."""
    return tuple(filter(None, text.split(",")))


def options(parser: argparse.ArgumentParser) -> None:
    """This benchmark's own options."""
    parser.add_argument(
        "--against", type=lambda t: tuple(filter(None, t.split(","))), help="engines, instead of the row's"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tune", default="thorough", choices=("off", "fast", "thorough"))


SUITE = Suite("targets", ROWS, measure, show_goals, options)

if __name__ == "__main__":
    raise SystemExit(SUITE.main(__doc__))
