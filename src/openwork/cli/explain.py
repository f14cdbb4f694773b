"""`openwork explain`: what the compiler chose for each layer, and what it costs."""

import openwork

from ._options import Artifact, Json, Level, Threads, must_exist
from ._output import show


def command(artifact: Artifact, level: Level = 1, threads: Threads = None, json: Json = False) -> None:
    """Show every step of ARTIFACT: kernel, sparsity, time, share of the peak, and what was tried."""
    must_exist(artifact)
    explanation = openwork.load(artifact, threads=threads).explain(level=level)
    show(explanation.to_dict(), str(explanation), json)
