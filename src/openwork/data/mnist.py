"""MNIST: 60,000 + 10,000 handwritten digits, 28x28 grey (LeCun, Cortes and Burges 1998), as the four idx files."""

from pathlib import Path

from ._idx import load_idx
from .base import Data


def load(root: Path | None = None, holdout: int = 0) -> Data:
    """MNIST from `root/mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`.

    Arguments:
        root: folder of data sets; default `$OPENWORK_DATA`, else `~/.cache/openwork/data`.
        holdout: the last so many training images become the validation split.

    Raises `DataError` naming a file that is missing or damaged.
    """
    return load_idx("mnist", root, holdout, tuple("0123456789"), mean=0.1307, std=0.3081)
