"""What training and measuring need of a data set, and one implementation of it that lives in memory.

`Data` is the contract: named splits that yield `(inputs, labels)` batches. `ArrayData` fulfils it for images that fit
into memory as uint8: shuffling, cropping, flipping and normalising are vectorised over the batch, so that on a small
machine the loader needs no worker processes and a few per cent of a training step.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..errors import DataError

Batch = tuple[Tensor, Tensor]
"""Inputs float32 [batch, ...] and labels int64 [batch]."""


def data_root() -> Path:
    """The folder that holds one folder for each data set: `$OPENWORK_DATA`, else `~/.cache/openwork/data`."""
    chosen = os.environ.get("OPENWORK_DATA")
    return Path(chosen).expanduser() if chosen else Path("~/.cache/openwork/data").expanduser()


def missing(folder: Path, file: str, name: str, by_hand: str = "") -> DataError:
    """What is missing, where it was looked for, and the two ways out; `by_hand`: how to get what is not fetched."""
    return DataError(
        f"{name}: {file} is not in {folder}; {by_hand or f'run `openwork data get {name}`'}, "
        f"or set OPENWORK_DATA to the folder that holds {folder.name}/"
    )


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed out of several numbers; neighbouring inputs give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Data(ABC):
    """Named splits of labelled examples.

    `train_batches` depends on its arguments alone and leaves the global random state untouched: that is
    what lets an interrupted run resume to the same weights as an uninterrupted one.
    """

    name: str
    """Name of the data set, for run folders and reports."""
    classes: tuple[str, ...]
    """Names of the classes in label order; empty where unknown."""
    train_size: int
    """Training examples in an epoch."""
    example_input: Tensor
    """One normalised input, [1, ...]: what the compiler captures the model with."""

    @abstractmethod
    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """`train_steps(batch_size)` shuffled, augmented batches, the same ones for the same `(seed, epoch)`."""

    @abstractmethod
    def validation_batches(self, batch_size: int) -> Iterator[Batch]:
        """Examples held out of training, in a fixed order; nothing where the set holds none out."""

    @abstractmethod
    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """The test split in a fixed order, the last batch may be smaller."""

    def train_steps(self, batch_size: int) -> int:
        """Batches in a training epoch: whole ones only (a left-over of one example breaks batch norm), at least one."""
        return max(1, self.train_size // check_batch_size(batch_size))


def check_batch_size(batch_size: int) -> int:
    """`batch_size` itself if it can be one."""
    if batch_size < 1:
        raise DataError(f"batch_size={batch_size} must be at least 1")
    return batch_size


class Augment(BaseModel):
    """Random changes of training images that keep their label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pad: int = Field(default=4, ge=0)
    """Black border from which a window of the original size is cut at random, pixels."""
    flip: bool = True
    """Mirror half of the images left to right."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 [batch, channels, height, width] to the same shape, each image with its own crop and flip."""
        count, channels, height, width = images.shape
        rows = torch.arange(height).expand(count, height)
        columns = torch.arange(width).expand(count, width)
        if self.flip:
            mirrored = torch.rand(count, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        if self.pad:
            images = torch.nn.functional.pad(images, (self.pad,) * 4)
            rows = rows + torch.randint(0, 2 * self.pad + 1, (count, 1), generator=generator)
            columns = columns + torch.randint(0, 2 * self.pad + 1, (count, 1), generator=generator)
        batch = torch.arange(count)[:, None, None, None]
        channel = torch.arange(channels)[None, :, None, None]
        return images[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]


class Split:
    """Images uint8 [count, channels, height, width] with their labels int64 [count]."""

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray) -> None:
        if images.ndim != 4 or images.dtype != np.uint8:
            got = f"{images.dtype} {list(images.shape)}"
            raise DataError(f"{name}: images must be uint8 [count, channels, height, width], got {got}")
        if labels.shape != (len(images),):
            raise DataError(f"{name}: {len(images)} images need as many labels, got {list(labels.shape)}")
        self.images = torch.from_numpy(np.array(images, order="C"))
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)


class ArrayData(Data):
    """Images in memory, normalised batch by batch.

    Arguments:
        train, validation, test: pairs of images, uint8 [count, channels, height, width], and labels, integer [count];
            `validation` may be None.
        mean, std: one number a channel; a pixel p in 0..255 becomes (p / 255 - mean) / std.
        augment: applied to training batches only.

    Raises `DataError` for arrays that do not fit together and for an empty training or test split.

        data = ArrayData("mine", train=(images, labels), test=(test_images, test_labels), mean=(0.5,), std=(0.5,),
                         classes=("cat", "dog"))
    """

    def __init__(
        self,
        name: str,
        train: tuple[np.ndarray, np.ndarray],
        test: tuple[np.ndarray, np.ndarray],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        classes: tuple[str, ...],
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.name, self.classes, self._augment = name, classes, augment
        self._train, self._test = Split(f"{name} train", *train), Split(f"{name} test", *test)
        self._validation = Split(f"{name} validation", *validation) if validation is not None else None
        if not len(self._train) or not len(self._test):
            raise DataError(f"{name}: {len(self._train)} training and {len(self._test)} test images; each needs one")
        channels = self._train.images.shape[1]
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise DataError(f"{name}: mean {mean} and std {std} must have {channels} numbers, std above 0")
        self._scale = 1 / (255 * torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self._shift = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1) * 255 * self._scale
        self._check_labels()
        self.train_size = len(self._train)
        self.example_input = self._normalise(self._test.images[:1])

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
        order = torch.randperm(self.train_size, generator=generator)
        for step in range(self.train_steps(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            images = self._train.images[chosen]
            if self._augment is not None:
                images = self._augment(images, generator)
            yield self._normalise(images), self._train.labels[chosen]

    def validation_batches(self, batch_size: int) -> Iterator[Batch]:
        return iter(()) if self._validation is None else self._in_order(self._validation, batch_size)

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        return self._in_order(self._test, batch_size)

    def _in_order(self, split: Split, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(split), check_batch_size(batch_size)):
            stop = start + batch_size
            yield self._normalise(split.images[start:stop]), split.labels[start:stop]

    def _normalise(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).mul_(self._scale).sub_(self._shift)

    def _check_labels(self) -> None:
        for split in (self._train, self._validation, self._test):
            if split is None or not len(split):
                continue
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(f"{self.name}: labels {low}..{high} do not fit {len(self.classes)} classes")
