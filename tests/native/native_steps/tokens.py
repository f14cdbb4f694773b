"""Random steps on tokens and on vectors of features."""

import math

import numpy as np

from .case import UNIT, Case, f32, i32, inside


def attention(
    seed: int = 0,
    batch: int = 2,
    heads: int = 2,
    channels: int = 5,
    queries: int = 20,
    keys: int = 37,
    flags: bool = False,
    bias_heads: int = 0,
    scale: float = 0.4,
) -> Case:
    """Attention of `heads` heads with `channels` channels each; keys masked by flags, or by a bias."""
    rng = np.random.default_rng(seed)
    q_stride, k_stride = queries + 3, keys + 1
    q_plane, k_plane = batch * q_stride + UNIT, batch * k_stride + 8
    total = heads * channels
    q = np.arange(total) * q_plane
    k = total * q_plane + np.arange(2 * total) * k_plane
    out = k[-1] + k_plane + np.arange(total) * q_plane
    arguments = {
        "batch": batch, "heads": heads, "queries": queries, "keys": keys, "q_stride": q_stride, "k_stride": k_stride,
        "scale": scale, "q": i32(q), "k": i32(rng.permutation(k[:total])), "v": i32(k[total:]), "out": i32(out),
    }  # fmt: skip
    buffers = []
    if flags:
        arguments |= {"flags": 0, "on": 0.0, "off": -math.inf}
        buffers = [rng.integers(0, 2, batch * keys).astype(np.int32).view(np.float32)]
    if bias_heads:
        width = -(-queries // UNIT) * UNIT
        arguments |= {"bias": f32(bias_heads * keys * width, rng), "bias_stride": width, "bias_heads": bias_heads}
    return Case("attention", arguments, f32(int(out[-1]) + q_plane, rng), buffers)


def layer_norm(seed: int = 0, channels: int = 7, grid: tuple[int, int, int, int, int] = (2, 30, 30, 1, 21)) -> Case:
    """Layer norm over the channels of every position of a grid. Behind the floats is room for quads and a plane."""
    rng = np.random.default_rng(seed)
    reach = len(inside(grid))
    arguments = {
        "x": i32(np.arange(channels) * reach),
        "y": i32((channels + rng.permutation(channels)) * reach),
        "weight": f32(channels, rng),
        "bias": f32(channels, rng),
        "eps": 1e-5,
        "grid": list(grid),
    }
    return Case("layer_norm", arguments, f32((2 * channels + -(-channels // 4) + 1) * reach, rng))


def embedding(seed: int = 0, batch: int = 2, length: int = 19, channels: int = 5, added: bool = True) -> Case:
    """Rows of a table at random tokens, as planes."""
    rng = np.random.default_rng(seed)
    stride, words = length + 2, 11
    arguments = {
        "batch": batch,
        "length": length,
        "stride": stride,
        "ids": 0,
        "out": i32(rng.permutation(channels) * batch * stride),
        "table": f32(words * channels, rng),
    }
    if added:
        arguments["added"] = f32(length * channels, rng)
    ids = rng.integers(0, words, batch * length).astype(np.int32)
    return Case("embedding", arguments, f32(channels * batch * stride, rng), [ids.view(np.float32)])


def constant(seed: int = 0, batch: int = 2, channels: int = 3, length: int = 6, rows: int = 1) -> Case:
    """Planes that are written once, when the program is made."""
    rng = np.random.default_rng(seed)
    stride = rows * (length + 1)
    arguments = {"batch": batch, "stride": stride, "out": i32(np.arange(channels) * batch * stride)}
    if rows > 1:
        arguments |= {"rows": rows, "pitch": length + 1}
    return Case(
        "constant", arguments | {"value": f32(channels * rows * length, rng)}, f32(channels * batch * stride, rng)
    )


def word_mean(seed: int = 0, batch: int = 2, length: int = 21, channels: int = 5, least: float = 1e-9) -> Case:
    """Mean over the tokens that flags name."""
    rng = np.random.default_rng(seed)
    stride = length + 3
    arguments = {
        "x": i32(rng.permutation(channels) * batch * stride), "batch": batch, "length": length, "stride": stride,
        "flags": 0, "y": channels * batch * stride, "y_stride": channels + 1, "least": least,
    }  # fmt: skip
    flags = rng.integers(0, 2, batch * length).astype(np.int32).view(np.float32)
    return Case("word_mean", arguments, f32(channels * batch * stride + batch * (channels + 1), rng), [flags])


def unit(seed: int = 0, batch: int = 2, features: int = 37, least: float = 1e-12) -> Case:
    """Vectors divided by their length."""
    rng = np.random.default_rng(seed)
    stride, y = features + 2, batch * (features + 2)
    arguments = {
        "batch": batch, "features": features, "x": 0, "x_stride": stride, "y": y, "y_stride": stride, "least": least,
    }  # fmt: skip
    return Case("unit", arguments, f32(2 * y, rng))
