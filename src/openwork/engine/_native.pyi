"""The compiled part, for type checkers: its functions are described and checked where they are defined, in C++."""

from typing import Any

def __getattr__(name: str) -> Any: ...
