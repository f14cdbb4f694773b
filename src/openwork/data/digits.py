"""scikit-learn's handwritten digits: 1,797 real 8x8 images that come with the library, so nothing is downloaded.

They are the test set of the UCI 'Optical Recognition of Handwritten Digits' data (Alpaydin and Kaynak 1998).
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from .base import ArrayData, Augment, Data

_SPLIT_SEED = 0
_TEST, _VALIDATION = 360, 180


def load(root: Path | None = None) -> Data:
    """1,257 training, 180 validation and 360 test images, 28x28 as LeNet-5 wants them; the split is always the same.

    `root` is accepted as by the other data sets and not used.
    """
    digits = load_digits()
    images, labels = _enlarge(digits.images), digits.target
    images, test_images, labels, test_labels = train_test_split(
        images, labels, test_size=_TEST, stratify=labels, random_state=_SPLIT_SEED
    )
    images, validation_images, labels, validation_labels = train_test_split(
        images, labels, test_size=_VALIDATION, stratify=labels, random_state=_SPLIT_SEED
    )
    return ArrayData(
        "digits",
        train=(images, labels),
        validation=(validation_images, validation_labels),
        test=(test_images, test_labels),
        mean=(float(images.mean()) / 255,),
        std=(float(images.std()) / 255,),
        classes=tuple("0123456789"),
        augment=Augment(pad=2, flip=False),
    )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """[count, 8, 8] of 0..16 to uint8 [count, 1, 28, 28]: 24x24 by bilinear interpolation, in a border of 2."""
    small = torch.from_numpy(images).to(torch.float32)[:, None] * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(24, 24), mode="bilinear", align_corners=False)
    padded: np.ndarray = torch.nn.functional.pad(large, (2, 2, 2, 2)).round().to(torch.uint8).numpy()
    return padded
