"""How fast an engine is beside others, on the same inputs and threads, in one run."""

import datetime
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import plugins
from ..errors import UsageError
from .bench_result import BenchResult, Side
from .bench_sides import Ready, find_networks, prepare
from .machine import machine
from .peers.base import Peer
from .timing import Progress, measure, ratio_interval

if TYPE_CHECKING:
    from torch import nn

    from .engine import Engine


def bench(
    engine: "Engine | str | Path",
    against: Sequence[str] = ("pytorch", "onnxruntime"),
    model: "nn.Module | None" = None,
    threads: int | None = None,
    repeats: int = 30,
    warmup: int = 5,
    *,
    compiled_from: "nn.Module | None" = None,
    inputs: "tuple[np.ndarray, ...] | None" = None,
    calibration: "Sequence[tuple[np.ndarray, ...]]" = (),
    progress: Progress | None = None,
) -> BenchResult:
    """Time an engine beside others, in turn, in one run.

    Each peer runs up to two networks: the one that the engine was compiled from (zeros in place; its outputs must
    agree), and the dense `model` that was pruned. A peer that cannot run a network, or whose lower precision (bf16,
    int8) takes it too far from the engine's outputs, is left out; `notes` says why.

    Arguments:
        engine: an engine, or the path of an artifact.
        against: names of peers ("pytorch", "onnxruntime", "openvino_int8", ...; an unknown name lists them); none times
            the engine alone.
        model: the dense baseline.
        threads: threads of every side; default: the engine's own (for a path: 2, or the cores if there are fewer).
        repeats: rounds, at least 3.
        warmup: untimed inferences of each side, at least 1.
        compiled_from: the network that the engine was compiled from; default: the zoo model that the artifact names,
            with the `model.safetensors` of its run folder. Without that file, peers run it with random weights.
        inputs: arrays in the order of `engine.inputs`; default: normal random numbers, always the same (whole numbers:
            zeros and ones, which are valid ids and masks in any model).
        calibration: typical inputs, for peers that quantize; default: normal random ones.
        progress: called as (what, done, total).

    Raises `UsageError` for an unknown peer, for numbers out of range and when nothing is left to compare with;
    `MissingDependencyError` for a peer that is not installed; `EngineError` when outputs of fp32 peers disagree.

        print(openwork.bench("r20.openwork", against=["onnxruntime"], model=dense))

    The PyTorch thread setting of the process is changed while this runs, and put back.
    """
    if repeats < 3 or warmup < 1:
        raise UsageError(f"repeats={repeats} must be at least 3 and warmup={warmup} at least 1")
    peers = [
        plugins.find("engine.peers", name, Peer)(calibration)  # type: ignore[type-abstract]
        for name in dict.fromkeys(against)
    ]
    for peer in peers:
        peer.check()
    path = Path(engine) if isinstance(engine, str | Path) else None
    ours = _open(engine, threads)
    threads = threads or ours.threads
    if threads != ours.threads:
        raise UsageError(f"threads={threads}, but the engine has {ours.threads}; load it with threads={threads}")
    given = inputs if inputs is not None else random_inputs([(s.shape, s.dtype) for s in ours.inputs])
    networks, note = find_networks(ours.provenance, path, compiled_from, model) if peers else ({}, "")
    if peers and not networks:
        raise UsageError(f"there is no network to run in {', '.join(p.name for p in peers)}: {note}; pass model=")
    with _torch_threads(threads) if peers else nullcontext():
        ready = prepare(ours, peers, networks, given, threads, progress)
        rounds = measure(list(ready.runs.values()), repeats, warmup, progress)
    sides = _sides(ready, rounds, {peer.name: peer for peer in peers}, ours.precision)
    return BenchResult(
        sides=sides,
        threads=threads,
        batch=int(given[0].shape[0]),
        repeats=repeats,
        warmup=warmup,
        isa=ours.isa,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan,
        machine=machine(),
        versions=_versions(peers),
        when=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        notes=(*([note] if note else []), *ready.notes),
    )


def random_inputs(specs: "Sequence[tuple[tuple[int, ...], str]]", seed: int = 0) -> tuple[np.ndarray, ...]:
    """Normal random arrays, zeros and ones for whole numbers, of the given shapes and dtypes; the same for a seed."""
    generator = np.random.default_rng(seed)
    draws = (
        generator.standard_normal if dtype == "float32" else lambda shape: generator.integers(0, 2, shape)
        for _, dtype in specs
    )
    return tuple(draw(shape).astype(dtype) for draw, (shape, dtype) in zip(draws, specs, strict=True))


def _open(engine: "Engine | str | Path", threads: int | None) -> "Engine":
    if not isinstance(engine, str | Path):
        return engine
    from .engine import load

    return load(Path(engine), threads=threads or min(2, os.cpu_count() or 1))


def _sides(ready: Ready, rounds: np.ndarray, peers: Mapping[str, Peer], precision: str) -> tuple[Side, ...]:
    from .. import __version__

    sides = []
    for (engine, network), seconds in zip(ready.runs, rounds, strict=True):
        low, median, high = np.percentile(seconds, [25, 50, 75]) * 1e6
        ratio, ratio_low, ratio_high = ratio_interval(seconds, rounds[0])
        sides.append(
            Side(
                name=engine if network == "compiled" else f"{engine}, dense model",
                engine=engine,
                network=network,
                version=peers[engine].version if engine in peers else __version__,
                precision=peers[engine].precision if engine in peers else precision,
                median_us=float(median),
                low_us=float(low),
                high_us=float(high),
                min_us=float(seconds.min() * 1e6),
                ratio=ratio,
                ratio_low=ratio_low,
                ratio_high=ratio_high,
                difference=ready.differences.get((engine, network)),
                rounds_us=[round(float(s) * 1e6, 3) for s in seconds],
            )
        )
    return tuple(sides)


def _versions(peers: Sequence[Peer]) -> dict[str, str]:
    from .. import __version__

    found = {"openwork": __version__, "python": platform.python_version(), "numpy": np.__version__}
    for peer in peers:
        found |= peer.versions()
    return found


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
