"""Photographs with ImageNet's labels: both tables, what a network sees of a picture, damaged files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openwork import data
from openwork.data import imagenet_compatible
from openwork.errors import DataError

REAL = Path(os.environ.get("OPENWORK_DATA", "/nonexistent"))


def write(root, table="index.csv", labels=(7, 0, 999), ending=".jpg"):
    """Three pictures, each of one colour with a frame around it."""
    folder = root / "imagenet_compatible"
    (folder / "images").mkdir(parents=True)
    for i in range(3):
        pixels = np.full((40, 60, 3), 255, np.uint8)
        pixels[5:35, 15:45] = (10 * i, 127, 200)
        Image.fromarray(pixels).save(folder / "images" / f"p{i}{ending}", quality=95)
    if table == "index.csv":
        rows = ["file,imagenet_label0", *(f"p{i}{ending},{label}" for i, label in enumerate(labels))]
    else:
        rows = ["ImageId,URL,TrueLabel", *(f"p{i},http://x,{label + 1}" for i, label in enumerate(labels))]
    (folder / table).write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize(("table", "ending"), [("index.csv", ".jpg"), ("images.csv", ".png")])
def test_both_tables_are_read(tmp_path, table, ending):
    write(tmp_path, table, ending=ending)
    found = imagenet_compatible.load(tmp_path, size=20)
    (x, y), (rest, last) = found.test_batches(2)
    assert x.shape == (2, 3, 20, 20) and rest.shape == (1, 3, 20, 20) and x.is_contiguous()
    assert y.dtype is torch.int64 and [*y, *last] == [7, 0, 999]
    assert found.example_input.shape == (1, 3, 20, 20) and list(found.validation_batches(1)) == []


def test_pixels_are_what_efficientnet_lite_wants_and_may_be_others(tmp_path):
    write(tmp_path, "images.csv", ending=".png")
    middle = imagenet_compatible.load(tmp_path, size=40).example_input[0, :, 20, 20]
    torch.testing.assert_close(middle, torch.tensor([(0 - 127) / 128, 0, (200 - 127) / 128]), rtol=0, atol=1e-5)
    options = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    middle = imagenet_compatible.load(tmp_path, size=40, **options).example_input[0, :, 20, 20]
    wanted = torch.tensor([-0.485 / 0.229, (127 / 255 - 0.456) / 0.224, (200 / 255 - 0.406) / 0.225])
    torch.testing.assert_close(middle, wanted, rtol=0, atol=1e-4)


def test_a_crop_keeps_the_middle(tmp_path):
    write(tmp_path, "images.csv", ending=".png")
    whole = imagenet_compatible.load(tmp_path, size=30).example_input
    cut = imagenet_compatible.load(tmp_path, size=30, crop=0.75).example_input  # 30x30 of 60x40: the colour alone
    assert whole.max() == 1 and cut.max() < 0.6
    for options in ({"crop": 0}, {"crop": 1.1}, {"size": 0}):
        with pytest.raises(DataError, match=r"must be at least 1 and crop=.* in \(0, 1\]"):
            imagenet_compatible.load(tmp_path, **options)


def test_there_is_nothing_to_train_on(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match="imagenet_compatible holds 3 test images and none to train on"):
        imagenet_compatible.load(tmp_path).train_batches(1, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "index.csv").unlink(), r"images.csv is not in .*imagenet_compatible; put its images .*Kaggle"),
        (lambda f: (f / "images/p1.jpg").unlink(), r"images/p1.jpg is not in .*imagenet_compatible; put its images"),
        (lambda f: (f / "images/p0.jpg").write_bytes(b"no picture"), r"p0.jpg cannot be decoded .*get it again"),
        (lambda f: (f / "index.csv").write_text("file\np0.jpg\n"), "index.csv has no whole column file or imagenet_la"),
        (lambda f: (f / "index.csv").write_text("file,imagenet_label0\np0.jpg,x\n"), "index.csv has no whole column"),
        (lambda f: (f / "index.csv").write_text("file,imagenet_label0\np0.jpg,1000\n"), r"has labels outside 0\.\.999"),
        (lambda f: (f / "index.csv").write_text("file,imagenet_label0\n"), "index.csv is empty"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path, change, message):
    change(write(tmp_path))
    with pytest.raises(DataError, match=message):
        imagenet_compatible.load(tmp_path)


def test_a_picture_that_is_cut_off_is_named_when_its_turn_comes(tmp_path):
    path = write(tmp_path) / "images/p2.jpg"
    path.write_bytes(path.read_bytes()[:300])
    batches = imagenet_compatible.load(tmp_path).test_batches(1)
    next(batches), next(batches)
    with pytest.raises(DataError, match=r"p2\.jpg cannot be decoded"):
        next(batches)


@pytest.mark.skipif(not (REAL / "imagenet_compatible").is_dir(), reason="OPENWORK_DATA holds no imagenet_compatible/")
def test_real_photographs():
    found = data.resolve("imagenet_compatible")
    x, y = next(found.test_batches(4))
    assert x.shape == (4, 3, 224, 224) and y[:2].tolist() == [305, 883]
