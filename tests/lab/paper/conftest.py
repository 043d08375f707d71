"""The command `spikeback tables`, called in this process, and the committed results it reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture
def tables(command: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """tables(folder, ..., columns=80): calls `spikeback tables` with these words, on a console of that width."""

    def call(*words: object, columns: int = 80) -> Any:
        monkeypatch.setenv("COLUMNS", str(columns))
        return command("tables", *words)

    return call


@pytest.fixture
def refused(refused: Call) -> Call:
    """refused(*words): the one line that `spikeback tables` answers a mistake with; nothing is printed beside it."""
    return lambda *words: refused("tables", *words, alone=True)


@pytest.fixture(scope="session")
def committed() -> Path:
    """The folder of the results that the repository holds."""
    return Path(__file__).parents[3] / "results"
