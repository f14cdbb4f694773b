"""What MODEL|RUN_DIR means: a model with weights, or the pruned model of a finished run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError, UsageError
from ._output import progress_console
from ._way import waiting

if TYPE_CHECKING:
    import torch


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
        from ..quantization import rounding
    torch.manual_seed(0)
    found = models.resolve(spec) if weights is None else models.resolve(spec, weights=weights)
    scales = None if weights is None or weights.name != "model.safetensors" else weights.parent / rounding.FILE
    if scales is not None and scales.is_file():
        rounding.simulate(found, rounding.load(scales))
    if input_shape is not None:
        return found.eval(), (torch.randn((batch, *_shape(input_shape))),)
    options = {} if length is None else {"length": length}
    return found.eval(), models.example_inputs(spec, batch, **options)


def _shape(text: str) -> tuple[int, ...]:
    """'3,32,32' as (3, 32, 32)."""
    try:
        found = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(f"--input-shape {text}: write the sizes of one example without the batch, such as 3,32,32")
    return found
