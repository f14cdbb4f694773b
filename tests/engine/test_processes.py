"""Engines in many threads and in children of a fork."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from small_models import compiled, lively
from torch import nn

import openwork


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
    engine = compiled(lively(model, sparsity=0.5), (1, 3, 32, 32), threads=2)
    found = tmp_path_factory.mktemp("engine") / "a.openwork"
    engine.save(found)
    return found


def images(seed):
    return np.random.default_rng(seed).standard_normal((2, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("engines", [1, 4])
def test_many_threads_on_one_engine_or_on_one_each(path, engines):
    loaded = [openwork.load(path, threads=2) for _ in range(engines)]
    wanted = {seed: loaded[0](images(seed)) for seed in range(8)}

    def right(seed):
        engine = loaded[seed % engines]
        return all(np.array_equal(engine(images(seed)), wanted[seed]) for _ in range(25))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, wanted))


def test_python_goes_on_while_an_engine_runs(path):
    """Two threads must both make progress: the engine gives the interpreter away while it computes."""
    engine = openwork.load(path, threads=1)
    x = np.concatenate([images(seed) for seed in range(100)])
    done = threading.Event()
    thread = threading.Thread(target=lambda: (engine(x), done.set()))
    count = 0
    thread.start()
    while not done.is_set():
        count += 1
    thread.join()
    assert count > 100


FORK = """
import os, sys, threading
import numpy as np
import openwork

engine = openwork.load(sys.argv[1], threads=2)
others = [openwork.load(sys.argv[1], threads=1) for _ in range(3)]
x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
wanted = engine(x)
stop = False

def work(one):
    while not stop:
        one(x)

# at each fork, other threads are in the middle of a run of these engines
threads = [threading.Thread(target=work, args=(one,)) for one in (engine, *others)]
for t in threads:
    t.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        fine = all(np.array_equal(one(x), wanted) for one in (engine, *others))
        os._exit(0 if fine and np.array_equal(openwork.load(sys.argv[1], threads=2)(x), wanted) else 1)
    assert os.waitpid(child, 0)[1] == 0
stop = True
for t in threads:
    t.join()
assert np.array_equal(engine(x), wanted)
print("fine")
"""


def test_a_child_of_a_fork_can_use_every_engine_whatever_other_threads_were_doing(path):
    done = subprocess.run([sys.executable, "-c", FORK, str(path)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "fine\n", f"exit code {done.returncode}\n{done.stderr[-2000:]}"


POOL = """
import multiprocessing, sys
import numpy as np
import openwork

engine = openwork.load(sys.argv[1], threads=2)
x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
wanted = engine(x)

def work(_):
    return np.array_equal(engine(x), wanted)

with multiprocessing.get_context("fork").Pool(3) as pool:
    print(all(pool.map(work, range(12))))
"""


def test_a_pool_of_forked_processes(path):
    done = subprocess.run([sys.executable, "-c", POOL, str(path)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", f"exit code {done.returncode}\n{done.stderr[-2000:]}"
