import hashlib
import importlib.util
import io
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "download_cifar10_dvs.py"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("download_cifar10_dvs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def archive(name: str, count: int = 3) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for i in range(count):
            packed.writestr(zipfile.ZipInfo(f"{name}/cifar10_{name}_{i}.aedat"), f"{name} {i}" * 50)
    return content.getvalue()


@pytest.fixture
def server(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str | None]]:
    """Stands in for figshare with ten archives of three files; yields the Range header of every request."""
    ranges: list[str | None] = []
    files = {f"/{number}": archive(name) for name, (number, _) in script.ARCHIVES.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content, asked = files[self.path], self.headers["Range"]
            ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            self.send_response((206 if asked else 200) if start < len(content) else 416)
            self.send_header("Content-Length", str(max(len(content) - start, 0)))
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(script, "ADDRESS", f"http://127.0.0.1:{http.server_port}/{{}}")
        monkeypatch.setattr(script, "PER_CLASS", 3)
        md5 = {name: hashlib.md5(archive(name)).hexdigest() for name in script.ARCHIVES}
        monkeypatch.setattr(script, "ARCHIVES", {name: (n, md5[name]) for name, (n, _) in script.ARCHIVES.items()})
        yield ranges
        http.shutdown()
        thread.join()


def test_the_list_has_the_ten_classes_and_well_formed_sums(script: ModuleType) -> None:
    assert list(script.ARCHIVES) == CLASSES
    assert len({number for number, _ in script.ARCHIVES.values()}) == 10
    assert all(len(bytes.fromhex(md5)) == 16 for _, md5 in script.ARCHIVES.values())


def test_all_classes_arrive_and_a_second_run_asks_for_nothing(
    script: ModuleType, server: list[str | None], tmp_path: Path
) -> None:
    assert script.main([str(tmp_path / "dvs")]) == 0
    assert sorted(path.name for path in (tmp_path / "dvs").iterdir()) == CLASSES
    for name in CLASSES:
        files = {path.name: path.read_text() for path in (tmp_path / "dvs" / name).iterdir()}
        assert files == {f"cifar10_{name}_{i}.aedat": f"{name} {i}" * 50 for i in range(3)}
    assert script.main([str(tmp_path / "dvs")]) == 0
    assert server == [None] * 10


@pytest.mark.parametrize("have", [0, 1, 100, -1, None])
def test_what_broke_off_is_continued(
    script: ModuleType, server: list[str | None], tmp_path: Path, have: int | None
) -> None:
    content = archive("cat")[:have]
    (tmp_path / "cat.zip.part").write_bytes(content)
    assert script.main([str(tmp_path), "cat"]) == 0
    assert server == [f"bytes={len(content)}-" if content else None]
    assert len(list((tmp_path / "cat").iterdir())) == 3


def test_a_wrong_sum_is_refused_and_nothing_is_unpacked(
    script: ModuleType, server: list[str | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cat.zip.part").write_bytes(b"other" * 20)
    assert script.main([str(tmp_path), "cat"]) == 1
    assert "cat.zip.part did not match its md5 sum" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("have", [0, 100, -1])
def test_an_archive_that_is_cut_is_continued(
    script: ModuleType, server: list[str | None], tmp_path: Path, have: int
) -> None:
    content = archive("cat")[:have]
    (tmp_path / "cat.zip").write_bytes(content)
    assert script.main([str(tmp_path), "cat"]) == 0
    assert server == [f"bytes={len(content)}-" if content else None]
    assert [path.name for path in tmp_path.iterdir()] == ["cat"]


def test_an_archive_with_other_content_is_not_unpacked_but_fetched_by_the_next_run(
    script: ModuleType, server: list[str | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cat.zip").write_bytes(archive("cat").replace(b"cat 1", b"cat 7"))
    assert script.main([str(tmp_path), "cat"]) == 1
    assert "did not match its md5 sum" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert script.main([str(tmp_path), "cat"]) == 0
    assert (tmp_path / "cat" / "cifar10_cat_1.aedat").read_text() == "cat 1" * 50


def test_a_server_that_falls_silent_is_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, never answers
        monkeypatch.setattr(script, "ADDRESS", f"http://127.0.0.1:{silent.getsockname()[1]}/{{}}")
        assert script.main([str(tmp_path), "cat"]) == 1
    assert re.fullmatch("error: .*timed out.*\n", capsys.readouterr().err)


def test_an_unpacking_that_broke_off_is_done_again(
    script: ModuleType, server: list[str | None], tmp_path: Path
) -> None:
    (tmp_path / "cat.zip").write_bytes(archive("cat"))
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "cifar10_cat_0.aedat").write_text("cat 0" * 50)
    assert script.main([str(tmp_path), "cat"]) == 0
    assert server == []
    assert sorted(p.name for p in (tmp_path / "cat").iterdir()) == [f"cifar10_cat_{i}.aedat" for i in range(3)]


def test_without_a_network_it_is_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "ADDRESS", "http://127.0.0.1:9/{}")  # nobody listens there
    assert script.main([str(tmp_path), "cat"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


ANSWERS = {  # what a server that is asked for the rest may say instead: status, headers, body
    "a page in its place": (200, {}, b"<html>Sorry, this is down for maintenance</html>" * 9),
    "nothing": (200, {}, b""),
    "less than is there": (200, {"Content-Length": "4000"}, archive("cat")[:50]),
    "another part": (206, {"Content-Range": "bytes 0-99/100"}, archive("cat")[:100]),
    "an error": (503, {}, b"<html>busy</html>"),
    "a refusal": (403, {}, b"<html>not you</html>"),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_no_archive_costs_nothing_that_was_there(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    status, headers, body = answer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    begun = archive("cat")[:200]
    (tmp_path / "cat.zip.part").write_bytes(begun)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(script, "ADDRESS", f"http://127.0.0.1:{http.server_port}/{{}}")
        monkeypatch.setattr(script, "TIMEOUT", 2)
        assert script.main([str(tmp_path), "cat"]) == 1
        http.shutdown()
        thread.join()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"cat.zip.part": begun}


def test_a_server_that_starts_over_replaces_what_was_there_once_it_sent_more(
    script: ModuleType, server: list[str | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cat.zip.part").write_bytes(archive("cat")[:200])
    request = script.Request
    monkeypatch.setattr(script, "Request", lambda url, headers: request(url))  # it never hears of a range
    assert script.main([str(tmp_path), "cat"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cat"]
