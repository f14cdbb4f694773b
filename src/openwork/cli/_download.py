"""Downloads of published data and weights from their authors' addresses, checked against the digests they published."""

import gzip
import hashlib
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..errors import DataError
from ..files import replacing, write_bytes

_CHUNK = 1 << 20
_TIMEOUT = 60
"""Seconds without a byte after which a download is given up."""


@dataclass(frozen=True)
class Source:
    """One file to fetch."""

    url: str
    digest: str
    """md5 in hex, or the first digits of the sha256 behind 'sha256:'."""
    target: str
    """Where it goes, below the data folder."""


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_RESNETS = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"


def _idx(address: str, folder: str, digests: dict[str, str]) -> tuple[Source, ...]:
    return tuple(Source(f"{address}/{n}-ubyte.gz", d, f"{folder}/{n}-ubyte.gz") for n, d in digests.items())


SOURCES: dict[str, tuple[Source, ...]] = {
    "mnist": _idx(
        _MNIST,
        "mnist",
        {
            "train-images-idx3": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": _idx(
        _FASHION,
        "fashion_mnist",
        {
            "train-images-idx3": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": (
        Source(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            "cifar10/cifar-10-binary.tar.gz",
        ),
    ),
    # The names of these files end in the first digits of their sha256.
    "weights": tuple(
        Source(f"{_RESNETS}/resnet{depth}-{digest}.th", f"sha256:{digest}", f"weights/cifar10_resnet{depth}.th")
        for depth, digest in ((20, "12fca82f"), (32, "d509ac18"), (44, "014dd654"), (56, "4bfd9763"))
    ),
}


def get(name: str, root: Path, console: Console) -> None:
    """Bring data set `name` into `root`; what is there already is kept. DataError says what to do where it fails."""
    if name not in SOURCES:
        raise DataError(f"{name} has no address to download from; put its files into {root / name}")
    for source in SOURCES[name]:
        target = root / source.target
        if finished(target):
            continue
        console.print(f"downloading {source.url}")
        fetch(source, target)
        _unpack(target)


def finished(target: Path) -> bool:
    """Whether what `target` brings is there already."""
    if target.suffix == ".th":
        return target.with_suffix(".safetensors").is_file()
    if target.name.endswith(".tar.gz"):
        return (target.parent / "test_batch.bin").is_file()
    return target.is_file()


def fetch(source: Source, target: Path) -> None:
    """Download one file and check it; nothing is left behind where that fails."""
    digest = hashlib.sha256() if source.digest.startswith("sha256:") else hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT) as answer, replacing(target) as file:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            if not digest.hexdigest().startswith(source.digest.removeprefix("sha256:")):
                raise DataError(
                    f"{source.url} is not the published file (its digest differs); try again, or get it from elsewhere"
                )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"cannot download {source.url} ({reason}); check the network, or put the file there by hand: {target}"
        ) from error


def _unpack(target: Path) -> None:
    if target.name.endswith(".tar.gz"):
        _unpack_tar(target)
    elif target.suffix == ".th":
        _convert_weights(target)


def _unpack_tar(archive: Path) -> None:
    """Its *.bin files, beside it and without its folders; then the archive goes."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                content = tar.extractfile(member) if member.isfile() and member.name.endswith(".bin") else None
                if content is not None:
                    write_bytes(archive.parent / Path(member.name).name, content.read())
    except (tarfile.TarError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); remove it and get it again") from error
    archive.unlink()


def _convert_weights(pickled: Path) -> None:
    """A data-parallel model's checkpoint to a safetensors file of plain names; the pickle is read as tensors only."""
    import torch
    from safetensors.torch import save

    state = torch.load(pickled, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    write_bytes(
        pickled.with_suffix(".safetensors"),
        save({name.removeprefix("module."): tensor.float().contiguous() for name, tensor in state.items()}),
    )
    pickled.unlink()
