"""The other process of a `ProcessPeer`: python -P _worker.py NAME FOLDER THREADS

Answers each line of its input with a line: {"calls": 0} runs once and writes the outputs into the folder, {"calls": n}
times n inferences. It may run in an environment that has little but NumPy and the engine, so Openwork is not imported
by name but from the folder where this file lies.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = Path(__file__).resolve().parents[2]


def main(name: str, folder: Path, threads: int) -> None:
    """Load, then answer until the input ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        if "openwork" not in sys.modules:
            _make_importable()
        from openwork import plugins
        from openwork.engine import timing
        from openwork.engine.peers._process import ProcessPeer, save

        peer = plugins.find("engine.peers", name, ProcessPeer)()  # type: ignore[type-abstract]
        inputs = tuple(np.load(folder / f"input{i}.npy") for i in range(len(list(folder.glob("input*.npy")))))
        run = peer.load(folder, inputs, threads)
        run()
    except Exception as error:
        answer(error=first_line(error))
        return
    answer(ready=True)
    for line in sys.stdin:
        try:
            if calls := json.loads(line)["calls"]:
                seconds = timing.block(run, calls)
                timing.rest()
                answer(seconds=seconds)
            else:
                outputs = run()
                save(folder, "output", outputs)
                answer(outputs=len(outputs))
        except Exception as error:
            answer(error=first_line(error))


def first_line(error: Exception) -> str:
    """An exception in one line; not one that only says where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.endswith(":")] or lines
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


def _make_importable() -> None:
    # Adding the parent folder to sys.path would bring along whatever else is installed there.
    spec = importlib.util.spec_from_file_location("openwork", PACKAGE / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["openwork"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
