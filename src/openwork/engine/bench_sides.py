"""What takes part in a benchmark: which networks, each engine ready to run them, and how far their outputs agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plugins
from ..errors import EngineError, OpenworkError, PeerError
from .peers.base import INT8_TOLERANCE, Arrays, Peer, Run
from .timing import Progress

if TYPE_CHECKING:
    from torch import nn

    from .engine import Engine

SMALLEST = float(np.finfo(np.float32).tiny)
"""Stands for the largest output where all are zero."""

Key = tuple[str, str]
"""(engine, network), such as ("onnxruntime", "dense")."""


@dataclass
class Ready:
    """Sides that are ready to run; ours comes first."""

    runs: dict[Key, Run]
    differences: dict[Key, float] = field(default_factory=dict)
    """How far their outputs are from ours, where they must agree."""
    notes: list[str] = field(default_factory=list)
    """Which sides were left out, and why."""


def find_networks(
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
    if provenance.get("quantized"):
        # Peers would only simulate it; what they have of their own is the network before, for some to quantize.
        return {"dense": build(), **given}, "the artifact is quantized: the peers ran the network as it was before"
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


def prepare(
    ours: "Engine",
    peers: Sequence[Peer],
    networks: "dict[str, nn.Module]",
    inputs: Arrays,
    threads: int,
    progress: Progress | None = None,
) -> Ready:
    """Our engine and every peer on every network, ready to run on `inputs`.

    Raises `EngineError` where an fp32 peer's outputs are not ours.
    """

    def openwork() -> Arrays:
        outputs = ours(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    expected = openwork()
    ready = Ready({("openwork", "compiled"): openwork})
    todo = [(peer, name, network) for name, network in networks.items() for peer in peers]
    for done, (peer, name, network) in enumerate(todo):
        if progress is not None:
            progress(f"preparing {peer.name}", done, len(todo))
        try:
            run = _prepared(peer, network, inputs, threads)
            if name == "compiled":
                ready.differences[peer.name, name] = agreement(peer, run(), expected, ours.precision)
            ready.runs[peer.name, name] = run
        except PeerError as error:
            which = "" if name == "compiled" else f" on the {name} model"
            ready.notes.append(f"{peer.name} left out{which}: {error}")
    return ready


def _prepared(peer: Peer, network: "nn.Module", inputs: Arrays, threads: int) -> Run:
    import torch

    try:
        return peer.prepare(network.eval(), tuple(torch.from_numpy(array) for array in inputs), threads)
    except OpenworkError:
        raise
    except Exception as error:  # whatever a library raises for a network that it does not know
        lines = str(error).strip().splitlines() or [""]
        raise PeerError(f"it cannot take this network ({type(error).__name__}: {lines[0][:200]})") from error


def agreement(peer: Peer, theirs: Arrays, ours: Arrays, precision: str = "fp32") -> float:
    """Largest difference of two sets of outputs, relative to the largest output.

    Small, since the speed of a wrong answer is worth nothing. Raises `EngineError` where it is not, or `PeerError` for
    a peer that computes in less than fp32. `precision`: what we compute in, 'fp32' or 'int8'.
    """
    limit = max(peer.tolerance, INT8_TOLERANCE if precision == "int8" else 0.0)
    shapes = [a.shape for a in theirs], [a.shape for a in ours]
    if shapes[0] != shapes[1]:
        raise EngineError(
            f"{peer.name} returns shapes {shapes[0]}, the engine {shapes[1]}: not the same network; compile again"
        )
    found = [
        float(np.abs(a - b).max()) / max(SMALLEST, float(np.abs(b).max()))
        for a, b in zip(theirs, ours, strict=True)
        if a.size
    ]
    worst = float(np.max(found, initial=0.0))  # unlike max(), keeps NaN
    if worst <= limit:
        return worst
    if peer.precision != "fp32":
        raise PeerError(f"its {peer.precision} outputs differ by {worst:.2g} of the largest (limit {limit:g})")
    raise EngineError(
        f"outputs differ from those of {peer.name} by {worst:.2g} (limit {limit:g}): the artifact comes from "
        "other weights, or is wrong; compile it again"
    )
