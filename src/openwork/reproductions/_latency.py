"""Networks timed side by side, in turn in one run, with a dense one to compare with."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..compiler.compile import compile as compiled
from ..engine.engine import Engine
from ..engine.timing import measure as in_turn

ROUNDS = 20
"""Rounds in which every network is timed once."""


def dense(model: nn.Module, inputs: Tensor, threads: int) -> Engine:
    """The engine of the same network without zeros: latency does not depend on what the weights are."""
    filled = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in filled.parameters():
            if p.dim() > 1:
                p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
    return compiled(filled, inputs, threads=threads, name="dense")


def beside_dense(
    networks: Mapping[str, nn.Module], model: nn.Module, inputs: Tensor, threads: int
) -> dict[str, dict[str, Any]]:
    """Figures of all networks in turn in one run; of `model` without zeros, as "dense" under the name ""."""
    engines = {name: compiled(network.eval(), inputs, threads=threads) for name, network in networks.items()}
    figures = side_by_side({**engines, "": dense(model, inputs, threads)}, inputs)
    return {**figures, "": {"dense": figures[""]}}


def side_by_side(engines: Mapping[str, Engine], inputs: Tensor) -> dict[str, dict[str, Any]]:
    """Median microseconds of each, times what the engine called "" takes, and share of the multiply-add peak.

    Of the peak counts what the layers' definition needs, each weight that is kept once for each output, over the
    latency of the whole network: neither zeros that a kernel did not skip nor short cuts change what is to be done.
    """
    array = inputs.numpy()
    runs = [lambda engine=engine: engine(array) for engine in engines.values()]
    seconds = dict(zip(engines, in_turn(runs, ROUNDS, 3), strict=True))
    figures: dict[str, dict[str, Any]] = {}
    for name, engine in engines.items():
        explained = engine.explain(1)
        useful = sum(row["gflops"] * row["microseconds"] for row in explained.rows if row["gflops"])
        microseconds = 1e6 * float(np.median(seconds[name]))
        figures[name] = {
            "us": round(microseconds, 2),
            "times_dense": round(float(np.median(seconds[name] / seconds[""])), 4),
            "share_of_peak": round(useful / microseconds / explained.totals["peak_gflops"], 4) if useful else None,
        }
    return figures
