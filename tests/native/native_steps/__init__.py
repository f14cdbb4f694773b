"""Random steps of every kernel family, a kind of step in each module. Tests reach them as `native_steps.NAME`."""

from .case import FAST, FLOATS, WIDTHS, Case, f32, i32, inside  # noqa: F401, for tests
from .cells import recurrent
from .depthwise import depthwise, slab_depthwise, where  # noqa: F401, for tests
from .elementwise import binary, pointwise, scale
from .images import bilinear, clear, copy, interleave, mean, place, pool, read  # noqa: F401, for tests
from .levels import leveled, of_level  # noqa: F401, for tests
from .quad_steps import (
    quad_depthwise,
    quad_mean,
    quad_pool,
    quad_rows,
    quad_sum,
    quad_table,
    slab_quad_depthwise,
    slab_quad_pool,
)
from .quads import dequantize, quad_taps, quantize, quantize_tokens
from .slabs import cut, each_slab, slab_copy, slab_mean, slab_pool  # noqa: F401, for tests
from .sums import balanced, circulant, convolved, dense, features_alone, multiplied, rows, slotted, taps, winograd  # noqa: F401, for tests
from .tokens import attention, constant, embedding, layer_norm, unit, word_mean


def every_case() -> dict[str, Case]:
    """One valid step of each family."""
    return {
        "taps": taps(),
        "dense": dense(),
        "winograd": winograd()[0],
        "winograd_2": winograd(tile=2, width=32, outputs=70, row_chunks=3)[0],
        "rows": rows(),
        "rows_narrow": rows(width=4, counts=(7, 0, 35, 16, 1)),
        "balanced": balanced(),
        "balanced_4": balanced(window=4, placed=True, outputs=33, counts=(40, 0, 17)),
        "balanced_act": balanced(window=8, placed=True, features=5).changed(act=["silu"]),
        "circulant": circulant(),
        "circulant_act": circulant(block=16, features=33, outputs=300).changed(act=["silu"]),
        "max_pool": pool(),
        "avg_pool": pool(is_max=False),
        "depthwise": depthwise(each=2, external=(True, True)),
        "depthwise_5x5": depthwise(kernel=(5, 5), stride=1, out=(9, 8), before=(2, 2)),
        "depthwise_large": depthwise(shape=(1, 2, 6, 140), out=(3, 70), kernel=(13, 2), before=(6, 0)),
        "copy": copy()[0],
        "copy_out": copy(external=True)[0],
        "mean": mean()[0],
        "attention": attention(flags=True),
        "attention_bias": attention(bias_heads=2),
        "layer_norm": layer_norm(),
        "embedding": embedding(),
        "constant": constant(),
        "constant_image": constant(rows=3),
        "word_mean": word_mean(),
        "unit": unit(),
        "interleave": interleave()[0],
        "bilinear": bilinear()[0],
        "clear": clear(),
        "pointwise": pointwise(),
        "scale": scale(),
        "binary": binary(),
        "binary_each": binary(each=True).changed(act=["silu"]),
        "taps_pieces": taps(pieces=3),
        "taps_levels": leveled(taps()),
        "rows_levels": leveled(rows(), scale=False),
        "rows_narrow_levels": leveled(rows(width=4, counts=(7, 0, 35, 16, 1)), levels=2),
        "taps_slabs": cut(taps(grid=(1, 40, 7, 5, 6)), 3, 2),
        "dense_slabs": cut(dense(grid=(1, 40, 7, 5, 6)), 2, 3),
        "winograd_slabs": cut(winograd(grid=(1, 1, 8, 5, 6))[0], 2, 3),
        "copy_slabs": slab_copy()[0],
        "copy_halo": slab_copy()[0].changed(only_halo=True),
        "pool_slabs": slab_pool()[0],
        "mean_slabs": slab_mean()[0],
        "depthwise_slabs": slab_depthwise()[0],
        "taps_act": taps().changed(act=["silu"]),
        "dense_act": dense().changed(act=["silu"]),
        "winograd_act": winograd()[0].changed(act=["silu"]),
        "rows_narrow_act": rows(width=1, counts=(7, 0, 35, 16, 1)).changed(act=["silu"]),
        "depthwise_act": depthwise(act=["silu"]),
        "rows_act": rows().changed(act=["elu", 1.0, 1.0, 1.0]),
        "quantize": quantize(),
        "dequantize": dequantize(),
        "quantize_tokens": quantize_tokens(),
        "quad_taps_token": quad_taps(quads_out=False, residual="float", token=True),
        "quad_rows_token": quad_rows(by_token=True, x_bounds=(0, 127)),
        "quad_rows_narrow": quad_rows(width=4, counts=(7, 0, 35, 16, 1), x_bounds=(-127, 127)),
        "quad_taps": quad_taps(),
        "quad_taps_float": quad_taps(signed=False, quads_out=False, residual="s8"),
        "quad_taps_act": quad_taps(mb=1, counts=(5, 0, 9, 3), quads_out=False, residual="float").changed(act=["silu"]),
        "quad_taps_narrow": quad_taps(mb=2, counts=(5, 0, 9, 3), residual="u8", table=True),
        "quad_taps_slabs": cut(quad_taps(grid=(1, 40, 7, 5, 6)), 3, 2),
        "quantize_slabs": cut(quantize(grid=(1, 40, 7, 5, 6)), 3, 2),
        "quad_pool": quad_pool(),
        "quad_pool_slabs": slab_quad_pool()[0],
        "quad_mean": quad_mean()[0],
        "quad_mean_slabs": quad_mean(batch=1, slabs=2, signed=True)[0],
        "quad_rows": quad_rows(),
        "quad_rows_dense": quad_rows(dense=True, x_bounds=(-127, 127)).changed(act=["silu"]),
        "quad_depthwise": quad_depthwise(),
        "quad_depthwise_5x5": quad_depthwise(
            kernel=(5, 5), stride=1, out=(9, 8), before=(2, 2), table=True, signed=True
        ),
        "quad_depthwise_large": quad_depthwise(shape=(1, 2, 6, 140), out=(3, 70), kernel=(13, 2), before=(6, 0)),
        "quad_depthwise_slabs": slab_quad_depthwise()[0],
        "quad_sum": quad_sum(),
        "quad_table": quad_table(same=True),
        "recurrent": recurrent(parts=3)[0],
        "recurrent_lstm": recurrent(kind="lstm", directions=2, parts=5, hidden=40)[0],
        "recurrent_outside": recurrent(kind="tanh", directions=2, external=True, batch=1)[0],
    }
