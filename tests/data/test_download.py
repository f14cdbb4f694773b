"""`openwork data get` against a server on this machine: whole, resumed, damaged, and out of reach."""

import contextlib
import hashlib
import http.server
import io
import tarfile
import threading

import pytest
import torch
from safetensors.torch import load_file

from openwork import plugins
from openwork.data import _download
from openwork.data._download import SOURCES, Remote, Source, download, get, to_safetensors, untar
from openwork.errors import DataError, UsageError

CONTENT = bytes(range(256)) * 4096


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `files`; honours Range; `cut` ends a response early, as a broken connection does."""

    files: dict[str, bytes]
    cut: int | None
    ranges: bool
    requests: list[str]

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")) if self.ranges else 0
        type(self).requests.append(f"{self.path}@{start}")
        content = self.files.get(self.path.lstrip("/"))
        if content is None or start >= len(content):
            self.send_error(404 if content is None else 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = len(content) if self.cut is None else self.cut
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Own", (Handler,), {"files": {}, "cut": None, "ranges": True, "requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_port}/"
        yield handler
        running.shutdown()
        thread.join()


def remote(server, name, content, **changes):
    server.files[name] = content
    return Remote(server.url + name, changes.pop("digest", hashlib.md5(content).hexdigest()), **changes)


def test_a_file_arrives_whole_with_progress(server, tmp_path):
    seen = []
    download(remote(server, "a.bin", CONTENT), tmp_path / "a.bin", lambda *a: seen.append(a))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert seen[-1] == ("a.bin", len(CONTENT), len(CONTENT)) and len(seen) > 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, ranges):
    wanted, server.cut = remote(server, "a.bin", CONTENT), 300_000
    with pytest.raises(DataError, match=r"a.bin cannot be fetched.*goes on where it stopped"):
        download(wanted, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:300_000] and not (tmp_path / "a.bin").exists()
    server.cut, server.ranges = None, ranges
    download(wanted, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests[-1] == ("/a.bin@300000" if ranges else "/a.bin@0")


def test_a_part_that_is_already_whole_needs_only_its_checksum(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    download(remote(server, "a.bin", CONTENT), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    with pytest.raises(DataError, match="its md5 is not 00ff; try again"):
        download(remote(server, "a.bin", CONTENT, digest="00ff"), tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_server_out_of_reach_is_named_with_the_way_out(server, tmp_path):
    gone = Remote(server.url + "nothing.bin", "00")
    with pytest.raises(
        DataError, match=r"nothing.bin cannot be fetched \(Not Found\).*put the file at .*nothing.bin yourself"
    ):
        download(gone, tmp_path / "nothing.bin")
    with pytest.raises(DataError, match="cannot be fetched"):
        download(Remote(f"file://{tmp_path}/absent", "00"), tmp_path / "absent")


def test_get_fetches_what_is_missing_and_nothing_twice(server, tmp_path):
    parts = tuple(remote(server, name, name.encode() * 999) for name in ("one.gz", "two.gz"))
    sources = {"toy": Source("toy", parts)}
    assert get("toy", tmp_path, sources=sources) == tmp_path / "toy"
    assert {p.name for p in (tmp_path / "toy").iterdir()} == {"one.gz", "two.gz"}
    (tmp_path / "toy" / "two.gz").unlink()
    get("toy", tmp_path, sources=sources)
    assert server.requests == ["/one.gz@0", "/two.gz@0", "/two.gz@0"]


def tar_of(members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def test_an_archive_is_unpacked_flat_and_cannot_escape(server, tmp_path):
    packed = tar_of({"deep/inside/a.bin": b"aaa", "../../evil.bin": b"bbb", "/abs.bin": b"ccc"})
    sources = {"toy": Source("toy", (remote(server, "x.tar.gz", packed, makes=("a.bin",)),), untar)}
    get("toy", tmp_path / "root", sources=sources)
    assert {p.name for p in (tmp_path / "root/toy").iterdir()} == {"a.bin", "evil.bin", "abs.bin"}
    assert [p.name for p in tmp_path.iterdir()] == ["root"], "nothing outside the folder"


def test_an_archive_without_what_it_should_hold_is_named(server, tmp_path):
    sources = {"toy": Source("toy", (remote(server, "x.tar.gz", tar_of({"b": b""}), makes=("a.bin",)),), untar)}
    with pytest.raises(DataError, match=r"x.tar.gz holds no a.bin; its publisher has changed it"):
        get("toy", tmp_path, sources=sources)


def test_published_checkpoints_become_safetensors(tmp_path):
    state = {"module.conv1.weight": torch.ones(2, 2), "module.bn1.num_batches_tracked": torch.tensor(3)}
    torch.save({"state_dict": state, "best_prec1": 91.73}, tmp_path / "resnet20-12fca82f.th")
    to_safetensors(tmp_path / "resnet20-12fca82f.th", tmp_path)
    found = load_file(tmp_path / "cifar10_resnet20.safetensors")
    assert found.keys() == {"conv1.weight"} and torch.equal(found["conv1.weight"], torch.ones(2, 2))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": tmp_path}, tmp_path / "resnet20-12fca82f.th")
    with pytest.raises(DataError, match="is not the checkpoint that it was"):
        to_safetensors(tmp_path / "resnet20-12fca82f.th", tmp_path)


def test_unknown_names_and_unwritable_folders_are_named(tmp_path):
    with pytest.raises(UsageError, match="unknown data set to get 'mnst'; did you mean mnist"):
        get("mnst", tmp_path)
    (tmp_path / "mnist").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"mnist: cannot write to .*mnist: File exists; free space"):
        get("mnist", tmp_path)


def test_a_set_that_people_fetch_themselves_is_found_or_explained(tmp_path):
    with pytest.raises(DataError, match=r"stsb is not fetched by openwork; in .*stsb, put train.tsv, dev.tsv"):
        get("stsb", tmp_path)
    (tmp_path / "glue/stsb").mkdir(parents=True)
    (tmp_path / "glue/stsb/test.tsv").touch()
    assert get("stsb", tmp_path) == tmp_path / "glue/stsb"


def test_every_set_can_be_fetched_or_says_how_to_get_it():
    by_hand = {name for name in plugins.names("data") if hasattr(plugins.module("data", name), "BY_HAND")}
    assert by_hand.isdisjoint(SOURCES) and by_hand | SOURCES.keys() | {"digits"} >= set(plugins.names("data"))


def test_what_get_makes_is_what_the_loaders_want():
    from openwork.data import cifar10
    from openwork.data._idx import FILES

    made = {name: {p for r in source.files for p in r.products} for name, source in SOURCES.items()}
    assert made["cifar10"] == {*cifar10.TRAIN_FILES, cifar10.TEST_FILE}
    assert made["mnist"] == made["fashion_mnist"] == {f"{f}.gz" for pair in FILES.values() for f in pair}
    assert made["weights"] == {f"cifar10_resnet{d}.safetensors" for d in (20, 32, 44, 56)}
    assert all(len(r.digest) >= 8 for s in _download.SOURCES.values() for r in s.files)
