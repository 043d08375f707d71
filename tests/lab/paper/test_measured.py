"""`spikeback tables RUN...`: measured results beside the paper's, told apart from them, merged over folders."""

import copy
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeback.train import Recipe
from spikeback.train.results import flat

from .reading import FORMATS, figures, in_order, shows, text_of
from .transcription import PRINTED

Tables = Callable[..., Any]
Refused = Callable[..., str]
METHODS = ("vanilla", "shortcut", "evolutionary")


@pytest.fixture
def demo(committed: Path) -> dict[str, Any]:
    """The committed demonstration's results, to be changed."""
    return json.loads((committed / "demo" / "results.json").read_text())


def write(folder: Path, results: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def moved(results: dict[str, Any], by: int = 100) -> dict[str, Any]:
    """The same recipe with other seeds, and other accuracies, on another machine."""
    other = copy.deepcopy(results)
    for item in (*other["planned"], *other["trials"]):
        item["seed"] += by
    for i, trial in enumerate(other["trials"]):
        trial["last_accuracy"] = trial["last_accuracy"] + 0.0313 + 0.0117 * i
        trial["best_accuracy"] = trial["best_accuracy"] + 0.0529 + 0.0071 * i
    other["environment"] |= {"platform": "elsewhere", "processor": "another", "threads": 64}
    other |= {"started": "2027-01-01T00:00:00+00:00", "command": "spikeback compare --config demo --out b"}
    return other


def accuracies(method: str, which: str, *parts: dict[str, Any]) -> list[float]:
    return [t[f"{which}_accuracy"] for results in parts for t in results["trials"] if t["method"] == method]


def shows_all(text: str, *parts: dict[str, Any]) -> bool:
    """Whether a text holds mean ± sample std over the seeds of all parts together, of every method, last and best."""
    values = [accuracies(method, which, *parts) for method in METHODS for which in ("last", "best")]
    return all(shows(text, statistics.fmean(v), statistics.stdev(v)) for v in values)


@pytest.mark.parametrize("format", ["terminal", "markdown", "html"])
@pytest.mark.parametrize("run", ["demo", "demo-exploding"])
@pytest.mark.slow
def test_committed_runs_are_shown(run: str, format: str, tables: Tables, committed: Path) -> None:
    results = json.loads((committed / run / "results.json").read_text())
    for folder in (committed, committed / run):
        outcome = tables(folder, "--format", format, columns=250)
        assert outcome.code == 0, outcome
        assert shows_all(text_of(outcome.out, format), results)


@pytest.mark.slow
def test_every_committed_run_is_shown(tables: Tables, committed: Path) -> None:
    text = tables(committed, "--format", "markdown").out
    pooled: dict[str, dict[int, float]] = {}  # last accuracy by seed, of every recipe, data and method
    for path in committed.rglob("results.json"):
        results = json.loads(path.read_text())
        recipe = flat(Recipe().as_dict()) | flat(results["config"]) | {"title": None}  # options that came later
        for trial in results["trials"]:
            key = json.dumps([recipe, results["dataset"]["hash"], results["environment"]["precision"], trial["method"]])
            pooled.setdefault(key, {})[trial["seed"]] = trial["last_accuracy"]
    assert pooled
    for key, by_seed in pooled.items():
        values = [*by_seed.values()]
        spread = statistics.stdev(values) if len(values) > 1 else None
        assert shows(text, statistics.fmean(values), spread), key


@pytest.mark.parametrize("format", FORMATS)
def test_results_leave_the_papers_figures_as_they_are(format: str, tables: Tables, committed: Path) -> None:
    shown = figures(tables(committed, "--format", format, columns=250).out, format)
    assert in_order([(row.accuracy, row.std) for row in PRINTED], shown) == []


@pytest.mark.parametrize("format", FORMATS)
def test_the_embedded_set_is_not_the_same_protocol(format: str, tables: Tables, committed: Path) -> None:
    page = tables(committed / "demo", "--format", format, columns=250).out
    text = " ".join(text_of(page, format).split())
    assert "Fashion-MNIST" in text  # what differs first of all


def test_the_row_of_a_run_says_what_differs(tables: Tables, committed: Path, demo: dict[str, Any]) -> None:
    lines = tables(committed / "demo", "--format", "markdown").out.splitlines()
    for method in METHODS:
        values = accuracies(method, "last", demo)
        rows = [line for line in lines if shows(line, statistics.fmean(values), statistics.stdev(values))]
        assert rows
        for row in rows:
            assert re.search(r"data|Fashion-MNIST", row), row
            assert not re.search(r"\|\s*(yes|same|same protocol)\s*\|", row), row


def test_json_has_what_was_measured(tables: Tables, committed: Path, demo: dict[str, Any]) -> None:
    text = tables(committed / "demo", "--format", "json").out
    numbers = [float(number) for number in re.findall(r"(?<=[\s\[,:])\d+\.\d+(?:e-?\d+)?", text)]
    for method in METHODS:
        mean = statistics.fmean(accuracies(method, "last", demo))
        assert any(number == pytest.approx(scale * mean, abs=1e-9) for number in numbers for scale in (1, 100))


@pytest.mark.parametrize("format", ["terminal", "markdown", "html"])
def test_folders_of_the_same_recipe_merge(format: str, tables: Tables, demo: dict[str, Any], tmp_path: Path) -> None:
    other = moved(demo)
    a, b = write(tmp_path / "a", demo), write(tmp_path / "b", other)
    for folders in ((a, b), (b, a), (tmp_path,)):
        outcome = tables(*folders, "--format", format, columns=250)
        assert outcome.code == 0, outcome
        text = text_of(outcome.out, format)
        assert shows_all(text, demo, other)
        assert not shows_all(text, demo)  # not a row of its own as well
        assert not shows_all(text, other)


def test_recipes_that_differ_do_not_merge(tables: Tables, demo: dict[str, Any], tmp_path: Path) -> None:
    other = moved(demo)
    other["config"]["train"]["lr"] = 0.7
    folders = write(tmp_path / "a", demo), write(tmp_path / "b", other)
    text = tables(*folders, "--format", "markdown").out
    assert shows_all(text, demo)
    assert shows_all(text, other)
    assert not shows_all(text, demo, other)


def test_datasets_that_differ_do_not_merge(tables: Tables, demo: dict[str, Any], tmp_path: Path) -> None:
    other = moved(demo)
    other["dataset"]["hash"] = "0" * 64
    text = tables(write(tmp_path / "a", demo), write(tmp_path / "b", other), "--format", "markdown").out
    assert shows_all(text, demo)
    assert shows_all(text, other)


def test_a_run_given_twice_counts_once(tables: Tables, demo: dict[str, Any], tmp_path: Path) -> None:
    a = write(tmp_path / "a", demo)
    copied = write(tmp_path / "b", demo)
    for folders in ((a, a), (tmp_path, a), (a, copied)):
        outcome = tables(*folders, "--format", "markdown")
        assert outcome.code == 0, outcome
        assert shows_all(outcome.out, demo)


@pytest.mark.parametrize("field", ["last_accuracy", "best_accuracy"])
def test_one_seed_with_two_accuracies(field: str, refused: Refused, demo: dict[str, Any], tmp_path: Path) -> None:
    other = moved(demo)
    twice = copy.deepcopy(demo["trials"][0])
    twice[field] += 0.125
    other["trials"].append(twice)
    folders = write(tmp_path / "a", demo), write(tmp_path / "b", other)
    for words in (folders, (tmp_path,)):
        line = refused(*words)
        for folder in folders:
            assert str(folder / "results.json") in line
        assert twice["method"] in line
        assert re.search(rf"seed {twice['seed']}\b", line)


def test_one_seed_has_no_spread(tables: Tables, demo: dict[str, Any], tmp_path: Path) -> None:
    demo["trials"] = [t for t in demo["trials"] if t["method"] == "evolutionary"][:1]
    demo["trials"][0]["last_accuracy"] = 0.4321
    outcome = tables(write(tmp_path / "a", demo), "--format", "markdown")
    assert outcome.code == 0, outcome
    lines = [line for line in outcome.out.splitlines() if shows(line, 0.4321)]
    assert lines
    assert not any(re.search(r"43\.\d+\s*±|nan", line) for line in lines)


def test_folder_that_does_not_exist(refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path / "gone") in refused(tmp_path / "gone")
    assert not any(tmp_path.iterdir())


def test_folder_without_results(refused: Refused, committed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    line = refused(committed / "demo", tmp_path / "empty")
    assert str(tmp_path / "empty") in line
    assert "results.json" in line


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"schema": 2}', b'{"schema": 1}'])
def test_results_that_cannot_be_read(content: bytes, refused: Refused, demo: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "sound", demo)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_bytes(content)
    for words in ((tmp_path / "broken",), (tmp_path,)):
        assert str(tmp_path / "broken" / "results.json") in refused(*words)


def test_results_cut_short(refused: Refused, demo: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "run", demo) / "results.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refused(tmp_path / "run")


@pytest.mark.parametrize("words", [("--table", "5"), ("--table", "0"), ("--format", "pdf")])
def test_options_that_do_not_exist(words: tuple[str, ...], refused: Refused) -> None:
    assert words[0] in refused(*words)


def test_output_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused("--format", "json", "--out", tmp_path / "file" / "page.json")
    assert str(tmp_path / "file" / "page.json") in line
    assert (tmp_path / "file").read_text() == "not a folder"
