"""The artifact: one safetensors file that holds a compiled program and everything to run it. No pickle, no torch.

Layout: an ordinary safetensors file. Its metadata has

- `openwork`: JSON with `format` (version), `program`, `layers` (what `explain()` shows) and `provenance`;
- `digest`: SHA-256 over the SHA-256s of the header, its own 64 characters taken as zeros, and of each MiB after it:
  several threads can check a large file.

Arrays of step 3 are called `3.value`, `3.index`, ...; those of PyTorch operators keep their names. Bytes of small whole
numbers are packed, 1 to 4 bits for each: the step's `packed` says how many, and of which shape. The digest finds
damage; a file made to deceive is caught by the native library, which checks every size, offset and index first.
A file is mapped, not read, and all other arrays are used where they lie: replace it by renaming, never write into it.
"""

import hashlib
import json
import math
import mmap
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as serialize

from .. import files
from ..errors import ArtifactError, UsageError
from .packed import _bits
from .program import DTYPES, Array, Lengths, ProgramSpec, Segment, Step, TensorSpec, TorchCall
from .tensors import views

VERSION = 2
FEW = 4
"""Bits of a whole number up to which it is packed: it then takes at most half of a byte."""
_BLANK = "0" * 64
_MARK = b'"digest":"'
_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own limit
_PIECE = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A program, what was decided for each layer, and where it comes from."""

    program: ProgramSpec
    layers: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def to_bytes(artifact: Artifact) -> bytes:
    """The file's content."""
    program = artifact.program
    arrays: dict[str, Array] = {f"torch.{k}": v for k, v in program.constants.items()}
    packed: list[dict[str, Any]] = [{} for _ in program.steps]
    for i, step in enumerate(program.steps):
        for role, a in step.arrays.items():
            bits = _few_bits(a)
            if bits:
                packed[i][role] = {"bits": bits, "shape": a.shape}
            arrays[f"{i}.{role}"] = _bits.pack_even(a.reshape(-1), bits) if bits else np.ascontiguousarray(a)
    head = {
        "format": VERSION,
        "program": {
            "arena": program.arena,
            "externals": [asdict(e) for e in program.externals],
            "inputs": program.inputs,
            "outputs": program.outputs,
            "steps": [
                {"op": s.op, "name": s.name, "arrays": sorted(s.arrays), **({"packed": few} if few else {}), **s.fields}
                for s, few in zip(program.steps, packed, strict=True)
            ],
            "segments": [asdict(s) for s in program.segments],
            "lengths": asdict(program.lengths) if program.lengths else None,
            "turns": program.turns,
        },
        "layers": artifact.layers,
        "provenance": artifact.provenance,
    }
    text = plain_json(head)
    content = bytearray(serialize(arrays, {"openwork": text, "digest": _BLANK}))
    start = _data_start(content)
    at = _digest_place(content[:start])
    content[at : at + 64] = _digest(bytes(content[:start]), memoryview(content)[start:])
    return bytes(content)


def from_bytes(content: bytes | mmap.mmap, name: str = "artifact") -> Artifact:
    """Read a file's content back; `ArtifactError` says what is wrong with it. The arrays are views of the content."""
    start = _checked(content, name)
    try:
        header = json.loads(content[8:start])
        head = json.loads(header["__metadata__"]["openwork"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{name} is not an Openwork artifact: its header cannot be read") from error
    if not isinstance(head, dict) or "format" not in head:
        raise ArtifactError(f"{name} is damaged: its header names no format")
    if head["format"] != VERSION:
        raise ArtifactError(
            f"{name} has format {head['format']!r:.40}, this Openwork reads format {VERSION}; compile the model again"
        )
    try:
        arrays = views(header, memoryview(content)[start:])
        layers = tuple(dict(layer) for layer in head["layers"])
        return Artifact(_program(head["program"], arrays), layers, dict(head["provenance"]))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{name} is damaged: its program cannot be read ({type(error).__name__}: {error})"
        ) from error


def plain_json(values: Mapping[str, Any]) -> str:
    """The values as JSON; `UsageError` for what JSON cannot hold."""
    try:
        return json.dumps(values, separators=(",", ":"), allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"an artifact cannot hold this: {error}; keep to finite numbers, text and lists") from error


def save(artifact: Artifact, path: Path) -> int:
    """Write the file, whole or not at all; returns its bytes."""
    content = to_bytes(artifact)
    files.write_bytes(path, content)
    return len(content)


def load(path: Path) -> Artifact:
    """Read an artifact file; its arrays are views of the mapped file."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            mapped = stat.S_ISREG(status.st_mode) and status.st_size
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if mapped else file.read()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    return from_bytes(content, str(path))


def _checked(content: bytes | mmap.mmap, name: str) -> int:
    """Where the data begin, in a file that matches its digest; `ArtifactError` for any other."""
    start = _data_start(content)
    if len(content) < 16 or not 10 <= start <= min(len(content), _HEADER_LIMIT) or content[8:9] != b"{":
        raise ArtifactError(f"{name} is not an Openwork artifact, or was cut off ({len(content)} bytes)")
    header = content[:start]
    at = _digest_place(header)
    if at < 0:
        raise ArtifactError(f"{name} is not an Openwork artifact: it has no digest")
    blanked = header[:at] + _BLANK.encode() + header[at + 64 :]
    if _digest(blanked, memoryview(content)[start:]) != header[at : at + 64]:
        raise ArtifactError(f"{name} is damaged: its content does not match its digest; copy or compile it again")
    return start


def _data_start(content: bytes | bytearray | mmap.mmap) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _digest(header: bytes, data: memoryview) -> bytes:
    """The digest's 64 characters; `header` holds zeros in their place."""
    pieces = [memoryview(header), *(data[i : i + _PIECE] for i in range(0, len(data), _PIECE))]
    threads = min(os.cpu_count() or 1, len(pieces) // 2)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            hashes = list(pool.map(_sha256, pieces))
    else:
        hashes = [_sha256(piece) for piece in pieces]
    return hashlib.sha256(b"".join(hashes)).hexdigest().encode()


def _sha256(piece: memoryview) -> bytes:
    return hashlib.sha256(piece).digest()


def _digest_place(header: bytes | bytearray) -> int:
    """Where the digest's 64 characters begin, or -1; JSON in the header escapes its quotes: the mark is unique."""
    at = header.find(_MARK)
    return at + len(_MARK) if at >= 0 and at + len(_MARK) + 64 <= len(header) else -1


def _program(head: Mapping[str, Any], arrays: Mapping[str, Array]) -> ProgramSpec:
    externals = tuple(
        TensorSpec(str(e["name"]), tuple(_size(d) for d in e["shape"]), str(e["dtype"])) for e in head["externals"]
    )
    steps = tuple(
        Step(
            str(s["op"]),
            str(s["name"]),
            {k: v for k, v in s.items() if k not in ("op", "name", "arrays", "packed")},
            {role: _unpacked(arrays[f"{i}.{role}"], s.get("packed", {}).get(role)) for role in s["arrays"]},
        )
        for i, s in enumerate(head["steps"])
    )
    segments = tuple(_segment(s, len(steps), len(externals)) for s in head["segments"])
    spec = ProgramSpec(
        int(head["arena"]),
        externals,
        tuple(_below(i, len(externals)) for i in head["inputs"]),
        tuple(_below(i, len(externals)) for i in head["outputs"]),
        steps,
        segments,
        {k.removeprefix("torch."): v for k, v in arrays.items() if k.startswith("torch.")},
    )
    spec = replace(spec, turns=_turns(head["turns"], spec))
    if (lengths := head.get("lengths")) is not None:
        spec = replace(spec, lengths=_lengths(lengths, spec))
    for e in externals:
        if e.dtype not in DTYPES:
            raise ValueError(f"a buffer's type {e.dtype!r} is not one of {', '.join(DTYPES)}")
    if not spec.inputs or not spec.outputs:
        raise ValueError("no inputs or outputs")
    return spec


def _few_bits(array: Array) -> int:
    """Bits in which each number of an int8 array is packed, in two's complement; 0: as they are."""
    if array.dtype != np.int8 or not array.size:
        return 0
    most = max(int(array.max()), -1 - int(array.min()))
    bits = 1 + most.bit_length()
    return bits if bits <= FEW else 0


def _unpacked(array: Array, how: Mapping[str, Any] | None) -> Array:
    """An array as the step takes it."""
    if how is None:
        return array
    bits, shape = _size(how["bits"]), tuple(_size(d) for d in how["shape"])
    count = math.prod(shape)
    if bits > FEW or array.dtype != np.uint8 or array.shape != (-(-count * bits // 8),):
        raise ValueError(f"{array.size} bytes do not hold {count} numbers of {bits} bits")
    codes = _bits.unpack_even(array, bits, count)
    return (codes - (codes >> (bits - 1) << bits)).astype(np.int8).reshape(shape)


def _turns(value: Any, spec: ProgramSpec) -> int:
    turns = _size(value)
    if turns > 1 and (len(spec.segments) != 1 or any(not e.shape or e.shape[0] % turns for e in spec.externals)):
        raise ValueError(f"its buffers cannot be shared out over {turns} turns")
    return turns


def _lengths(head: Mapping[str, Any], spec: ProgramSpec) -> Lengths:
    found = Lengths(
        _size(head["longest"]),
        tuple(_below(i, len(spec.inputs)) for i in head["inputs"]),
        tuple(_below(i, len(spec.outputs)) for i in head["outputs"]),
    )
    buffers = [*(spec.inputs[i] for i in found.inputs), *(spec.outputs[i] for i in found.outputs)]
    if not found.inputs or any(spec.externals[b].shape[1:2] != (found.longest,) for b in buffers):
        raise ValueError("a sequence's length is not that of its inputs and outputs")
    return found


def _segment(head: Mapping[str, Any], steps: int, externals: int) -> Segment:
    begin, end = int(head["begin"]), int(head["end"])
    if not 0 <= begin <= end <= steps:
        raise ValueError("a segment's steps are out of range")
    calls = tuple(
        TorchCall(
            str(c["name"]),
            str(c["target"]),
            c["args"],
            c["kwargs"],
            {str(k): _below(v, externals) for k, v in c["reads"].items()},
            _below(c["writes"], externals) if c["writes"] != -1 else -1,
        )
        for c in head["calls"]
    )
    return Segment(begin, end, calls)


def _size(value: Any) -> int:
    if type(value) is not int or not 1 <= value < 1 << 31:
        raise ValueError(f"a size is {value!r}")
    return value


def _below(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(f"buffer {value!r} is not one of {limit}")
    return value


def _plain(value: Any) -> Any:
    """NumPy numbers as JSON numbers."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored in an artifact")
