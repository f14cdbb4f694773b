"""Every engine to compare with gives PyTorch's answer, or says in one line why it cannot."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from openwork import plugins
from openwork.engine.peers import _process, _worker
from openwork.engine.peers._process import ProcessPeer
from openwork.engine.peers.base import Availability, Peer
from openwork.errors import MissingDependencyError, PeerError

# Compiling, converting or tuning takes from several seconds to minutes.
SLOW = {"torch_compile", "litert", "tvm", "openvino_int8", "openvino_int8_vnni"}
PEERS = [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in plugins.names("engine.peers")]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()


@pytest.fixture(autouse=True)
def _no_search(monkeypatch, tmp_path):
    """A single trial of each task takes TVM minutes; what it computes does not depend on them."""
    monkeypatch.setenv("OPENWORK_TVM_TRIALS", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class TwoInputs(nn.Module):
    """As language models: ids and a mask, both whole numbers."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(50, 16), nn.Linear(16, 16)

    def forward(self, ids, mask):
        return self.head(self.table(ids)) * mask.unsqueeze(-1)


def usable(name):
    peer = plugins.find("engine.peers", name, Peer)()
    if not peer.available():
        pytest.skip(peer.available().reason)
    return peer


def close(peer, found, wanted):
    assert np.abs(found - wanted).max() <= peer.tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_gives_pytorchs_answer_or_says_what_it_needs(name, network):
    peer = plugins.find("engine.peers", name, Peer)()
    x = torch.randn(1, 1, 8, 8)
    if not (found := peer.available()):
        assert found.reason.startswith(f"{name} needs ") and "\n" not in found.reason
        with pytest.raises(MissingDependencyError):
            peer.prepare(network, (x,), 1)
        pytest.skip(found.reason)
    run = peer.prepare(network, (x,), threads=1)
    assert peer.version and set(peer.versions()) == set(peer.packages)
    wanted = network(x).detach().numpy()
    for _ in range(2):  # an engine may overwrite its inputs
        (found,) = run()
        assert found.dtype == np.float32 and found.shape == wanted.shape
        close(peer, found, wanted)


@pytest.mark.parametrize("name", PEERS)
def test_whole_numbers_in_several_inputs(name):
    peer = usable(name)
    torch.manual_seed(0)
    network = TwoInputs().eval()
    ids, mask = torch.randint(0, 50, (1, 7)), torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    try:
        (found,) = peer.prepare(network, (ids, mask), threads=1)()
    except PeerError as error:
        assert str(error).startswith(f"{name} ") and "\n" not in str(error)
        pytest.skip(str(error))
    close(peer, found, network(ids, mask).detach().numpy())


def test_a_peer_that_is_not_installed_is_named_with_its_pip_line(network):
    class Absent(Peer):
        packages = ("nosuchengine", "torch")

        def prepare(self, model, example_inputs, threads):
            self.check()

    found = Absent().available()
    assert not found and isinstance(found, Availability) and Absent().version == ""
    with pytest.raises(MissingDependencyError, match=r"pip install nosuchengine$"):
        Absent().prepare(network, (), 1)


class Elsewhere(ProcessPeer):
    """A peer for tests: what it does in the other process is in `load` of the module that `name` names."""

    packages = ("numpy",)
    name = "elsewhere"

    def export(self, model, example_inputs, folder):
        self.folder = folder

    def load(self, folder, inputs, threads):
        raise AssertionError("only in the other process")


def test_an_environment_of_its_own_is_looked_for_where_make_puts_it_or_the_variable_says(monkeypatch, tmp_path):
    class Own(Elsewhere):
        environment = "own"

    monkeypatch.delenv("OPENWORK_PEER_OWN", raising=False)
    assert Own().python == Path(sys.prefix) / "peers" / "own" / "bin" / "python"
    reason = r"needs numpy in an environment of its own: make peers, or set OPENWORK_PEER_OWN to a Python that has it"
    with pytest.raises(MissingDependencyError, match=reason):
        Own().check()
    monkeypatch.setenv("OPENWORK_PEER_OWN", str(tmp_path / "bin" / "python"))
    assert not Own().available()
    described = tmp_path / "lib" / "python3.11" / "site-packages" / "numpy-1.2.3.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.2.3\n")
    assert Own().available() and Own().version == "1.2.3"


WORKER = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    %s
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('lost its way', file=sys.stderr); sys.exit(3)", r"^elsewhere ended with code 3: lost its way$"),
        ("import os; os.abort()", rf"^elsewhere ended with code -{signal.SIGABRT:d}: no word$"),
        ("print(json.dumps({'error': 'no such layer'}), flush=True)", r"^elsewhere cannot run .*: no such layer$"),
    ],
)
def test_an_engine_that_dies_in_its_process_is_an_error_of_that_peer(body, message, monkeypatch, tmp_path, network):
    script = tmp_path / "worker.py"
    script.write_text(WORKER % body)
    monkeypatch.setattr(_process, "WORKER", script)
    run = Elsewhere().prepare(network, (torch.zeros(1, 1, 8, 8),), 1)
    with pytest.raises(PeerError, match=message):
        run()


def test_the_other_process_and_its_files_go_with_the_peer(monkeypatch, tmp_path, network):
    script = tmp_path / "worker.py"
    script.write_text(WORKER % "pass")
    monkeypatch.setattr(_process, "WORKER", script)
    peer = Elsewhere()
    run = peer.prepare(network, (torch.zeros(1, 1, 8, 8),), 1)
    process = run._process
    assert (peer.folder / "input0.npy").is_file() and process.poll() is None
    run.close()
    assert process.poll() is not None and not peer.folder.exists()


def test_a_network_that_cannot_be_exported_leaves_nothing_behind(network):
    class Broken(Elsewhere):
        def export(self, model, example_inputs, folder):
            super().export(model, example_inputs, folder)
            raise PeerError("no")

    peer = Broken()
    with pytest.raises(PeerError, match=r"^no$"):
        peer.prepare(network, (torch.zeros(1),), 1)
    assert not peer.folder.exists()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Exception from core.cpp:117:\n\n no such layer\nmore", "ValueError: no such layer"),
        ("only:", "ValueError: only:"),
        ("", "ValueError"),
    ],
)
def test_what_an_engine_says_in_one_line(message, said):
    assert _worker.first_line(ValueError(message)) == said


def test_the_worker_finds_openwork_without_it_being_installed(tmp_path):
    np.save(tmp_path / "input0.npy", np.zeros((1, 2), np.float32))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    worker = Path(_process.__file__).with_name("_worker.py")
    # -S: without site-packages, where Openwork may be installed; NumPy is there by hand.
    home = tmp_path / "site"
    home.mkdir()
    for folder in Path(np.__file__).parents[1].glob("numpy*"):
        (home / folder.name).symlink_to(folder)
    command = [sys.executable, "-P", "-S", worker, "nosuch", tmp_path, "1"]
    found = subprocess.run(command, capture_output=True, text=True, env={**environment, "PYTHONPATH": str(home)})
    assert "UsageError: unknown peer 'nosuch'" in found.stdout, found.stdout + found.stderr
