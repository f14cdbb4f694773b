"""A fork waits until no engine is in the middle of a run, so that the child finds every engine free to use.

A lock that another thread holds when the process forks would stay held in the child for ever, since that thread does
not exist there. (`subprocess` does not fork in this sense.)
"""

import os
import threading
import weakref
from typing import Any

_locks: "weakref.WeakSet[Any]" = weakref.WeakSet()
_guard = threading.Lock()
_held: list[Any] = []


class ForkSafeLock:
    """A lock that nobody holds in the child of a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        with _guard:
            _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _before() -> None:
    _guard.acquire()
    for lock in list(_locks):
        lock.__enter__()
        _held.append(lock)


def _after() -> None:
    while _held:
        _held.pop().__exit__()
    _guard.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
