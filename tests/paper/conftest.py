"""The command, called in this process, and the committed results it reads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from spikeback.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What one call of the command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def tables(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """tables(folder, ..., columns=80): calls `spikeback tables` with these words, on a console of that width."""

    def call(*words: object, columns: int = 80) -> Outcome:
        monkeypatch.setenv("COLUMNS", str(columns))
        capfd.readouterr()
        code = 0
        try:
            main(["tables", *map(str, words)])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


@pytest.fixture
def refused(tables: Callable[..., Outcome]) -> Callable[..., str]:
    """refused(*words): the one line that `spikeback tables` answers a mistake with; nothing is printed beside it."""

    def call(*words: object) -> str:
        outcome = tables(*words)
        assert outcome.code == 2, outcome
        assert outcome.err.startswith("error: ")
        assert len(outcome.err.splitlines()) == 1
        assert "Traceback" not in outcome.err + outcome.out
        assert not outcome.out
        return outcome.err

    return call


@pytest.fixture(scope="session")
def committed() -> Path:
    """The folder of the results that the repository holds."""
    return Path(__file__).parents[2] / "docs" / "results"
