"""What the shaper costs a training step: plain, with ADMM's penalty, and with masks held, in turn in one run.

    python benchmarks/training_step.py [--steps 40] [--batch 128] [--threads 2]

Prints medians, quartiles and the overhead over plain training on a ResNet-20 for 32x32 images. Steps of the three kinds
alternate, so that other load on the machine falls on all of them; the overhead is the median of the ratios of
neighbouring steps.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from openwork import plugins
from openwork.recipes.recipe import Recipe
from openwork.training.shaper import Shaper

LIMIT = 0.10
"""Largest overhead that is acceptable, as a share of a plain step."""


def training_step(kind: str, batch: int) -> Callable[[], None]:
    """A closure that takes one training step of `kind`: 'plain', 'admm' or 'masked'."""
    torch.manual_seed(0)
    model = plugins.module("models", "cifar10_resnet20").build(None).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)
    shaper = None if kind == "plain" else Shaper(model, Recipe.load("block4x1-80"), optimizer, update_every=None)
    if shaper is not None and kind == "masked":
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


def measure(steps: int, batch: int) -> dict[str, list[float]]:
    """Milliseconds of each step by kind; the order within a round rotates."""
    kinds = ["plain", "admm", "masked"]
    take = {kind: training_step(kind, batch) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for round_ in range(-3, steps):  # three rounds to warm up
        for kind in kinds[round_ % 3 :] + kinds[: round_ % 3]:
            began = time.perf_counter()
            take[kind]()
            if round_ >= 0:
                times[kind].append(1e3 * (time.perf_counter() - began))
    return times


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind")
    parser.add_argument("--batch", type=int, default=128, help="examples in a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    times = measure(options.steps, options.batch)
    print(f"ResNet-20, batch {options.batch}, {options.threads} threads, {options.steps} steps of each kind in turn")
    print(f"{'step':<8} {'median ms':>10} {'quartiles ms':>18} {'overhead':>9}")
    for kind, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        over = statistics.median(a / b for a, b in zip(values, times["plain"], strict=True)) - 1
        verdict = "" if kind == "plain" else f"{over:>8.1%} {'ok' if over <= LIMIT else f'above {LIMIT:.0%}'}"
        print(f"{kind:<8} {middle:>10.2f} {f'{low:.2f} .. {high:.2f}':>18} {verdict}")


if __name__ == "__main__":
    main()
