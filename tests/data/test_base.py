"""The contract of `Data`, on the in-memory implementation and on wrapped torch loaders."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SubsetRandomSampler, TensorDataset

from openwork.data import ArrayData, Augment, LoaderData
from openwork.errors import DataError

# Every pixel tells its image, channel, row and column, so that any crop can be traced back.
COUNT, CHANNELS, SIDE = 20, 2, 4
IMAGES = (1 + np.arange(COUNT * CHANNELS * SIDE * SIDE) % 250).astype(np.uint8).reshape(COUNT, CHANNELS, SIDE, SIDE)
LABELS = np.arange(COUNT) % 3


def array_data(**changes):
    arguments = {
        "train": (IMAGES, LABELS),
        "test": (IMAGES[:5], LABELS[:5]),
        "mean": (0.0, 0.0),
        "std": (1 / 255, 1 / 255),
        "classes": ("a", "b", "c"),
    }
    return ArrayData("tiny", **{**arguments, **changes})


class Noisy(Dataset):
    """Items that use every global random state there is, as people's transforms do."""

    classes = ("x", "y")

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        noise = [torch.rand(()).item(), np.random.rand(), random.random()]
        return torch.tensor([float(i), *noise]), i % 2


def loader_data():
    return LoaderData("mine", DataLoader(Noisy(), batch_size=6, shuffle=True), DataLoader(Noisy(), batch_size=7))


@pytest.fixture(params=["arrays", "loaders"])
def data(request):
    return array_data(augment=Augment(pad=1)) if request.param == "arrays" else loader_data()


def collected(batches):
    inputs, labels = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def test_training_batches_depend_on_seed_and_epoch_alone(data):
    first = collected(data.train_batches(8, seed=1, epoch=2))
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    again = collected(data.train_batches(8, seed=1, epoch=2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(first[0], collected(data.train_batches(8, seed=seed, epoch=epoch))[0])


def test_training_leaves_the_global_random_state_alone_also_between_batches(data):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = [(torch.rand(()).item(), np.random.rand(), random.random()) for _ in range(3)]
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    found = []
    for _ in data.train_batches(8, seed=0, epoch=0):
        found.append((torch.rand(()).item(), np.random.rand(), random.random()))
    assert found == expected[: len(found)] and len(found) == data.train_steps(8) == 2


def test_generators_of_a_loaders_own_are_of_seed_and_epoch_too_and_as_they_were_afterwards():
    own, sampled = torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)
    loaders = (
        DataLoader(Noisy(), batch_size=6, shuffle=True, generator=own),
        DataLoader(Noisy(), batch_size=6, sampler=RandomSampler(Noisy(), generator=sampled)),
    )
    for loader, generator in zip(loaders, (own, sampled), strict=True):
        data, before = LoaderData("mine", loader, DataLoader(Noisy(), batch_size=7)), generator.get_state()
        first, again, other = (collected(data.train_batches(8, 1, epoch))[0] for epoch in (2, 2, 3))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert torch.equal(generator.get_state(), before)


def test_what_a_batch_sampler_of_ones_own_leaves_out_is_not_counted():
    half = BatchSampler(SubsetRandomSampler(range(10)), 5, False)
    data = LoaderData("mine", DataLoader(Noisy(), batch_sampler=half), DataLoader(Noisy(), batch_size=7))
    assert data.train_size == 10 and data.train_steps(5) == len(list(data.train_batches(5, 0, 0))) == 2


@pytest.mark.parametrize("size", [1, 3, 6, 7, 20, 50])
def test_batches_have_the_size_that_was_asked_for(data, size):
    batches = list(data.train_batches(size, 0, 0))
    assert len(batches) == data.train_steps(size) == max(1, COUNT // size)
    assert {len(labels) for _, labels in batches} == {min(size, COUNT)}
    assert all(x.dtype == torch.float32 and y.dtype == torch.int64 and len(x) == len(y) for x, y in batches)
    assert sum(len(y) for _, y in data.test_batches(size)) == (5 if data.name == "tiny" else COUNT)


def test_an_epoch_sees_every_example_once():
    inputs, labels = collected(array_data().train_batches(4, 0, 0))
    order = inputs.flatten(1).sort(dim=0)[0]
    assert torch.equal(order, torch.from_numpy(IMAGES).float().flatten(1).sort(dim=0)[0])
    index = (inputs[:, None].flatten(2) == torch.from_numpy(IMAGES).float()[None].flatten(2)).all(2).int().argmax(1)
    assert torch.equal(labels, torch.from_numpy(LABELS)[index]), "labels stay with their images"
    loaded, loaded_labels = collected(loader_data().train_batches(4, 0, 0))
    assert sorted(loaded[:, 0].tolist()) == list(range(COUNT))
    assert torch.equal(loaded[:, 0].long() % 2, loaded_labels)


@settings(max_examples=30, deadline=None)
@given(pad=st.integers(0, 3), flip=st.booleans(), seed=st.integers(0, 2**32))
def test_augmented_images_are_crops_or_mirrored_crops_of_the_padded_ones(pad, flip, seed):
    images = torch.from_numpy(IMAGES[:6])
    found = Augment(pad=pad, flip=flip)(images, torch.Generator().manual_seed(seed))
    padded = np.pad(IMAGES[:6], ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    for i, image in enumerate(found.numpy()):
        crops = [padded[i, :, y : y + SIDE, x : x + SIDE] for y in range(2 * pad + 1) for x in range(2 * pad + 1)]
        allowed = crops + [c[:, :, ::-1] for c in crops if flip]
        assert any(np.array_equal(image, c) for c in allowed)


def test_augmenting_reaches_every_crop_and_both_sides():
    images = torch.from_numpy(IMAGES[:1]).expand(400, -1, -1, -1)
    found = Augment(pad=1, flip=True)(images, torch.Generator().manual_seed(0))
    assert len({image.numpy().tobytes() for image in found}) == 9 * 2
    still = Augment(pad=0, flip=False)(images, torch.Generator())
    assert torch.equal(still, images)


def test_validation_and_test_are_never_augmented_and_keep_their_order():
    data = array_data(augment=Augment(pad=2), validation=(IMAGES[5:9], LABELS[5:9]))
    for batches, start, stop in ((data.validation_batches(3), 5, 9), (data.test_batches(3), 0, 5)):
        inputs, labels = collected(batches)
        assert torch.equal(inputs, torch.from_numpy(IMAGES[start:stop]).float())
        assert labels.tolist() == LABELS[start:stop].tolist()
    assert list(array_data().validation_batches(3)) == []


def test_normalising_is_the_textbooks():
    data = array_data(mean=(0.5, 0.25), std=(0.2, 0.1))
    expected = (IMAGES[:1] / 255 - np.array([0.5, 0.25])[:, None, None]) / np.array([0.2, 0.1])[:, None, None]
    np.testing.assert_allclose(data.example_input.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": (IMAGES.astype(float), LABELS)}, "must be uint8"),
        ({"train": (IMAGES[0], LABELS)}, "must be uint8"),
        ({"train": (IMAGES, LABELS[:-1])}, r"20 images need as many labels, got \[19\]"),
        ({"train": (IMAGES[:0], LABELS[:0])}, "0 training and 5 test images"),
        ({"test": (IMAGES[:0], LABELS[:0])}, "20 training and 0 test images"),
        ({"mean": (0.0,)}, "must have 2 numbers"),
        ({"std": (1.0, 0.0)}, "std above 0"),
        ({"classes": ("a", "b")}, r"labels 0\.\.2 do not fit 2 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        array_data(**changes)


def test_batch_size_zero_is_refused(data):
    for batches in (data.train_batches, lambda b, *_: data.test_batches(b), lambda b, *_: data.train_steps(b)):
        with pytest.raises(DataError, match="batch_size=0 must be at least 1"):
            next(iter(batches(0, 0, 0)))


def test_loaders_that_drop_their_last_batch_count_it_out():
    loader = DataLoader(Noisy(), batch_size=6, drop_last=True)
    data = LoaderData("mine", loader, loader)
    assert data.train_size == 18 and len(list(data.train_batches(9, 0, 0))) == data.train_steps(9) == 2
    assert data.classes == ("x", "y") and data.example_input.shape == (1, 4)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (TensorDataset(torch.zeros(4, 2)), r"must yield \(inputs, labels\) tensors"),
        (TensorDataset(torch.zeros(4, 2), torch.zeros(4)), r"labels must be integers \[batch\], got torch.float32"),
        (TensorDataset(torch.zeros(4, 2), torch.zeros(4, 3).long()), r"labels must be integers"),
    ],
)
def test_loaders_of_something_else_are_refused(dataset, message):
    with pytest.raises(DataError, match=message):
        LoaderData("mine", DataLoader(dataset), DataLoader(dataset))
