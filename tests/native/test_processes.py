"""Programs survive forks, calls from many threads and a system that grants no more threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import native_steps as steps
import numpy as np

from openwork.engine import _native

HERE = Path(__file__).parent


def in_a_process(script: str) -> str:
    """What a script prints; a hang or a crash is a failure."""
    head = f"import sys; sys.path.insert(0, {str(HERE)!r})\nimport native_steps as steps\n"
    done = subprocess.run([sys.executable, "-c", head + script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-2000:]}"
    return done.stdout


FORK = """
import gc, os
from openwork.engine import _native

case = steps.taps(row_chunks=3, tile_chunks=3, grid=(4, 80, 9, 8, 8))
program = _native.Program(len(case.arena), [], 3)
case.add(program)

def run():
    program.arena()[:] = case.arena
    program.run(0, 1, [])
    return program.arena().tobytes()

wanted = run()
for task in ("run", "run", "drop"):
    child = os.fork()
    if child == 0:
        if task == "drop":      # its threads belong to the parent: they must not be waited for
            del program, run
            gc.collect()
        os._exit(0 if task == "drop" or run() == wanted else 1)
    assert os.waitpid(child, 0)[1] == 0, task
assert run() == wanted
print("fine")
"""


def test_children_of_a_fork_can_run_or_drop_a_program_and_the_parent_goes_on():
    assert in_a_process(FORK) == "fine\n"


NO_THREADS = """
import resource
from openwork.engine import _native

case = steps.taps()
programs = []
for threads in (1000, 1):
    programs.append(_native.Program(len(case.arena), [], threads))
    case.add(programs[-1])
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))    # stacks of a thousand threads need more
try:
    programs[0].run(0, 1, [])
except RuntimeError as error:
    print(error)
programs[1].run(0, 1, [])
"""


def test_a_system_that_refuses_threads_is_an_error_and_no_crash():
    printed = in_a_process(NO_THREADS)
    assert printed.startswith("the system grants only") and "of 1000 threads" in printed


def test_calls_from_many_threads_do_not_disturb_each_other():
    rng = np.random.default_rng(0)
    case, _ = steps.copy(external=True)
    # in from buffer 0, through the arena, out to buffer 1
    x, y = case.arguments["x"], case.arguments["y"]
    into = case.changed(x={**x, "buffer": 0}, y={**y, "buffer": -1})
    out = case.changed(x={**y, "buffer": -1}, y={**y, "buffer": 1})
    sizes = [len(case.arena), len(case.buffers[0])]
    program = _native.Program(sum(sizes), sizes, 2)
    into.add(program)
    out.add(program)

    def right(x: np.ndarray) -> bool:
        alone = _native.Program(sum(sizes), sizes, 1, "reference")
        into.add(alone)
        out.add(alone)
        found, wanted = np.zeros(sizes[1], np.float32), np.zeros(sizes[1], np.float32)
        alone.run(0, 2, [x, wanted])
        for _ in range(50):
            program.run(0, 2, [x, found])
            if not np.array_equal(found, wanted):
                return False
        return bool(wanted.any())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, [steps.f32(sizes[0], rng) for _ in range(8)]))
