"""Frozen, validated settings: what constraints, solvers and recipes are made of, and how their mistakes read.

`Config` is a pydantic model that cannot change after it was made. A wrong field raises an `OpenworkError` that names
the field, the value and the limit, whether the object is built in Python or read from YAML. `Plugin` is a `Config`
whose class is chosen by name: in YAML `{kind: block, shape: [4, 1], sparsity: 0.9}` is `Block(shape=(4, 1),
sparsity=0.9)`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from . import plugins
from .errors import OpenworkError, UsageError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _ModelMeta
else:  # The class has no public name; type checkers cannot see through a computed base.
    _ModelMeta = type(BaseModel)


class _ReadableErrors(_ModelMeta):
    """Turns pydantic's report into our one line when an object is built directly; nested objects keep their path."""

    ERROR: type[OpenworkError]

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **fields)
        except ValidationError as error:
            raise cls.ERROR(f"{cls.__name__}.{explain(error)}") from None


class Config(BaseModel, metaclass=_ReadableErrors):
    """Base of every settings object: frozen, no unknown fields, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    ERROR: ClassVar[type[OpenworkError]] = UsageError

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping):
            for name in fields:
                if name not in cls.model_fields:
                    raise ValueError(plugins.unknown("field", str(name), list(cls.model_fields)))
        return fields


class Plugin(Config):
    """A `Config` that is found by the name of the file which defines it."""

    ROOM: ClassVar[str]

    @classmethod
    def kind(cls) -> str:
        """The plug-in's name: `Block` in block.py is 'block'."""
        return cls.__module__.rpartition(".")[2].rstrip("_")

    @classmethod
    def parse(cls, value: Any) -> Self:
        """An instance from itself or from a mapping with `kind` and the fields of that kind."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or "kind" not in value:
            known = ", ".join(plugins.names(cls.ROOM))
            raise ValueError(f"{value!r} should be a mapping with a 'kind' (one of {known}) and its fields")
        fields = {name: field for name, field in value.items() if name != "kind"}
        try:
            found = plugins.find(cls.ROOM, str(value["kind"]), Plugin)
        except UsageError as error:
            raise ValueError(str(error)) from None
        if not issubclass(found, cls):
            fitting = [name for name, one in plugins.every(cls.ROOM, Plugin).items() if issubclass(one, cls)]
            raise ValueError(f"{value['kind']!r} does not go here; choose one of {', '.join(fitting)}")
        return found.model_validate(fields)

    @model_serializer(mode="wrap")
    def _with_kind(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind(), **serialize(self)}

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self)})"


def explain(error: ValidationError) -> str:
    """The first mistake in `error` as one line: `rules[0].constraint.sparsity: 1.2 is not in (0, 1)`."""
    first = error.errors(include_url=False)[0]
    path, cause = _path(first["loc"]), first.get("ctx", {}).get("error")
    if isinstance(cause, ValidationError):
        rest = explain(cause)
        return path + ("." if path and not rest.startswith((":", "[")) else "") + rest
    if first["type"] == "missing":
        return f"{path}: this field is missing"
    if first["type"] == "value_error":
        return f"{path}: {cause}"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{path}: {first['input']!r}: {message}"


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
