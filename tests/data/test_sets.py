"""The data sets on small files of the real layouts, and on the real data where `OPENWORK_DATA` has them."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from openwork import data, plugins
from openwork.data import SentencePairs, cifar10, digits
from openwork.data._idx import load_idx
from openwork.data.base import Data, data_root
from openwork.errors import DataError, UsageError

REAL = Path(os.environ.get("OPENWORK_DATA", "/nonexistent"))


def real(name):
    return pytest.mark.skipif(not (REAL / name).is_dir(), reason=f"OPENWORK_DATA holds no {name}/")


def write_idx(path, array, compress):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.tobytes()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if compress else content)


@pytest.fixture(params=[True, False], ids=["gz", "plain"])
def idx_root(tmp_path, request):
    ending = ".gz" if request.param else ""
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 10)):
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(tmp_path / "toy" / f"{prefix}-images-idx3-ubyte{ending}", images, request.param)
        write_idx(tmp_path / "toy" / f"{prefix}-labels-idx1-ubyte{ending}", labels, request.param)
    return tmp_path


def load_toy(root, holdout=0):
    return load_idx("toy", root, holdout, tuple("0123456789"), 0.5, 0.5, sizes=(30, 10))


def test_idx_files_are_read_plain_and_gzipped(idx_root):
    found = load_toy(idx_root)
    assert found.train_size == 30 and found.example_input.shape == (1, 1, 28, 28)
    _, labels = next(found.test_batches(10))
    assert labels.tolist() == list(range(10))


def test_the_last_images_are_held_out(idx_root):
    found = load_toy(idx_root, holdout=7)
    assert found.train_size == 23
    (_, labels), *rest = found.validation_batches(50)
    assert labels.tolist() == [i % 10 for i in range(23, 30)] and not rest
    with pytest.raises(DataError, match=r"holdout=30 must lie in 0\.\.29"):
        load_toy(idx_root, holdout=30)


def test_a_damaged_idx_file_is_named(idx_root):
    (path,) = (idx_root / "toy").glob("t10k-images*")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole[:20] + b"\0" * 20, b"not an idx file" * 600):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{path.name}.*get it again"):
            load_toy(idx_root)
    path.unlink()
    with pytest.raises(
        DataError, match=r"t10k-images-idx3-ubyte.gz is not in .*toy; run `openwork data get toy`, or set OPENWORK"
    ):
        load_toy(idx_root)


def test_an_idx_file_that_lies_about_its_size_is_refused(idx_root):
    (path,) = (idx_root / "toy").glob("t10k-images*")
    write_idx(path, np.zeros((9, 28, 28), np.uint8), path.suffix == ".gz")
    with pytest.raises(DataError, match="does not start like an idx file of"):
        load_toy(idx_root)


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 4)
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for file, name in enumerate((*cifar10.TRAIN_FILES, cifar10.TEST_FILE)):
        records = np.zeros((4, 3073), np.uint8)
        records[:, 0] = file
        records[:, 1 : 1 + 1024] = 255  # the red plane comes first
        (folder / name).write_bytes(records.tobytes())
    return tmp_path


def test_cifar_records_are_label_then_planes(cifar_root):
    found = cifar10.load(cifar_root, holdout=4)
    assert found.train_size == 16 and found.classes[0] == "airplane" and len(found.classes) == 10
    x, y = next(found.test_batches(10))
    assert y.tolist() == [5] * 4
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]).view(1, 3, 1, 1).expand_as(x)
    torch.testing.assert_close(x, expected)
    assert next(found.validation_batches(10))[1].tolist() == [4] * 4
    assert list(cifar10.load(cifar_root).validation_batches(10)) == []


def test_a_missing_or_truncated_cifar_file_is_named(cifar_root):
    path = cifar_root / "cifar10" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin holds 12291 bytes instead of 12292; remove it"):
        cifar10.load(cifar_root)
    path.unlink()
    with pytest.raises(DataError, match=r"data_batch_3.bin is not in .*; run `openwork data get cifar10`"):
        cifar10.load(cifar_root)
    for bad in (-1, 20):
        with pytest.raises(DataError, match=rf"holdout={bad} must lie in 0\.\.19"):
            cifar10.load(cifar_root, holdout=bad)


def test_an_unpacked_tar_file_is_found_in_its_own_folder(cifar_root):
    inner = cifar_root / "cifar10" / "cifar-10-batches-bin"
    inner.mkdir()
    for path in list((cifar_root / "cifar10").glob("*.bin")):
        path.rename(inner / path.name)
    assert cifar10.load(cifar_root).train_size == 20


def test_digits_are_whole_stratified_and_always_split_alike():
    one, two = digits.load(), digits.load()
    splits = [next(d.validation_batches(2000)) + next(d.test_batches(2000)) for d in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*splits, strict=True))
    validation, validation_labels, test, test_labels = splits[0]
    assert (one.train_size, len(validation), len(test)) == (1257, 180, 360)
    assert one.example_input.shape == (1, 1, 28, 28)
    for labels in (validation_labels, test_labels):
        counts = torch.bincount(labels, minlength=10)
        assert counts.max() - counts.min() <= 0.05 * len(labels)
    joint = torch.cat([validation, test]).flatten(1)
    assert len(torch.unique(joint, dim=0)) == len(joint), "no image in both splits"


@pytest.mark.parametrize("name", plugins.names("data"))
def test_every_set_loads_or_says_how_to_get_it(name, tmp_path):
    how = getattr(plugins.module("data", name), "BY_HAND", f"run `openwork data get {name}`")
    try:
        found = data.load(name, root=tmp_path)
    except DataError as error:
        assert how in str(error) and "OPENWORK_DATA" in str(error) and str(tmp_path) in str(error)
    else:
        assert isinstance(found, Data | SentencePairs) and found.name == name


def test_the_data_root_is_the_variable_else_the_cache(monkeypatch):
    monkeypatch.setenv("OPENWORK_DATA", "~/here")
    assert data_root() == Path.home() / "here"
    monkeypatch.delenv("OPENWORK_DATA")
    assert data_root() == Path.home() / ".cache/openwork/data"


USERS = """
import torch
from helper import NUMBER
from openwork.data import digits
from torch.utils.data import DataLoader, TensorDataset

def loaders(count=NUMBER):
    dataset = TensorDataset(torch.zeros(count, 3), torch.zeros(count, dtype=torch.long))
    return DataLoader(dataset, batch_size=2), DataLoader(dataset, batch_size=2)

def ours(): return digits.load()
def nothing(): return None
def broken(): raise RuntimeError("disk on fire")
value = 3
"""


@pytest.fixture
def users_file(tmp_path):
    (tmp_path / "helper.py").write_text("NUMBER = 6\n")
    path = tmp_path / "mine.py"
    path.write_text(USERS)
    return path


def test_the_users_factory_may_return_data_or_loaders_and_take_options(users_file):
    assert data.resolve(f"{users_file}:loaders").train_size == 6
    assert data.resolve(f"{users_file}:loaders", count=4).train_size == 4
    assert data.resolve(f"{users_file}:ours").train_size == 1257
    found = digits.load()
    assert data.resolve(found) is found


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("{file}:nothing", DataError, r"expected a Data or a pair.*got NoneType"),
        ("{file}:broken", DataError, "raised RuntimeError: disk on fire"),
        ("{file}:absent", UsageError, "mine.py has no function 'absent'"),
        ("{file}:value", UsageError, "mine.py has no function 'value'"),
        ("{file}", UsageError, r"names no function; write path/to/file\.py:factory"),
        ("/nowhere/x.py:f", UsageError, "there is no file /nowhere/x.py"),
        ("cifar1", UsageError, "did you mean cifar10"),
        ("mnist", DataError, "openwork data get mnist"),
    ],
)
def test_mistakes_are_named(users_file, spec, error, message, monkeypatch):
    monkeypatch.setenv("OPENWORK_DATA", str(users_file.parent))
    with pytest.raises(error, match=message):
        data.resolve(spec.format(file=users_file))


def test_a_file_that_cannot_be_imported_and_an_unknown_option_are_named(tmp_path):
    (tmp_path / "bad.py").write_text("import nosuchmodule\n")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"bad.py cannot be imported: ModuleNotFoundError: .*nosuchmodule"):
            data.resolve(f"{tmp_path}/bad.py:f")
    with pytest.raises(DataError, match="digits takes no such option: 'holdout'"):
        data.resolve("digits", holdout=3)


@real("mnist")
def test_real_mnist():
    found = data.resolve("mnist")
    x, y = next(found.test_batches(10_000))
    assert found.train_size == 60_000 and x.shape == (10_000, 1, 28, 28)
    assert torch.bincount(y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(x.mean()) < 0.02 and abs(x.std() - 1) < 0.02


@real("cifar10")
def test_real_cifar10():
    found = data.resolve("cifar10", holdout=5000)
    assert found.train_size == 45_000
    assert torch.bincount(torch.cat([y for _, y in found.test_batches(1000)])).tolist() == [1000] * 10
