"""`openwork slim`: the weights of a pruned model without the channels that it does not need."""

from pathlib import Path
from typing import Annotated

import typer

import openwork

from ..errors import UsageError
from . import _tables as tables
from ._options import Json
from ._output import progress_console, show
from ._source import built, source
from ._way import split_names, waiting


def command(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|RUN_DIR", help="Zoo name, path/to/file.py:factory, or a finished run's folder."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The weights to write, a .safetensors file.")],
    weights: Annotated[Path | None, typer.Option(help="Weights to slim, a .safetensors file.")] = None,
    multiple: Annotated[int, typer.Option(min=1, help="Leave channels in multiples of this, such as 8.")] = 1,
    keep: Annotated[str, typer.Option(help="Layers whose inputs and outputs stay, with commas between them.")] = "",
    purify_share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="First empty channels and filters with at most this share of the energy."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="What the model was pruned with; layouts of its layers must hold.")
    ] = None,
    free: Annotated[bool, typer.Option("--free", help="Give up the layouts of the recipe in RUN_DIR.")] = False,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one example, such as 3,32,32, where the model's file does not say it.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens or steps of a sequence, of models that take sequences.")
    ] = None,
    json: Json = False,
) -> None:
    """Cut out of MODEL, or of the pruned model of RUN_DIR, what its outputs do not depend on.

    The file fits the same model: `openwork compile MODEL --weights FILE` compiles the smaller network.
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"--output {output} is not a .safetensors file; weights are written to one")
    if free and recipe is not None:
        raise UsageError("give one of --recipe, whose layouts must hold, and --free")
    spec, path, _ = source(model, weights)
    network, example = built(spec, path, 1, input_shape, length)
    from ..recipes.recipe import Recipe
    from ..slimming.narrow import SLIMMED
    from ..training.checkpoint import model_tensors, save_tensors

    held = Recipe.load(recipe) if recipe is not None else None
    if held is None and not free and (own := Path(model) / "recipe.yaml").is_file():
        held = Recipe.load(own)
    with waiting(progress_console(), "slimming"):
        if purify_share is not None:
            network = openwork.purify(network, example, share=purify_share).model
        found = openwork.slim(network, example, multiple=multiple, keep=split_names(keep), recipe=held)
    save_tensors(output, model_tensors(found.model), {"openwork": SLIMMED, "model": spec})
    document = {"weights_file": str(output), "bytes": output.stat().st_size, **found.to_dict()}
    show(document, f"{found}\n{output} ({tables.size(output.stat().st_size)})", json)
