"""Ways to damage an artifact: bytes at random, and hostile headers with a digest that is right."""

import copy
import hashlib
import json
from typing import Any

import numpy as np
from safetensors.numpy import load, save

BLANK = b"0" * 64


def corrupted(content: bytes, rng: np.random.Generator) -> bytes:
    """The file with one random damage."""
    data = bytearray(content)
    size = len(data)
    kind = rng.integers(7)
    if kind == 0:  # cut off
        return bytes(data[: rng.integers(size)])
    if kind in (1, 2):  # one bit, or many
        for at in rng.integers(8 * size, size=1 if kind == 1 else rng.integers(2, 40)):
            data[at // 8] ^= 1 << (at % 8)
    elif kind == 3:  # a block of other bytes
        at, length = rng.integers(size), rng.integers(1, 512)
        data[at : at + length] = rng.bytes(min(length, size - at))
    elif kind == 4:  # two ranges swapped
        length = rng.integers(1, size // 2)
        a = rng.integers(0, size - 2 * length + 1)
        b = rng.integers(a + length, size - length + 1)
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]
    elif kind == 5:  # junk appended
        data += rng.bytes(rng.integers(1, 200))
    else:  # a stretch taken out
        at, length = rng.integers(size), rng.integers(1, 300)
        del data[at : at + length]
    return bytes(data)


def taken_apart(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON header and the arrays."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["openwork"]), load(content)


def put_together(text: str, arrays: dict[str, np.ndarray]) -> bytes:
    """A file with a right digest, whatever it says."""
    return sealed(save(arrays, {"openwork": text, "digest": BLANK.decode()}))


def with_header(content: bytes, header: dict[str, Any]) -> bytes:
    """The file with another safetensors header, and a right digest."""
    start = 8 + int.from_bytes(content[:8], "little")
    text = json.dumps(header, separators=(",", ":")).encode()
    return sealed(len(text).to_bytes(8, "little") + text + content[start:])


def sealed(content: bytes) -> bytes:
    """The file with a right digest."""
    at = content.index(b'"digest":"') + len(b'"digest":"')
    blank = content[:at] + BLANK + content[at + 64 :]
    return blank[:at] + digest(blank).encode() + blank[at + 64 :]


def digest(content: bytes) -> str:
    """The digest of a file whose digest is zeros, as the documentation words it."""
    start = 8 + int.from_bytes(content[:8], "little")
    pieces = [content[:start], *(content[i : i + 2**20] for i in range(start, len(content), 2**20))]
    return hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()


NASTY: list[Any] = [
    -(2**63),
    -(2**31),
    -5,
    -1,
    0,
    1,
    2,
    3,
    5,
    7,
    16,
    63,
    1000,
    2**15,
    2**24 - 1,
    2**30 - 1,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    10**25,
    0.5,
    -1.5,
    float("nan"),
    float("inf"),
    1e308,
    None,
    True,
    "",
    "7",
    "taps",
    "int64",
    "bool",
    [],
    [[]],
    [0],
    {},
    {"value": 1},
    [[0, 1, 3]],
    [[0, 0, 2**24]],
    [[0, 0, 2**40]],
    [[0, 2**40, 3]],
]


def hostile(head: dict[str, Any], arrays: dict[str, np.ndarray], rng: np.random.Generator) -> bytes:
    """The file with one to three lies in its header or arrays; changes the arguments."""
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.7:
            _lie(head["program"] if rng.random() < 0.95 and isinstance(head.get("program"), dict) else head, rng)
        elif arrays:
            _lie_in_arrays(arrays, rng)
    return put_together(json.dumps(head), arrays)


def _lie(value: Any, rng: np.random.Generator) -> None:
    """Walk to a random place and change what is there."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        inner = value[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.93:
            value = inner
            continue
        kind = rng.random()
        if kind < 0.1:
            del value[key]
        elif kind < 0.15 and isinstance(value, list):
            value.append(inner)
        elif kind < 0.5 and isinstance(inner, int):
            value[key] = inner + int(rng.integers(-3, 4))
        else:
            value[key] = copy.deepcopy(NASTY[rng.integers(len(NASTY))])
        return


def _lie_in_arrays(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    name = list(arrays)[rng.integers(len(arrays))]
    array = arrays[name].copy()
    kind = rng.integers(6)
    if kind == 0:
        del arrays[name]
        return
    if kind == 1:
        array = array[: rng.integers(len(array) + 1)] if array.ndim else array[None]
    elif kind == 2:
        array = np.concatenate([array.reshape(-1), array.reshape(-1)])
    elif kind == 3:
        array = array.astype(rng.choice(["float64", "float16", "int64", "uint8", "int8", "bool"]))
    elif kind == 4:
        array = array.reshape(1, -1)
    elif array.size:
        flat = array.reshape(-1)
        with np.errstate(all="ignore"):
            flat[rng.integers(len(flat))] = rng.choice([0, 1, 2, 100, 127]) if array.dtype.kind != "f" else np.nan
    arrays[name] = array
