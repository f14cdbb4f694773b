"""Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28x28 grey (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

from pathlib import Path

from ._idx import load_idx
from .base import Data

CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def load(root: Path | None = None, holdout: int = 0) -> Data:
    """Fashion-MNIST from `root/fashion_mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`.

    Arguments:
        root: folder of data sets; default `$OPENWORK_DATA`, else `~/.cache/openwork/data`.
        holdout: the last so many training images become the validation split.

    Raises `DataError` naming a file that is missing or damaged.
    """
    return load_idx("fashion_mnist", root, holdout, CLASSES, mean=0.2860, std=0.3530)
