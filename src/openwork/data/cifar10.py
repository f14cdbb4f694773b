"""CIFAR-10: 50,000 + 10,000 photographs, 32x32 colour, in the 'binary version' (Krizhevsky 2009).

Records of 1 label byte and 3,072 pixel bytes: three planes of 32x32, red, green, blue.
"""

from pathlib import Path

import numpy as np

from ..errors import DataError
from .base import ArrayData, Augment, Data, data_root, missing

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The figures that the customary CIFAR ResNets were trained with (they are ImageNet's); other figures cost accuracy.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
RECORDS = 10_000
_RECORD_BYTES = 1 + 3 * 32 * 32


def load(root: Path | None = None, holdout: int = 0) -> Data:
    """CIFAR-10 from `root/cifar10/{data_batch_1..5,test_batch}.bin`; training images are cropped and flipped.

    Arguments:
        root: folder of data sets; default `$OPENWORK_DATA`, else `~/.cache/openwork/data`.
        holdout: the last so many training images become the validation split; 0 trains on all 50,000.

    Raises `DataError` naming a file that is missing or damaged.
    """
    folder = (root or data_root()) / "cifar10"
    total = RECORDS * len(TRAIN_FILES)
    if not 0 <= holdout < total:
        raise DataError(f"holdout={holdout} must lie in 0..{total - 1}, the training images of cifar10")
    train = [_read(folder, name) for name in TRAIN_FILES]
    images, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    kept = len(images) - holdout
    return ArrayData(
        "cifar10",
        train=(images[:kept], labels[:kept]),
        validation=(images[kept:], labels[kept:]) if holdout else None,
        test=_read(folder, TEST_FILE),
        mean=MEAN,
        std=STD,
        classes=CLASSES,
        augment=Augment(pad=4, flip=True),
    )


def _read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    path = folder / name
    # Some unpack the tar file and leave its own folder in place.
    if not path.is_file() and (folder / "cifar-10-batches-bin" / name).is_file():
        path = folder / "cifar-10-batches-bin" / name
    if not path.is_file():
        raise missing(folder, name, "cifar10")
    size, expected = path.stat().st_size, RECORDS * _RECORD_BYTES
    if size != expected:
        raise DataError(f"{path} holds {size} bytes instead of {expected}; remove it and get it again")
    records = np.fromfile(path, np.uint8).reshape(RECORDS, _RECORD_BYTES)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
