"""CelebA's files from a local server in place of the official one, and read from the zip."""

import functools
import http.server
import io
import re
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from experiments.celeba import builder as celeba_builder
from experiments.celeba import command as experiment
from experiments.celeba.builder import FILES, Remote, load_celeba
from experiments.celeba.data import ARCHIVE, LABELS, PARTITION
from experiments.data.files import DataError, sha256
from experiments.trainer.config import run_main
from tests.experiments.official_scenes import write_celeba, zip_faces

# What Google Drive answers for a file that is too large for its virus scan.
PAGE = '<form action="/confirmed/{name}"><input name="confirm" value="t"><input name="id"></form>'


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; /drive/NAME is a page whose form leads to /confirmed/NAME."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/drive/"):
            page = PAGE.format(name=path.rpartition("/")[2]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)
            return
        self.path = path.removeprefix("/confirmed")
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The three official files of ten faces."""
    write_celeba(tmp_path / "files", (5, 2, 3))
    return tmp_path / "files"


@pytest.fixture
def server(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The builder's addresses lead to a server of that folder, its images zipped."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    handler = functools.partial(Handler, directory=str(files))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def point_to(base: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FILES:
        path = files / name
        remote = Remote(f"{base}/{name}", path.stat().st_size, sha256(path))
        monkeypatch.setitem(FILES, name, remote)


def refused(message: str, *args: Path) -> None:
    with pytest.raises(DataError, match=message) as info:
        load_celeba(*args)
    assert "\n" not in str(info.value)


def test_downloaded_zip_equals_the_folder(
    files: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    want = load_celeba(tmp_path / "a", files)
    zip_faces(files)
    point_to(server, files, monkeypatch)
    monkeypatch.setattr(downloader, "_DRIVE_URL", re.compile(".*/drive/"))
    archive = FILES[ARCHIVE]
    drive = archive._replace(url=f"{server}/drive/{ARCHIVE}")
    monkeypatch.setitem(FILES, ARCHIVE, drive)
    for got in (load_celeba(tmp_path / "b"), load_celeba(tmp_path / "c", files)):
        for part, other in zip(got[2:], want[2:], strict=True):
            np.testing.assert_array_equal(part.images, other.images)
            np.testing.assert_array_equal(part.labels, other.labels)
    assert "tensorflow" not in sys.modules


def test_a_wrong_file_is_refused_and_not_kept(
    files: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    zip_faces(files)
    point_to(server, files, monkeypatch)
    content = (files / LABELS).read_bytes()
    (files / LABELS).write_bytes(content.replace(b"-1", b" 1", 1))
    refused(f"{LABELS}: download of {LABELS} failed .checksum mismatch.*--data-dir", tmp_path / "c")
    (files / LABELS).write_bytes(content)
    assert len(load_celeba(tmp_path / "c").train.images) == 5
    (files / PARTITION).unlink()
    refused(f"{PARTITION} failed .*HTTP code: 404", tmp_path / "d")


def test_a_drive_page_without_a_link_is_refused(
    files: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    zip_faces(files)
    point_to(server, files, monkeypatch)
    monkeypatch.setattr(downloader, "_DRIVE_URL", re.compile(".*"))
    for name in FILES:  # the files themselves are no such page
        (files / name).write_text("<p>Quota exceeded</p>")
    refused(f"{PARTITION} failed .*confirmation link", tmp_path / "cache")


def test_without_a_network_it_says_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    for name, remote in FILES.items():
        monkeypatch.setitem(FILES, name, remote._replace(url=f"http://localhost:9/{name}"))
    args = f"--dataset celeba --epochs 1 --runs-dir {tmp_path} --cache-dir {tmp_path}".split()
    with pytest.raises(SystemExit) as stop:
        run_main(experiment.load, experiment.CelebaConfig, "celeba", args)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"celeba: http://localhost:9/{PARTITION}: download of {PARTITION}")
    assert "name their folder with --data-dir" in error
    assert not [r for r in caplog.records if r.name.startswith("urllib3")]  # no line a retry


def test_what_is_wrong_with_a_zip_is_one_line(files: Path, tmp_path: Path):
    zip_faces(files)
    path = files / ARCHIVE
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    refused(f"{ARCHIVE}: not a readable zip", tmp_path / "a", files)
    at = whole.index(b"000004.jpg") + 60
    path.write_bytes(whole[:at] + bytes(40) + whole[at + 40 :])
    refused("img_align_celeba/000004.jpg: not a readable image", tmp_path / "b", files)
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if not name.endswith("000002.jpg"):
                new.writestr(name, old.read(name))
    refused(f"{ARCHIVE}/img_align_celeba/000002.jpg: no such file", tmp_path / "c", files)
    path.unlink()
    refused(f"img_align_celeba or {ARCHIVE}: no such file", tmp_path / "d", files)


def test_addresses_and_checksums_are_those_that_tensorflow_datasets_registers():
    path = Path(str(tfds.core.tfds_path("datasets/celeb_a/checksums.tsv")))
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    registered = {name: Remote(url, int(size), checksum) for url, size, checksum, name in lines}
    assert celeba_builder.FILES == {name: registered[name] for name in (PARTITION, LABELS, ARCHIVE)}
