"""The baseline that a pruned network must beat: its own zeros, trained from random weights for as many epochs.

    python examples/from_scratch.py runs/cifar10_resnet20-block4x1-80 --run-dir runs/from-scratch [--threads 2]

Takes model, data, rules and epochs from the run folder and the zeros from its final weights. All epochs train the
masked network (one-shot magnitude pruning of weights that have those zeros already cuts nothing else); the learning
rate is the one that such networks are customarily trained with. Interrupted, it goes on when called again.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

import openwork as ow
from openwork import data, models
from openwork.recipes.schedule import Rate
from openwork.training.progress import Progress


class Lines(Progress):
    """One line an epoch."""

    def message(self, text: str) -> None:
        print(text, flush=True)

    def epoch_started(self, phase: str, epoch: int, epochs: int, batches: int) -> None:
        pass

    def batch_done(self, loss: float) -> None:
        pass

    def epoch_ended(self, metrics: dict[str, float]) -> None:
        print(f"epoch {metrics['epoch'] + 1}: loss {metrics['train_loss']:.3f}, {metrics['seconds']:.0f} s", flush=True)


def main() -> None:
    """Train and print the accuracy beside the run's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a finished `openwork compress`")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder for this run")
    parser.add_argument("--rate", type=float, default=0.1, help="peak learning rate (default 0.1)")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()

    found = json.loads((options.run / "result.json").read_text())
    pruned = load_file(options.run / "model.safetensors")
    recipe = ow.Recipe.load(options.run / "recipe.yaml")
    schedule = recipe.schedule
    epochs = schedule.shape_epochs + schedule.retrain_epochs
    scratch = recipe.model_copy(
        update={
            "solver": ow.Magnitude(),
            "schedule": schedule.model_copy(
                update={
                    "shape_epochs": 0,
                    "retrain_epochs": epochs,
                    "retrain_rate": Rate(peak=options.rate, decay="cosine", warmup_epochs=1),
                }
            ),
        }
    )
    torch.manual_seed(schedule.seed)
    model = models.resolve(found["model"], weights=None)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2:
                weight.mul_(pruned[name] != 0)
    result = ow.compress(
        model, scratch, data.resolve(found["data"]), options.run_dir, threads=options.threads, progress=Lines()
    )
    same = all(torch.equal(p != 0, pruned[n] != 0) for n, p in result.model.named_parameters() if p.dim() >= 2)
    print(f"same zeros as {options.run}: {'yes' if same else 'NO'}")
    pruned_accuracy = found["final"]["test_accuracy"]
    print(f"test accuracy: {pruned_accuracy:.2%} pruned from trained weights, {result.accuracy:.2%} from scratch")


if __name__ == "__main__":
    main()
