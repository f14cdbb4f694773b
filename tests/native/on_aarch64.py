"""`pytest -p on_aarch64 ...`: tests run here, the native library under them runs on an emulated aarch64.

OPENWORK_REMOTE is the command that starts `openwork_remote` there.
"""

import atexit
import os
import shlex
import sys

import remote

import openwork.engine
from openwork.engine import _native as here

there = remote.module(shlex.split(os.environ["OPENWORK_REMOTE"]), here)
atexit.register(there.connection.close)
sys.modules["openwork.engine._native"] = openwork.engine._native = there


def pytest_report_header():
    return f"native library at the other end of a pipe: {', '.join(there.isas())}; {' '.join(there.cpu_features())}"
