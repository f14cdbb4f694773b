"""`pytest -p elsewhere ...`: tests run here, the native library under them runs in a process of its own.

OPENWORK_REMOTE is the command that starts `openwork_remote`, perhaps on an emulated CPU.
"""

import atexit
import os
import shlex
import sys

import remote

import openwork.engine
from openwork.engine import _native as here

there = remote.module(shlex.split(os.environ["OPENWORK_REMOTE"]), here)
atexit.register(there.close)
sys.modules["openwork.engine._native"] = openwork.engine._native = there


def pytest_report_header():
    return f"native library in a process of its own: {', '.join(there.isas())}; {' '.join(there.cpu_features())}"
