"""`compress`: the whole way from a trained model to pruned weights, resumable at any moment."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..allocation.allocate import allocate
from ..allocation.allocation import FILE as ALLOCATION
from ..allocation.allocation import Allocation
from ..data.base import Data
from ..errors import DataError, RecipeError, RunError
from ..recipes.match import match
from ..recipes.recipe import Recipe
from ..recipes.stages import Stage, stages
from ..slimming.trace import evaluated, require_finite, traced
from .checkpoint import model_tensors
from .device import resolve
from .fit import threads_and_randomness
from .folder import RunFolder
from .hold import Hold
from .memory import keep_freed_memory
from .objective import check_layers
from .progress import Progress, Silent
from .quantize import Quantizer
from .result import Result
from .run import Run
from .shaper import strip


def compress(
    model: nn.Module,
    recipe: Recipe | str | Path,
    data: Data,
    run_dir: str | Path | None = None,
    *,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    model_name: str | None = None,
    command: str | None = None,
) -> Result:
    """Prune `model` as `recipe` says, training on `data`, and return it with its figures.

    Phases, each as long as the recipe's schedule says: dense (plain training), shape (the solver pulls weights
    into their constraints), retrain (zeros held), and, if the recipe quantizes, quantize (weights and inputs of layers
    rounded). A recipe with a budget has its sparsities picked before that, by `openwork.allocate`. A recipe with steps
    shapes and retrains in each of them, with the zeros of the steps before held. The weights after the last epoch
    count, whatever validation says, unless the recipe has candidates or a floor; the test split is used for figures of
    the result only: dense, right after the cut, before and after quantization, final. `model` gets its new weights at
    the end, all at once; until then, and after any error, it is as it was.

    Arguments:
        model: rules can prune its convolutions, linear and recurrent layers and attention. Its output is logits
            `[batch, classes]`. Torch's parametrizations are baked into its weights first, as `strip` does.
        recipe: a recipe, the name of a built-in one, or the path of a YAML file.
        data: see `openwork.data`.
        run_dir: folder for recipe, environment, metrics, checkpoints, weights and result. If it holds an unfinished
            run of the same recipe, model and data, that run is resumed after its last whole epoch, and ends with the
            same weights as if it had not been interrupted (bit for bit on one thread of a CPU). A finished run is
            returned at once. None: no files.
        threads: torch threads while it runs; None: as they are.
        device: where a copy of the model is trained: `cpu`, `cuda`, `cuda:1`; None: where `model` is, which stays
            there. A run can be resumed on another device.
        progress: callbacks; see `training.progress.Progress`.
        model_name, command: for the record.

    Raises RecipeError, ShapeError, ModelError where recipe and model do not fit, UsageError for a device that is none,
    DataError where the recipe compares models and the data hold no examples out, RunError where the folder belongs to
    another run or cannot be written, TrainingError where the loss or a penalty is not finite, or the loss has grown out
    of all proportion; what was written stays, the last checkpoint too.

    >>> import openwork as ow
    >>> from openwork import plugins
    >>> data = plugins.module("data", "digits").load()
    >>> model = plugins.module("models", "lenet5").build()
    >>> result = ow.compress(model, "demo", data, run_dir="runs/demo")      # doctest: +SKIP
    """
    recipe, where = Recipe.load(recipe), None if device is None else resolve(device)
    strip(model)
    planned = stages(recipe, model)
    check_layers(recipe.schedule.losses, model)
    model_tensors(model)  # raises for a state that checkpoints cannot hold
    require_finite(model)
    _comparable(recipe, data)
    _purifiable(recipe, planned, model, data)
    _quantizable(recipe, planned, model)
    _trained(recipe)
    run = Run(
        model,
        recipe,
        planned,
        data,
        RunFolder(run_dir) if run_dir is not None else None,
        progress or Silent(),
        model_name or type(model).__name__,
        command,
        where,
    )
    keep_freed_memory()
    with threads_and_randomness(threads, run.device), run.folder.locked() if run.folder else contextlib.nullcontext():
        if run.folder:
            run.folder.claim(recipe, model, data, torch.get_num_threads(), str(run.device), command)
            if (done := run.folder.finished()) is not None:
                return run.recall(*done)
        return _within_budget(run, threads).complete()


def _within_budget(run: Run, threads: int | None) -> Run:
    """The run with the sparsities that its recipe's budget picks, or picked when it began."""
    folder, message = run.folder, run.progress.message
    if run.recipe.constraints is None:
        return run
    if folder and folder.begun:
        found = Allocation.load(folder.path)
        if found is None:
            raise RunError(f"{folder.path} has lost its {ALLOCATION}; choose another folder or delete it")
    else:
        where = folder.path if folder else None
        found = allocate(run.copied(), run.recipe, run.data, folder=where, threads=threads, note=message)
    if folder:
        folder.keep(found.recipe)
    message(str(found))
    return replace(run, recipe=found.recipe, stages=stages(found.recipe, run.model))


def _purifiable(recipe: Recipe, planned: Sequence[Stage], model: nn.Module, data: Data) -> None:
    """Say now what would else be found out after shaping."""
    if recipe.purify is None:
        return
    tied = [[m for m in match(s.recipe, model) if m.constraint is not None and m.constraint.tied] for s in planned]
    if all(tied):
        first = tied[0][0]
        raise RecipeError(
            f"layer {first.name!r}: {first.constraint} is more than zeros in their places, so it cannot be purified; "
            "leave 'purify' out of the recipe, or prune in a step before"
        )
    with evaluated(model):
        traced(model, (data.example_input.to(next(model.parameters()).device),))


def _quantizable(recipe: Recipe, planned: Sequence[Stage], model: nn.Module) -> None:
    """Say now what would else be found out after retraining."""
    if recipe.quantize is None:
        return
    if any(rule.constraint is not None and rule.constraint.networks > 1 for rule in planned[-1].recipe.rules):
        raise RecipeError(
            "quantize: nested sparsity holds networks inside each other; leave 'quantize' out, or prune to one sparsity"
        )
    if not Quantizer.of(model, recipe.quantize, Hold.of(model)).learning:
        raise RecipeError("quantize: no layer is left to quantize; 'ignore' fewer, or leave 'quantize' out")


def _comparable(recipe: Recipe, data: Data) -> None:
    asking = f"candidates: {recipe.candidates}" if recipe.candidates > 1 else f"floor: {recipe.floor}"
    if (recipe.candidates > 1 or recipe.floor is not None) and next(iter(data.validation_batches(1)), None) is None:
        raise DataError(
            f"{asking} compares models on validation examples, and {data.name} holds none out; load it with "
            "holdout=N (on the command line --holdout N), or leave candidates and floor out"
        )


def _trained(recipe: Recipe) -> None:
    if recipe.constraints is not None and (epochs := recipe.schedule.dense_epochs):
        raise RecipeError(
            f"constraints: sparsities are picked for trained weights, and schedule.dense_epochs = {epochs} would train "
            "them afterwards; train the model first, and set dense_epochs to 0"
        )
