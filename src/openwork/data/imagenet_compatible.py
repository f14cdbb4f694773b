"""1,000 photographs with ImageNet's labels, 299x299: the development set of the NIPS 2017 adversarial competition.

They test a network and are too few to train one.

Source: Kurakin et al. 2018, arXiv:1804.00097; cleverhans-lab/cleverhans, examples/nips17_adversarial_competition.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .base import Batch, Data, check_batch_size, data_root, missing

BY_HAND = (
    "put its images into images/ and its table beside them as images.csv (ImageId, TrueLabel), as Kaggle's "
    "google-brain/nips-2017-adversarial-learning-development-set has them"
)
"""How to get what `openwork data get` does not fetch."""

CLASSES = 1000
# EfficientNet-Lite's (p - 127) / 128, the network of the zoo that has published ImageNet weights.
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3


class Photographs(Data):
    """Pictures in files, decoded batch by batch; there is nothing to train on.

    Arguments:
        files: pictures of any size.
        labels: int64 [files].
        size: side of the square that the network sees, pixels.
        crop: share of the shorter side that is cut out of the middle before scaling, in (0, 1].
        mean, std: one number a channel; a pixel p in 0..255 becomes (p / 255 - mean) / std.
    """

    def __init__(
        self,
        name: str,
        files: list[Path],
        labels: Tensor,
        size: int,
        crop: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        if size < 1 or not 0 < crop <= 1:
            raise DataError(f"{name}: size={size} must be at least 1 and crop={crop} in (0, 1]")
        self.name, self.classes, self.train_size = name, (), 0
        self._files, self._labels, self._size, self._crop = files, labels, size, crop
        self._mean = 255 * torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self._std = 255 * torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
        self.example_input = self._read(0, 1)

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        raise DataError(f"{self.name} holds {len(self._files):,} test images and none to train on")

    def validation_batches(self, batch_size: int) -> Iterator[Batch]:
        return iter(())

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(self._files), check_batch_size(batch_size)):
            stop = min(start + batch_size, len(self._files))
            yield self._read(start, stop), self._labels[start:stop]

    def _read(self, start: int, stop: int) -> Tensor:
        pixels = np.stack([self._decode(path) for path in self._files[start:stop]])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32)
        return images.sub_(self._mean).div_(self._std).contiguous()

    def _decode(self, path: Path) -> np.ndarray:
        """uint8 [size, size, 3]."""
        try:
            with Image.open(path) as image:
                width, height = image.size
                side = self._crop * min(width, height) if self._crop < 1 else 0
                box = _middle(width, height, side) if side else (0, 0, width, height)
                scaled = image.convert("RGB").resize((self._size, self._size), Image.Resampling.BICUBIC, box=box)
        except OSError as error:
            raise DataError(f"{path} cannot be decoded ({error}); get it again") from error
        return np.asarray(scaled)


def _middle(width: int, height: int, side: float) -> tuple[float, float, float, float]:
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def load(
    root: Path | None = None,
    size: int = 224,
    crop: float = 1.0,
    mean: tuple[float, ...] = _MEAN,
    std: tuple[float, ...] = _STD,
) -> Data:
    """The photographs in `root/imagenet_compatible/images/`, with `images.csv` or `index.csv` beside the folder.

    images.csv is the competition's table: ImageId (a file's name without .png) and TrueLabel in 1..1000. index.csv is a
    plain one: file, and imagenet_label0 in 0..999. There are no training images and no validation images.

    Arguments:
        root: folder of data sets; default `$OPENWORK_DATA`, else `~/.cache/openwork/data`.
        size: side of the square that the network sees, pixels.
        crop: share of the side that is cut out of the middle. Networks are customarily tested at 0.875, since objects
            fill the middle of a whole photograph; these were cut to their objects already, so all of them is kept.
        mean, std: as the network wants pixels; default: (p - 127) / 128, as EfficientNet-Lite0 does. Weights of
            torchvision want mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225).

    Raises `DataError` naming a file that is missing or damaged.
    """
    folder = (root or data_root()) / "imagenet_compatible"
    files, labels = _index(folder)
    for path in files:
        if not path.is_file():
            raise missing(folder, str(path.relative_to(folder)), "imagenet_compatible", BY_HAND)
    return Photographs("imagenet_compatible", files, labels, size, crop, mean, std)


def _index(folder: Path) -> tuple[list[Path], Tensor]:
    """Files and their classes, int64, counted from 0."""
    layouts = (("index.csv", "file", "", "imagenet_label0", 0), ("images.csv", "ImageId", ".png", "TrueLabel", 1))
    for table, file, ending, label, first in layouts:
        path = folder / table
        if not path.is_file():
            continue
        try:
            with path.open(newline="", encoding="utf-8") as lines:
                rows = [(row[file] + ending, int(row[label]) - first) for row in csv.DictReader(lines)]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise DataError(f"{path} has no whole column {file} or {label} ({error!r}); get it again") from error
        if not rows or not all(0 <= found < CLASSES for _, found in rows):
            raise DataError(f"{path} is empty, or has labels outside {first}..{CLASSES - 1 + first}; get it again")
        return [folder / "images" / name for name, _ in rows], torch.tensor([found for _, found in rows])
    raise missing(folder, "images.csv", "imagenet_compatible", BY_HAND)
