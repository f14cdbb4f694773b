"""What MODEL|RUN_DIR means: a model with weights, the pruned model of a finished run, or a quantized network."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError, UsageError
from ._output import progress_console
from ._way import waiting

if TYPE_CHECKING:
    import torch
    from torch import nn


def source(model: str, weights: Path | None) -> tuple[str, Path | None, dict[str, Any]]:
    """Model spec, weights and provenance; a run folder brings its own."""
    folder = Path(model)
    if not folder.is_dir():
        if len(folder.parts) > 1 and ":" not in model and not folder.exists():
            raise UsageError(
                f"there is no run folder {model}; give the folder that `openwork compress` wrote, or a model"
            )
        return model, weights, {"model": model}
    if weights is not None:
        raise UsageError(
            f"--weights {weights}: {folder} is a run folder and has weights of its own; name the model instead"
        )
    result = folder / "result.json"
    if not result.is_file():
        raise RunError(f"{folder} is not a finished run (no result.json); give the compress command again to finish it")
    try:
        found = json.loads(result.read_text())
        spec, final = found["model"], found["final"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{result} is damaged ({error}); run the compress command again in a new folder") from error
    provenance = {
        "model": spec,
        "recipe": found.get("recipe"),
        "data": found.get("data"),
        "run": str(folder),
        "accuracy": final.get("test_accuracy"),
        "sparsity": final.get("sparsity"),
        **({"quantized": found["quantized"]} if "quantized" in found else {}),
    }
    return spec, folder / "model.safetensors", provenance


def built(
    spec: str, weights: Path | None, batch: int, input_shape: str | None, length: int | None
) -> "tuple[torch.nn.Module, tuple[torch.Tensor, ...]]":
    """The model, and what one call of it takes."""
    if input_shape is not None and length is not None:
        raise UsageError("give one of --input-shape, for a model of one float32 input, and --length, for sequences")
    with waiting(progress_console(), "loading PyTorch"):
        import torch

        from .. import models
    if input_shape is not None:
        random = torch.Generator().manual_seed(0)
        example: tuple[torch.Tensor, ...] = (torch.randn((batch, *_shape(input_shape)), generator=random),)
    else:
        example = models.example_inputs(spec, batch, **({} if length is None else {"length": length}))
    torch.manual_seed(0)
    return network(spec, weights, example), example


def network(spec: str, weights: Path | None, example: "tuple[torch.Tensor, ...] | None" = None) -> "nn.Module":
    """The model with these weights, in evaluation mode; of a quantized network's weights that network, which takes
    inputs like `example`; beside the grids of a run that quantized, with layers that round."""
    from .. import models
    from ..quantization import folder, rounding

    if weights is None:
        return models.resolve(spec).eval()
    if folder.holds(weights):
        return folder.load(weights.parent, models.resolve(spec, weights=None), example)
    found = models.resolve(spec, weights=weights)
    scales = weights.parent / rounding.FILE
    if weights.name == "model.safetensors" and scales.is_file():
        rounding.simulate(found, rounding.load(scales))
    return found.eval()


def _shape(text: str) -> tuple[int, ...]:
    """'3,32,32' as (3, 32, 32)."""
    try:
        found = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(f"--input-shape {text}: write the sizes of one example without the batch, such as 3,32,32")
    return found
