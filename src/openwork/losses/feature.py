"""Distillation of features: layers inside the network shall give what the teacher's give."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor
from torch.nn import functional

from ..errors import ModelError
from .base import Loss, Outputs


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Feature(Loss):
    """sum_c w_c * MSE(student_c, teacher_c) over the layers c that are named, w_c = 1 unless said otherwise.

    With `compare="attention"` what is compared is where a layer looks: the mean square over its channels at each
    position, [batch, channels, ...] -> [batch, positions], each image's scaled to length 1.

    >>> loss = Feature(layers=["layer2", "layer3"], weight=5.0)

    Source: Yu et al. 2023 (GPUSQ-ViT), arXiv:2305.10727 (features, weights after their loss); Zagoruyko and Komodakis
    2016, arXiv:1612.03928 (attention).
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"layers": ("a", "b")},
        {"layers": ("b",), "compare": "attention", "weight": 5.0},
        {"layers": ("a", "b"), "shares": (0.5, 1.5)},
    )

    layers: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed), Field(min_length=1)]
    """Names of layers as `model.named_modules()` has them; one or a list."""
    compare: Literal["values", "attention"] = "values"
    """What of a layer's output is compared."""
    shares: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """A weight w for each layer in `layers`; none: 1 for each."""
    by_loss: bool = False
    """Weigh layers anew for retraining: each by its loss in the last epoch of shaping, the mean weight being 1; and
    for quantization by that in the last epoch before it. What pruning changed most is then corrected most."""

    @model_validator(mode="after")
    def _one_share_each(self) -> "Feature":
        if self.shares and len(self.shares) != len(self.layers):
            raise ValueError(f"shares has {len(self.shares)} weights for {len(self.layers)} layers; give one for each")
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(
                f"layers names a layer twice: {', '.join(self.layers)}; name each once, and weigh it in shares"
            )
        return self

    @property
    def hears(self) -> tuple[str, ...]:
        return self.layers

    def value(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        return self.value_and_parts(student, teacher, labels)[0]

    def value_and_parts(
        self, student: Outputs, teacher: Outputs | None, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.parts(student, teacher)
        parts, shares = list(found.values()), self.shares or (1.0,) * len(found)
        total = parts[0] * shares[0]
        for part, share in zip(parts[1:], shares[1:], strict=True):
            total = total + part * share
        return total, found

    def parts(self, student: Outputs, teacher: Outputs | None) -> dict[str, Tensor]:
        assert teacher is not None
        return {name: self._distance(name, student.layers[name], teacher.layers[name]) for name in self.layers}

    def after(self, means: Mapping[str, float]) -> Self:
        total = sum(means.get(name, 0.0) for name in self.layers)
        if not self.by_loss or not 0 < total < float("inf"):
            return self
        return self.model_copy(
            update={"shares": tuple(len(self.layers) * means.get(n, 0.0) / total for n in self.layers)}
        )

    def _distance(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        if self.compare == "attention":
            a, b = _attention(name, a), _attention(name, b)
        if a.shape != b.shape:
            what = "positions of layer" if self.compare == "attention" else "outputs of layer"
            sizes = " and ".join("x".join(map(str, x.shape)) for x in (a, b))
            raise ModelError(f"{what} {name!r} differ in shape between model and teacher: {sizes}; name another layer")
        return functional.mse_loss(a, b)


def _attention(name: str, x: Tensor) -> Tensor:
    if x.dim() < 3:
        shape = "x".join(map(str, x.shape))
        raise ModelError(f"layer {name!r} gives {shape}: there are no positions to look at; set compare to values")
    return functional.normalize(x.square().mean(1).flatten(1), dim=1)
