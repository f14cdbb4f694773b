"""`openwork run`: outputs of an artifact for an array, or how well it does on a data set."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import openwork

from ..errors import UsageError
from ..files import replacing
from ._evaluate import accuracy, correlation
from ._options import Artifact, Json, Level, Threads, must_exist
from ._output import show


def command(
    artifact: Artifact,
    input: Annotated[Path | None, typer.Option(help="NumPy array (.npy) of the shape the artifact expects.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set to measure accuracy on: a name, or file.py:factory.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the output array goes (.npy).")] = None,
    level: Level = 1,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Run ARTIFACT on an array, or measure its accuracy on the test split of a data set. An array needs no PyTorch."""
    must_exist(artifact)
    if (input is None) == (data is None):
        raise UsageError("give one of --input FILE.npy and --data NAME")
    engine = openwork.load(artifact, threads=threads)
    if data is not None:
        _on_data(engine, data, level, json)
        return
    assert input is not None
    outputs = engine(read_array(input, engine.inputs[0].dtype), level=level)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if output is not None:
        _write(output, outputs)
    where = None if output is None else str(output)
    document = {
        "outputs": [{"shape": list(y.shape), "values": y.tolist() if output is None else None} for y in outputs],
        "output": where,
    }
    text = f"wrote {output}" if output is not None else "\n".join(np.array2string(y, threshold=1000) for y in outputs)
    show(document, text, json)


def read_array(path: Path, dtype: str = "float32") -> np.ndarray:
    """The array in a .npy file, for an input of type `dtype`: whatever it is as float32, whole numbers as they are."""
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"no file {path}; give a .npy file, as numpy.save writes it") from None
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} is not a .npy file ({error}); write it with numpy.save") from error
    if not isinstance(found, np.ndarray):
        raise UsageError(f"{path} holds several arrays (.npz); give one .npy file for each input")
    return found.astype(np.float32, copy=False) if dtype == "float32" else found


def _write(path: Path, outputs: tuple[np.ndarray, ...]) -> None:
    if len(outputs) != 1:
        raise UsageError(f"the artifact has {len(outputs)} outputs and a .npy file holds one array; leave --output out")
    with replacing(path) as file:
        np.save(file, outputs[0])


def _on_data(engine: Any, name: str, level: int, json: bool) -> None:
    from ..data import SentencePairs, load

    data = load(name)
    if isinstance(data, SentencePairs):
        value, pairs = correlation(engine, data, level)
        show(
            {"data": data.name, "spearman": value, "examples": pairs},
            f"Spearman correlation on {data.name}: {value:.4f} over {pairs:,} test pairs",
            json,
        )
        return
    share, examples = accuracy(engine, data, level)
    show(
        {"data": data.name, "accuracy": share, "examples": examples},
        f"accuracy on {data.name}: {share:.2%} of {examples:,} test examples",
        json,
    )
