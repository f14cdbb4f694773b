"""Getting data sets and published weights from where their authors put them: `openwork data get NAME`.

A file is fetched into `NAME.part`, which a later call continues, checked against its published checksum, and only then
renamed: what lies under its real name is whole.
"""

import hashlib
import os
import pickle
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import save_file

from .. import plugins
from ..errors import DataError, UsageError
from .base import data_root

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are here, and the bytes it will have (None where unknown)."""

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Remote:
    """One published file."""

    url: str
    """Where it is."""
    digest: str
    """Checksum in hexadecimal as published; for sha256 its beginning is enough."""
    algorithm: str = "md5"
    """'md5' or 'sha256': what the publisher chose. It guards against damage, not against malice."""

    makes: tuple[str, ...] = ()
    """Files that are made from it; where they stand already, nothing is fetched. Empty: the file itself."""

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]

    @property
    def products(self) -> tuple[str, ...]:
        """Files that must stand afterwards."""
        return self.makes or (self.name,)


@dataclass(frozen=True)
class Source:
    """What makes up one data set."""

    folder: str
    """Folder under the data root."""
    files: tuple[Remote, ...]
    """What is fetched."""
    unpack: Callable[[Path, Path], None] | None = None
    """Makes the products in the folder from a fetched file, which goes afterwards. None: it is the product."""


def untar(fetched: Path, folder: Path) -> None:
    """The plain files of an archive, without their folders: no member can name a place outside `folder`."""
    with tarfile.open(fetched) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            name = Path(member.name).name
            with content, (folder / f"{name}.part").open("wb") as out:
                shutil.copyfileobj(content, out)
            (folder / f"{name}.part").replace(folder / name)


def to_safetensors(fetched: Path, folder: Path) -> None:
    """A checkpoint of akamaster's ResNets as safetensors: plain tensors are read, no code is run."""
    try:
        state = torch.load(fetched, map_location="cpu", weights_only=True)["state_dict"]
    except (pickle.UnpicklingError, RuntimeError, KeyError) as error:
        raise DataError(f"{fetched.name} is not the checkpoint that it was: {error}") from error
    name = _converted(fetched.name)
    # Saved from a DataParallel; the counters of batch norm play no part in the result.
    tensors = {
        key.removeprefix("module."): value.contiguous()
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    origin = {"source": "akamaster/pytorch_resnet_cifar10", "licence": "BSD-2-Clause"}
    save_file(tensors, folder / f"{name}.part", metadata=origin)
    (folder / f"{name}.part").replace(folder / name)


def _converted(checkpoint: str) -> str:
    return f"cifar10_{checkpoint.partition('-')[0]}.safetensors"


def _idx_source(folder: str, base: str, checksums: dict[str, str]) -> Source:
    return Source(folder, tuple(Remote(base + name, digest) for name, digest in checksums.items()))


_MNIST = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_FASHION = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_CIFAR = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    makes=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
)
_RESNETS = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
# By the convention of torch.hub the name of a weight file ends in the beginning of its SHA-256.
_CHECKPOINTS = ("resnet20-12fca82f.th", "resnet32-d509ac18.th", "resnet44-014dd654.th", "resnet56-4bfd9763.th")

SOURCES = {
    "mnist": _idx_source("mnist", "https://ossci-datasets.s3.amazonaws.com/mnist/", _MNIST),
    "fashion_mnist": _idx_source(
        "fashion_mnist", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", _FASHION
    ),
    "cifar10": Source("cifar10", (_CIFAR,), untar),
    "weights": Source(
        "weights",
        tuple(Remote(_RESNETS + name, name[9:-3], "sha256", (_converted(name),)) for name in _CHECKPOINTS),
        to_safetensors,
    ),
}


def get(
    name: str, root: Path | None = None, progress: Progress | None = None, sources: dict[str, Source] | None = None
) -> Path:
    """Fetch a data set into the data root and return its folder; what is there already is not fetched again.

    Arguments:
        name: "mnist", "fashion_mnist", "cifar10", or "weights" (published weights of the CIFAR-10 ResNets).
        root: folder of data sets; default `$OPENWORK_DATA`, else `~/.cache/openwork/data`.
        progress: called as (file, bytes done, bytes in all) while a file is fetched.
        sources: what can be fetched from where; default: `SOURCES`.

    Raises `UsageError` for an unknown name; `DataError` for a set that people must fetch themselves, when the server
    cannot be reached, a checksum is wrong, or the disk cannot be written. An interrupted download goes on where it
    stopped when `get` is called again.
    """
    sources = SOURCES if sources is None else sources
    if name not in sources and (by_hand := _by_hand(name)):
        top = root or data_root()
        for folder in (top / name, *top.glob(f"*/{name}")):  # a set may lie in the folder of its collection
            if folder.is_dir() and any(folder.iterdir()):
                return folder
        raise DataError(f"{name} is not fetched by openwork; in {top / name}, {by_hand}")
    if name not in sources:
        raise UsageError(plugins.unknown("data set to get", name, sorted(sources)))
    source = sources[name]
    folder = (root or data_root()) / source.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for remote in source.files:
            _get_file(remote, source, folder, progress)
    except OSError as error:
        problem = f"cannot write to {folder}: {error.strerror or error}"
        raise DataError(f"{name}: {problem}; free space, or set OPENWORK_DATA to another folder") from error
    return folder


def _by_hand(name: str) -> str:
    """What people must do themselves to have a data set; empty for others."""
    return getattr(plugins.module("data", name), "BY_HAND", "") if name in plugins.names("data") else ""


def _get_file(remote: Remote, source: Source, folder: Path, progress: Progress | None) -> None:
    if not _absent(remote, folder):
        return
    fetched = folder / remote.name
    download(remote, fetched, progress)
    if source.unpack is not None:
        source.unpack(fetched, folder)
        fetched.unlink()
    if absent := _absent(remote, folder):
        raise DataError(f"{remote.url} holds no {absent[0]}; its publisher has changed it")


def _absent(remote: Remote, folder: Path) -> list[str]:
    return [name for name in remote.products if not (folder / name).is_file()]


def download(remote: Remote, target: Path, progress: Progress | None = None) -> None:
    """Fetch `remote` to `target`, which appears only when it is whole and its checksum is right."""
    part = target.with_name(target.name + ".part")
    try:
        _fetch(remote, part, progress)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{remote.url} cannot be fetched ({reason}); try again later, it goes on where it stopped, "
            f"or put the file at {target} yourself"
        ) from error
    if not checksum(part, remote.algorithm).startswith(remote.digest):
        part.unlink()
        problem = f"its {remote.algorithm} is not {remote.digest}"
        raise DataError(f"{remote.url} is damaged or has changed: {problem}; try again")
    part.replace(target)


def _fetch(remote: Remote, part: Path, progress: Progress | None) -> None:
    start = part.stat().st_size if part.exists() else 0
    try:
        _append(remote, part, start, progress)
    except urllib.error.HTTPError as error:
        # 416: there is nothing after `start`, so the part is whole already, or longer than the file.
        if error.code != 416:
            raise


def _append(remote: Remote, part: Path, start: int, progress: Progress | None) -> None:
    headers = {"User-Agent": "openwork", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(remote.url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        continued = start > 0 and getattr(response, "status", None) == 206
        done = start if continued else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if continued else "wb") as out:
            _copy(response, out, remote.name, done, total, progress)
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the connection ended after {part.stat().st_size} of {total} bytes")


def _copy(
    response: IO[bytes], out: IO[bytes], name: str, done: int, total: int | None, progress: Progress | None
) -> None:
    while chunk := response.read(_CHUNK):
        out.write(chunk)
        done += len(chunk)
        if progress is not None:
            progress(name, done, total)
    out.flush()
    os.fsync(out.fileno())


def checksum(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
