"""Look-up of plug-ins by file name: the folder is the list, so adding a plug-in is adding a file.

A plug-in is a module directly inside a room (`openwork.constraints.block`). Files whose name starts with an underscore
and the room's `base` are not plug-ins. A plug-in's name is its file's name, but for the underscore after a word that
Python keeps for itself (`and_.py` is 'and'); what the module offers is either

- the one class defined in it that derives from the room's base class (constraints, solvers, peers), or
- the function of the room's agreed name (`build` for models, `load` for data sets, `command` for the command line).
"""

import difflib
import importlib
import importlib.util
import inspect
import keyword
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from .errors import UsageError

T = TypeVar("T")


@cache
def names(room: str) -> tuple[str, ...]:
    """Names of all plug-ins in `room` ('constraints', 'engine.peers', ...), sorted."""
    # Found, not imported: a list of names must not cost the import of torch, or need it.
    package = importlib.util.find_spec(f"openwork.{room}")
    assert package is not None, f"there is no room {room!r}"
    found = (m.name.rstrip("_") for m in pkgutil.iter_modules(package.submodule_search_locations))
    return tuple(sorted(n for n in found if not n.startswith("_") and n != "base"))


def module(room: str, name: str) -> ModuleType:
    """The module of plug-in `name`; an unknown name lists the known ones and the nearest match."""
    if name not in names(room):
        one = room.rsplit(".")[-1].removesuffix("s")
        raise UsageError(unknown(one.removesuffix("e") if one.endswith("sse") else one, name, names(room)))
    return importlib.import_module(f"openwork.{room}.{name}{'_' * keyword.iskeyword(name)}")


def unknown(what: str, name: str, known: tuple[str, ...] | list[str]) -> str:
    """One line that says which names would have been right."""
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return f"unknown {what} {name!r}; {hint}known: {', '.join(known)}"


def find(room: str, name: str, base: type[T]) -> type[T]:
    """The class that plug-in `name` defines; it derives from the room's `base`."""
    home = module(room, name)
    found = [
        c
        for _, c in inspect.getmembers(home, inspect.isclass)
        if issubclass(c, base) and c.__module__ == home.__name__ and not c.__name__.startswith("_")
    ]
    if len(found) != 1:
        raise TypeError(f"{home.__name__} must define one public {base.__name__}, has {[c.__name__ for c in found]}")
    return found[0]


def every(room: str, base: type[T]) -> dict[str, type[T]]:
    """All plug-in classes of a room by name: what contract tests, docs and benchmarks iterate over."""
    return {name: find(room, name, base) for name in names(room)}


def by_class_name(rooms: tuple[str, ...], class_name: str) -> Any:
    """The class called `class_name` in any of `rooms`, or None. `Block` lives in block.py, `ADMM` in admm.py."""
    wanted = class_name.lower()
    for room in rooms:
        for name in names(room):
            if name.replace("_", "") == wanted:
                return getattr(module(room, name), class_name, None)
    return None
