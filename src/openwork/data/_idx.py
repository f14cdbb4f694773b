"""The idx layout of MNIST and its siblings: a big-endian header of magic and sizes, then the bytes of the array.

Magic: two zero bytes, the type (8 = unsigned byte), the number of dimensions. Source: the 'FILE FORMATS' part of
the MNIST page, LeCun, Cortes and Burges 1998.
"""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np

from ..errors import DataError
from .base import ArrayData, data_root, missing

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_UNSIGNED_BYTE = 8


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 array of `shape` from an idx file, gzipped (name ends in .gz) or plain."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it and get it again") from error
    header = 4 + 4 * len(shape)
    expected = struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)
    if content[:header] != expected:
        raise DataError(f"{path} does not start like an idx file of {list(shape)} bytes; remove it and get it again")
    if len(content) != header + prod(shape):
        raise DataError(
            f"{path} holds {len(content)} bytes instead of {header + prod(shape)}; remove it and get it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def load_idx(
    name: str,
    root: Path | None,
    holdout: int,
    classes: tuple[str, ...],
    mean: float,
    std: float,
    sizes: tuple[int, int] = (60_000, 10_000),
) -> ArrayData:
    """The data set in `root/name`, four idx files of 28x28 images; the last `holdout` training images validate."""
    folder = (root or data_root()) / name
    if not 0 <= holdout < sizes[0]:
        raise DataError(f"holdout={holdout} must lie in 0..{sizes[0] - 1}, the training images of {name}")
    parts = {}
    for (split, (image_file, label_file)), size in zip(FILES.items(), sizes, strict=True):
        pixels = read_idx(find(folder, image_file, name), (size, 28, 28))
        parts[split] = pixels[:, None], read_idx(find(folder, label_file, name), (size,))
    images, labels = parts["train"]
    kept = sizes[0] - holdout
    return ArrayData(
        name,
        train=(images[:kept], labels[:kept]),
        validation=(images[kept:], labels[kept:]) if holdout else None,
        test=parts["test"],
        mean=(mean,),
        std=(std,),
        classes=classes,
    )


def find(folder: Path, file: str, name: str) -> Path:
    """`folder/file.gz` or `folder/file`, whichever exists."""
    for candidate in (folder / f"{file}.gz", folder / file):
        if candidate.is_file():
            return candidate
    raise missing(folder, f"{file}.gz", name)
