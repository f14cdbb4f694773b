"""Calibration data: what people give as batches that fit the model, or one line that says why they do not."""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import data as data_room
from ..data import Data
from ..errors import DataError, OpenworkNotice, UsageError

Batch = tuple[Tensor, ...]
"""What one call of the model takes."""
BATCH = 32
"""Examples at a time, of data sets by name."""
CUSTOMARY = "100 to 500"
"""How many samples calibration takes."""


def read(calibration: Any, example: Sequence[Tensor] | None, count: int) -> list[Batch]:
    """Batches with at most `count` samples in all.

    Arguments:
        calibration: a data set, its name, or an iterable of batches: a tensor, or a tuple that begins with the model's
            inputs (labels after them are passed over).
        example: what one call takes; default: the first batch is of a model with one input.

    Raises `DataError` for data that is empty, constant or not finite, or whose shapes or types are not the example's.
    """
    if isinstance(calibration, str | Data):
        found: Iterable[Any] = examples(data_room.resolve(calibration), count)
    elif isinstance(calibration, Iterable) and not isinstance(calibration, Tensor):
        found = calibration
    else:
        raise UsageError(
            f"calibration is a {type(calibration).__name__}; give an iterable of batches such as a list of tensors, or "
            "a data set"
        )
    batches: list[Batch] = []
    left = count
    for number, batch in enumerate(found):
        inputs = _inputs(batch, number, example)
        example = inputs if example is None else example
        _check(inputs, number, example)
        batches.append(tuple(x[:left] for x in inputs))
        left -= len(batches[-1][0])
        if left <= 0:
            break
    if not batches:
        raise DataError(f"the calibration data is empty; give {CUSTOMARY} samples of what the model will see")
    _check_varied(batches)
    return batches


def size(batches: Sequence[Batch]) -> int:
    """Samples in all."""
    return sum(len(batch[0]) for batch in batches)


def examples(data: Data, count: int) -> Iterator[Tensor]:
    """Inputs of the validation split; where there is none, of the training split; where that is empty, of the test
    split, with a notice, since its accuracy will be flattered."""
    held = data.validation_batches(BATCH)
    if (first := next(held, None)) is not None:
        return (x for x, _ in itertools.chain([first], held))
    if data.train_size:
        return (x for x, _ in data.train_batches(min(BATCH, data.train_size), 0, 0))
    warnings.warn(
        f"{data.name} has neither validation nor training examples; calibrating on the first {count} of its test "
        "split, so leave those out when accuracy is measured",
        OpenworkNotice,
        stacklevel=2,
    )
    return (x for x, _ in data.test_batches(BATCH))


def _inputs(batch: Any, number: int, example: Sequence[Tensor] | None) -> Batch:
    wanted = 1 if example is None else len(example)
    given = (batch,) if isinstance(batch, Tensor) else batch
    if not isinstance(given, tuple | list) or len(given) < wanted:
        what = f"{len(given)} values" if isinstance(given, tuple | list) else type(batch).__name__
        raise DataError(
            f"calibration batch {number} is {what}, the model takes {wanted} tensors; yield a tensor or a tuple of them"
        )
    inputs = tuple(given[:wanted])
    if not all(isinstance(x, Tensor) and x.dim() for x in inputs):
        raise DataError(f"calibration batch {number} is not made of tensors [samples, ...]; convert it first")
    return inputs


def _check(inputs: Batch, number: int, example: Sequence[Tensor]) -> None:
    for x, like in zip(inputs, example, strict=True):
        if x.shape[1:] != like.shape[1:]:
            raise DataError(
                f"calibration batch {number} has shape {list(x.shape)}, the model takes {['N', *like.shape[1:]]}; "
                "prepare it as for inference, or give example_inputs of its shape"
            ) from None
        if x.dtype != like.dtype:
            raise DataError(f"calibration batch {number} is {x.dtype}, the model takes {like.dtype}; convert it first")
        if x.is_floating_point() and (bad := int((~torch.isfinite(x)).sum())):
            raise DataError(f"calibration batch {number} holds {bad} values that are NaN or infinite; leave them out")
        if not len(x):
            raise DataError(f"calibration batch {number} has no samples; leave it out")


def _check_varied(batches: list[Batch]) -> None:
    for column in zip(*batches, strict=True):
        if not column[0].is_floating_point():
            continue
        low, high = (float(f(torch.stack([f(x) for x in column]))) for f in (torch.min, torch.max))
        if low == high:
            raise DataError(
                f"all {size(batches)} calibration samples are constant, {low:g} everywhere; give {CUSTOMARY} samples "
                "of what the model will see"
            )


def first(batches: Sequence[Batch], count: int) -> list[Batch]:
    """Whole batches, or the beginning of one, with `count` samples in all, or as many as there are."""
    found: list[Batch] = []
    for batch in batches:
        if count <= 0:
            break
        found.append(tuple(x[:count] for x in batch))
        count -= len(batch[0])
    return found


def regrouped(batches: Sequence[Batch], length: int) -> list[Batch]:
    """The same samples in batches of `length`, without those that are left over.

    Raises `DataError` if there are fewer.
    """
    columns = [torch.split(torch.cat(column), length) for column in zip(*batches, strict=True)]
    found = [batch for batch in zip(*columns, strict=True) if len(batch[0]) == length]
    if not found:
        raise DataError(
            f"the model takes batches of {length} and there are {size(batches)} calibration samples; "
            f"give at least {length}"
        )
    return found
