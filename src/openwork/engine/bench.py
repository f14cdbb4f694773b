"""How fast an engine is beside others, on the same inputs and threads, in one run."""

import datetime
import importlib.metadata
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plugins
from ..errors import EngineError, UsageError
from .bench_result import BenchResult, Side
from .machine import machine
from .peers.base import Peer, Run
from .timing import Progress, measure, ratio_interval

if TYPE_CHECKING:
    from torch import nn

    from .engine import Engine

TOLERANCE = 1e-3
"""Largest difference of two engines' outputs on the same network, relative to the largest output (at least 1)."""


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
    progress: Progress | None = None,
) -> BenchResult:
    """Time an engine beside others, in turn, in one run.

    Each peer runs up to two networks: the one that the engine was compiled from (zeros in place; its outputs must
    agree within 1e-3), and the dense `model` that was pruned.

    Arguments:
        engine: an engine, or the path of an artifact.
        against: names of peers ("pytorch", "torch_compile", "onnxruntime", "openvino"); none times the engine alone.
        model: the dense baseline.
        threads: threads of every side; default: the engine's own (for a path: 2, or the cores if there are fewer).
        repeats: rounds, at least 3.
        warmup: untimed inferences of each side, at least 1.
        compiled_from: the network that the engine was compiled from; default: the zoo model that the artifact names,
            with the `model.safetensors` of its run folder. Without that file, peers run it with random weights.
        inputs: arrays in the order of `engine.inputs`; default: normal random numbers, always the same (whole numbers:
            zeros and ones, which are valid ids and masks in any model).
        progress: called as (what, done, total).

    Raises `UsageError` for an unknown peer, for numbers out of range and when nothing is left to compare with;
    `MissingDependencyError` for a peer that is not installed; `EngineError` when outputs disagree.

        print(openwork.bench("r20.openwork", against=["onnxruntime"], model=dense))

    The PyTorch thread setting of the process is changed while this runs, and put back.
    """
    if repeats < 3 or warmup < 1:
        raise UsageError(f"repeats={repeats} must be at least 3 and warmup={warmup} at least 1")
    peers = [
        plugins.find("engine.peers", name, Peer)()  # type: ignore[type-abstract]
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
    networks, note = _networks(ours.provenance, path, compiled_from, model) if peers else ({}, "")
    if peers and not networks:
        raise UsageError(f"there is no network to run in {', '.join(p.name for p in peers)}: {note}; pass model=")
    with _torch_threads(threads) if peers else nullcontext():
        prepared, differences = _prepare(ours, peers, networks, given, threads, progress)
        rounds = measure(list(prepared.values()), repeats, warmup, progress)
    sides = _sides(prepared, differences, rounds, {peer.name: peer.version for peer in peers})
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
        notes=(note,) if note else (),
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


def _networks(
    provenance: Mapping[str, Any],
    path: Path | None,
    compiled_from: "nn.Module | None",
    dense: "nn.Module | None",
) -> "tuple[dict[str, nn.Module], str]":
    """The networks for the peers to run, and a remark where the one that was compiled is not among them."""
    given = {name: module for name, module in (("compiled", compiled_from), ("dense", dense)) if module is not None}
    if compiled_from is not None:
        return given, ""
    spec = provenance.get("model")
    # By the look-up, since this room imports no other: models of the zoo, not the users' files.
    if not isinstance(spec, str) or spec not in plugins.names("models"):
        origin = "names no model" if spec is None else f"comes from {spec}"
        return given, f"the artifact {origin}, so no peer ran the compiled network and no outputs were compared"
    build = plugins.module("models", spec).build
    folders = [path.parent] if path is not None else []
    if run := provenance.get("run"):
        folders.append(Path(str(run)))
    for folder in folders:
        if (folder / "model.safetensors").is_file():
            return {"compiled": build(weights=folder / "model.safetensors"), **given}, ""
    remark = f"there is no model.safetensors beside the artifact, so no outputs were compared with those of {spec}"
    if dense is None:
        given["dense"] = build(weights=None)
        remark += "; the peers ran it dense, with random weights"
    return given, remark


def _prepare(
    ours: "Engine",
    peers: Sequence[Peer],
    networks: "dict[str, nn.Module]",
    inputs: tuple[np.ndarray, ...],
    threads: int,
    progress: Progress | None,
) -> tuple[dict[tuple[str, str], Run], dict[tuple[str, str], float]]:
    """All sides ready to run, by (engine, network), and how far their outputs are from ours where they must agree."""

    def openwork() -> tuple[np.ndarray, ...]:
        outputs = ours(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    expected = openwork()
    prepared: dict[tuple[str, str], Run] = {("openwork", "compiled"): openwork}
    differences: dict[tuple[str, str], float] = {}
    todo = [(peer, name, network) for name, network in networks.items() for peer in peers]
    for done, (peer, name, network) in enumerate(todo):
        if progress is not None:
            progress(f"preparing {peer.name}", done, len(todo))
        import torch

        run = peer.prepare(network.eval(), tuple(torch.from_numpy(array) for array in inputs), threads)
        if name == "compiled":
            differences[peer.name, name] = _agreement(peer.name, run(), expected)
        prepared[peer.name, name] = run
    return prepared, differences


def _agreement(name: str, theirs: tuple[np.ndarray, ...], ours: tuple[np.ndarray, ...]) -> float:
    """Largest relative difference of two sets of outputs: small, since the speed of a wrong answer is worth nothing."""
    shapes = [a.shape for a in theirs], [a.shape for a in ours]
    if shapes[0] != shapes[1]:
        raise EngineError(
            f"{name} returns shapes {shapes[0]}, the engine {shapes[1]}: not the same network; compile again"
        )
    found = [
        float(np.abs(np.subtract(a, b, dtype=np.float64)).max()) / max(1.0, float(np.abs(a).max()))
        for a, b in zip(theirs, ours, strict=True)
        if a.size
    ]
    worst = float(np.max(found, initial=0.0))  # unlike max(), keeps NaN
    if not worst <= TOLERANCE:
        raise EngineError(
            f"outputs differ from those of {name} by {worst:.2g} (limit {TOLERANCE:g}): the artifact comes from other "
            "weights, or is wrong; compile it again"
        )
    return worst


def _sides(
    prepared: dict[tuple[str, str], Run],
    differences: dict[tuple[str, str], float],
    rounds: np.ndarray,
    versions: dict[str, str],
) -> tuple[Side, ...]:
    from .. import __version__

    sides = []
    for (engine, network), seconds in zip(prepared, rounds, strict=True):
        low, median, high = np.percentile(seconds, [25, 50, 75]) * 1e6
        ratio, ratio_low, ratio_high = ratio_interval(seconds, rounds[0])
        sides.append(
            Side(
                name=engine if network == "compiled" else f"{engine}, dense model",
                engine=engine,
                network=network,
                version=__version__ if engine == "openwork" else versions[engine],
                median_us=float(median),
                low_us=float(low),
                high_us=float(high),
                min_us=float(seconds.min() * 1e6),
                ratio=ratio,
                ratio_low=ratio_low,
                ratio_high=ratio_high,
                difference=differences.get((engine, network)),
                rounds_us=[round(float(s) * 1e6, 3) for s in seconds],
            )
        )
    return tuple(sides)


def _versions(peers: Sequence[Peer]) -> dict[str, str]:
    from .. import __version__

    found = {"openwork": __version__, "python": platform.python_version(), "numpy": np.__version__}
    packages = {package for peer in peers for package in peer.packages}
    return found | {name: importlib.metadata.version(name) for name in sorted(packages)}


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
