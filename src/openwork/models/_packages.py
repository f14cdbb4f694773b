"""Libraries and weight files that some models need, from optional packages: the extra `zoo`."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from ..errors import MissingDependencyError


def library(module: str, needed_by: str) -> ModuleType:
    """The module, imported; `MissingDependencyError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise missing(module, needed_by) from None


def file(package: str, path: str, needed_by: str) -> Path:
    """A file that an installed package brings; its code is not run."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise missing(package.replace("_", "-"), needed_by)
    return Path(found.submodule_search_locations[0], path)


def missing(package: str, needed_by: str) -> MissingDependencyError:
    """What is not installed, what wants it, and what to type."""
    return MissingDependencyError(f"{needed_by} needs {package}: pip install {package}, or pip install 'openwork[zoo]'")
