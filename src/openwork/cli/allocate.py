"""`openwork allocate`: what a budget leaves of each layer, before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group

import openwork

from ..errors import RunError
from ..files import write_text
from . import _tables as tables
from ._options import Json, Model, Threads
from ._output import progress_console, show
from ._way import compiling, waiting

if TYPE_CHECKING:
    from ..allocation.allocation import Allocation, Layer


def command(
    model: Model,
    recipe: Annotated[str, typer.Option(help="Built-in recipe, or the path of a YAML file; it has `constraints`.")],
    data: Annotated[str, typer.Option(help="Data set: a name, or your own path/to/file.py:factory.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the recipe with the sparsities that were picked.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Keep what is measured in this folder; `compress` then takes it from there.")
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Pick the sparsity of each layer of MODEL within the budget of a recipe, and say why.

    `compress` does so by itself before it shapes the weights.
    """
    if run_dir is not None and (run_dir / "environment.json").exists():
        raise RunError(f"{run_dir} holds a run, and what was picked for it in allocation.json; choose another folder")
    console = progress_console()
    with waiting(console, "loading PyTorch"):
        import torch

        from .. import data as data_room
        from .. import models
        from ..recipes.recipe import Recipe
    found = Recipe.load(recipe)
    torch.manual_seed(found.schedule.seed)
    built, examples = models.resolve(model), data_room.resolve(data)
    with compiling(console, "measuring layers"):
        picked = openwork.allocate(built, found, examples, folder=run_dir, threads=threads, note=console.print)
    if output is not None:
        write_text(output, picked.recipe.dump())
    show(picked.to_dict(), _closing(picked, output), json)


def _closing(picked: "Allocation", output: Path | None) -> Group:
    timed = "latency" in picked.spent
    rows = [
        (
            layer.name,
            tables.percent(layer.sparsity, 0) if layer.sparsity else "dense",
            *(_cost(layer, name) for name in picked.spent),
            "" if layer.loss is None else f"{layer.loss:.3g}",
            *([_ratio(layer.break_even)] if timed else []),
            layer.why,
        )
        for layer in picked.layers
    ]
    columns = ("layer", "zeros", *picked.spent, "loss alone", *(["break-even"] if timed else []), "why")
    closing = [(name, one.reached(name)) for name, one in picked.spent.items()]
    if output is not None:
        closing.append(("recipe", str(output)))
    right = tuple(range(1, len(columns) - 1))
    return Group(tables.table(columns, rows, right=right), tables.facts(closing))


def _ratio(sparsity: float | None) -> str:
    """Weights over those that are left."""
    return "" if sparsity is None else f"{1 / (1 - sparsity):.3g}x"


def _cost(layer: "Layer", name: str) -> str:
    from ..recipes.budget import shown

    if not layer.dense.get(name):
        return ""
    before, after = (shown(name, side[name]) for side in (layer.dense, layer.costs))
    return before if before == after else f"{before} -> {after}"
