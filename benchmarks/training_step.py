"""What solvers cost: a training step with each, beside a plain one, in turn in one run; and how long projections take.

    python benchmarks/training_step.py [--steps 40] [--batch 128] [--threads 2] [--only admm,slr]
    python benchmarks/training_step.py --projections [--model resnet50] [--only block,unstructured]

Steps: prints medians, quartiles and the overhead over plain training on a ResNet-20 for 32x32 images, with the penalty
and the after-step of every solver, and with masks held. Steps of all kinds alternate, so that other load on the machine
falls on all of them; the overhead is the median of the ratios of neighbouring steps.

Projections: prints for every constraint how long it takes to project all weights of a model that it can hold, padded
where that is needed: best of three, of random weights.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from openwork import models, plugins
from openwork.constraints._padded import Padded
from openwork.constraints.base import Constraint
from openwork.errors import ShapeError
from openwork.recipes.match import weights
from openwork.recipes.recipe import Recipe
from openwork.solvers.base import Solver
from openwork.training.shaper import Shaper

LIMIT = 0.10
"""Largest overhead that is acceptable, as a share of a plain step."""

COSTLIEST: dict[str, dict[str, Any]] = {"reweighted": {"power": 1}}
"""Settings of solvers whose default is cheaper than what else they can do."""

SECONDS = 1.0
"""Longest projection of all weights of a model of 25 million that is acceptable."""


def training_step(kind: str, batch: int) -> Callable[[], None]:
    """A closure that takes one training step of `kind`: 'plain', 'masked' or the name of a solver."""
    torch.manual_seed(0)
    model = plugins.module("models", "cifar10_resnet20").build(None).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)
    shaper = None
    if kind != "plain":
        recipe = Recipe.load("block4x1-80")
        if kind != "masked":
            solver = plugins.find("solvers", kind, Solver)(**COSTLIEST.get(kind, {}))
            recipe = recipe.model_copy(update={"solver": solver})
        shaper = Shaper(model, recipe, optimizer, update_every=None)
        if kind == "masked":
            shaper.harden()
    x = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,))

    def step() -> None:
        loss = functional.cross_entropy(model(x), y)
        if shaper is not None:
            loss = loss + shaper.penalty()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if shaper is not None:
            shaper.step()

    return step


def measure(kinds: list[str], steps: int, batch: int) -> dict[str, list[float]]:
    """Milliseconds of each step by kind; the order within a round rotates."""
    take = {kind: training_step(kind, batch) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for round_ in range(-3, steps):  # three rounds to warm up
        first = round_ % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            began = time.perf_counter()
            take[kind]()
            if round_ >= 0:
                times[kind].append(1e3 * (time.perf_counter() - began))
    return times


def show_steps(only: list[str], steps: int, batch: int) -> None:
    """Measure and print the table of training steps."""
    kinds = ["plain", *(only or [*plugins.names("solvers"), "masked"])]
    times = measure(kinds, steps, batch)
    print(f"ResNet-20, batch {batch}, {torch.get_num_threads()} threads, {steps} steps of each kind in turn")
    print(f"{'step':<12} {'median ms':>10} {'quartiles ms':>18} {'overhead':>9}")
    for kind, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        over = statistics.median(a / b for a, b in zip(values, times["plain"], strict=True)) - 1
        verdict = "" if kind == "plain" else f"{over:>8.1%} {'ok' if over <= LIMIT else f'above {LIMIT:.0%}'}"
        print(f"{kind:<12} {middle:>10.2f} {f'{low:.2f} .. {high:.2f}':>18} {verdict}")


def held(constraint: Constraint, shape: torch.Size) -> Constraint | None:
    """The constraint as it holds a weight of `shape`: as it is, padded, or not at all."""
    for found in (constraint, Padded(inner=constraint)):
        try:
            found.check(shape)
        except ShapeError:
            continue
        return found
    return None


def projections(constraint: Constraint, tensors: list[torch.Tensor]) -> tuple[int, float]:
    """How many weights the constraint holds, and the seconds that projecting all of them takes, best of three."""
    held_by = [(found, w) for w in tensors if (found := held(constraint, w.shape)) is not None]
    settled = [(found.fitted([w])[0], w) for found, w in held_by]
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for found, w in settled:
            found.project(w)
        best = min(best, time.perf_counter() - began)
        if best > 10 * SECONDS:  # that it is too long is known
            break
    return sum(w.numel() for _, w in settled), best


def show_projections(only: list[str], name: str) -> None:
    """Measure and print the table of projections."""
    torch.manual_seed(0)
    tensors = [item.weight.detach() for item in weights(models.resolve(name)).values()]
    total = sum(w.numel() for w in tensors)
    print(f"{name}, {total / 1e6:.1f} million weights in {len(tensors)} layers, {torch.get_num_threads()} threads")
    print(f"{'seconds':>8} {'of weights':>10}  constraint")
    for kind in only or plugins.names("constraints"):
        for example in plugins.find("constraints", kind, Constraint).EXAMPLES:
            constraint = plugins.find("constraints", kind, Constraint)(**example)
            count, seconds = projections(constraint, tensors)
            verdict = "ok" if seconds <= SECONDS else f"above {SECONDS:g} s"
            print(f"{seconds:>8.2f} {count / total:>10.0%}  {constraint}  {verdict}", flush=True)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind")
    parser.add_argument("--batch", type=int, default=128, help="examples in a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", type=lambda names: names.split(","), default=[], help="some kinds, by commas")
    parser.add_argument("--projections", action="store_true", help="time projections instead of steps")
    parser.add_argument("--model", default="resnet50", help="whose weights are projected")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.projections:
        show_projections(options.only, options.model)
    else:
        show_steps(options.only, options.steps, options.batch)


if __name__ == "__main__":
    main()
