"""What is printed: readable on any terminal, and nobody has to read to the end."""

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spikeback.cli.main import main
from spikeback.cli.output import Terminal, forgiving_output


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """printed(encoding, word, ...): what the command writes to a terminal of this encoding."""

    def call(encoding: str, *words: Any) -> str:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors="strict"))
        with suppress(SystemExit), forgiving_output():
            words[0]() if callable(words[0]) else main([str(word) for word in words])
        return raw.getvalue().decode(encoding)

    return call


@pytest.fixture(params=["gone at once", "gone after a line"])
def left(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], None]]:
    """left(): from now on standard output is a pipe whose reader leaves. To be called in the test: between a fixture
    and its test pytest sets `sys.stdout` anew.
    """
    read, write = os.pipe()
    stream: Any = open(write, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - of a number, and closed below
    if request.param == "gone at once":
        os.close(read)
    else:
        first = stream.write

        def write_once(text: str) -> int:
            count = first(text)
            stream.flush()
            if stream.write is not first:
                stream.write = first
                os.close(read)
            return count

        stream.write = write_once
    yield lambda: monkeypatch.setattr(sys, "stdout", stream)
    stream.close()  # raises what an exit of the interpreter would have to say


SHOWN = {  # of a line of a table
    "utf-8": "│ 6 × 10⁻⁴ │ 78.1±0.4 │ – ██▌ λ ¹ │",
    "ascii": "| 6 x 10-4 | 78.1~0.4 | - ### ? 1 |",
    "latin-1": "| 6 × 10-4 | 78.1±0.4 | - ### ? ¹ |",
    "cp1252": "| 6 × 10-4 | 78.1±0.4 | – ### ? ¹ |",
}


@pytest.mark.parametrize("encoding", SHOWN)
def test_what_a_terminal_cannot_show_is_replaced(encoding: str, printed: Callable[..., str]) -> None:
    assert printed(encoding, lambda: Terminal().print(SHOWN["utf-8"])) == f"{SHOWN[encoding]}\n"


def test_a_command_without_its_characters(printed: Callable[..., str]) -> None:
    text = printed("ascii", "tables", "--table", 1)
    assert "Shortcut Back-propagation" in text


def test_a_file_name_that_is_no_text_can_be_printed(printed: Callable[..., str], tmp_path: Path) -> None:
    for name in ("tea", os.fsdecode(b"caf\xe9")):
        (tmp_path / "drinks" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / "drinks" / name / f"{i}.png")
    (tmp_path / "drinks" / name / "3.png").touch()
    text = printed("utf-8", "data", "check", tmp_path / "drinks", "--sheet", tmp_path / "sheet.png")
    assert "/caf?/3.png" in text


def test_standard_output_is_left_as_it_was(printed: Callable[..., str]) -> None:
    printed("ascii", "tables", "--table", 1)
    assert sys.stdout.errors == "strict"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--help"], ["compare", "--help"], ["tables"], ["tables", "--format", "json"]], ids=" ".join
)
def test_a_reader_may_leave(words: list[str], left: Callable[[], None], capfd: pytest.CaptureFixture[str]) -> None:
    left()
    code = None
    try:
        main(words)
    except SystemExit as leaving:
        code = leaving.code
    assert not code
    assert capfd.readouterr().err == ""


def test_a_mistake_stays_a_mistake_when_nobody_reads(left: Callable[[], None]) -> None:
    left()
    with pytest.raises(SystemExit) as leaving:
        main(["tables", "nowhere"])
    assert leaving.value.code == 2


def test_another_broken_pipe_is_no_success(monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]) -> None:
    def broken(*_: Any) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("spikeback.lab.paper.command.result_files", broken)
    assert "a process" in refused("tables", code=1)


def test_a_folder_named_like_markup(printed: Callable[..., str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "[red]" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / "[red]" / name / f"{i}.png")
    sheet = tmp_path / "[red]" / f"{'long' * 40}.png"
    assert f"contact sheet  {sheet}\n" in printed("utf-8", "data", "check", tmp_path / "[red]", "--sheet", sheet)
