"""The look-up: the folder is the list, names are file names, and unknown ones get help."""

import pkgutil
import sys
from pathlib import Path

import pytest

import openwork
from openwork import plugins
from openwork.constraints.base import Constraint
from openwork.errors import UsageError
from openwork.solvers.base import Solver

ROOMS: dict[str, type] = {"constraints": Constraint, "solvers": Solver}


@pytest.mark.parametrize(("room", "base"), ROOMS.items(), ids=ROOMS.keys())
def test_every_file_of_a_room_is_one_plug_in(room: str, base: type) -> None:
    folder = Path(openwork.__file__).parent / room
    files = {p.stem.rstrip("_") for p in folder.glob("*.py") if not p.stem.startswith("_") and p.stem != "base"}
    found = plugins.every(room, base)
    assert set(found) == files == set(plugins.names(room))
    for name, cls in found.items():
        assert issubclass(cls, base) and cls is not base
        assert cls.kind() == name
        # What lets `openwork.Block` find block.py.
        assert cls.__name__.lower() == name.replace("_", "")
        assert getattr(openwork, cls.__name__) is cls


@pytest.mark.parametrize(("room", "base"), ROOMS.items(), ids=ROOMS.keys())
def test_every_plug_in_is_documented_field_by_field(room: str, base: type) -> None:
    for name, cls in plugins.every(room, base).items():
        doc = cls.__doc__ or ""
        assert "Source:" in doc and ">>>" in doc, f"{room}/{name} needs an example and its source in the docstring"
        assert cls.EXAMPLES
        for field, info in cls.model_fields.items():
            assert info.description, f"{room}/{name}: field {field} has no docstring"


def test_constraints_say_whether_their_projection_is_exact() -> None:
    for name, cls in plugins.every("constraints", Constraint).items():
        word = "exact" if cls.EXACT else "heuristic"
        assert word in (cls.__doc__ or ""), f"constraints/{name}: the docstring must say {word!r}"


@pytest.mark.parametrize("room", [m.name for m in pkgutil.iter_modules(openwork.__path__) if m.ispkg])
def test_names_are_sorted_and_leave_out_base_and_underscores(room: str) -> None:
    names = plugins.names(room)
    assert list(names) == sorted(set(names))
    assert "base" not in names and not any(name.startswith("_") for name in names)


def test_an_unknown_name_lists_near_and_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"unknown constraint 'blok'; did you mean block, block_row\? known: and, block, block_column"
    ):
        plugins.find("constraints", "blok", Constraint)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Blok'"):
        openwork.Blok  # noqa: B018


def test_a_module_without_a_class_is_a_programming_error(tmp_path: Path) -> None:
    import openwork.constraints as room

    (tmp_path / "nothing_here.py").write_text("x = 1\n")
    # In place: the look-up and the import system read the same list.
    room.__path__.append(str(tmp_path))
    plugins.names.cache_clear()
    try:
        with pytest.raises(TypeError, match="nothing_here must define one public Constraint"):
            plugins.find("constraints", "nothing_here", Constraint)
    finally:
        room.__path__.remove(str(tmp_path))
        sys.modules.pop("openwork.constraints.nothing_here", None)
        plugins.names.cache_clear()


DOCTESTED = ["constraints", "solvers", "recipes", "training"]


@pytest.mark.parametrize("room", DOCTESTED)
def test_examples_in_docstrings_run(room: str) -> None:
    import doctest
    import importlib

    import torch

    package = importlib.import_module(f"openwork.{room}")
    attempted = 0
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        outcome = doctest.testmod(importlib.import_module(found.name), extraglobs={"torch": torch})
        assert outcome.failed == 0, found.name
        attempted += outcome.attempted
    assert attempted > 0
