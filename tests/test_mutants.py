"""The list of faults that scripts/mutate.py puts into the package fits the package as it is."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def mutate() -> Any:
    spec = importlib.util.spec_from_file_location("mutate", SCRIPTS / "mutate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_mutant_can_be_made_and_has_an_answer(mutate: Any) -> None:
    found = mutate.mutants()
    assert len(found) >= 70
    assert {"ops", "nn", "models", "shortcut", "train", "doctor", "foreign", "data", "data/events", "export", "report",
            "cli"} <= {mutate.area(mutant) for mutant in found}  # fmt: skip
    answers = json.loads((SCRIPTS / "mutants.json").read_text(encoding="utf-8"))
    assert {mutant["name"] for mutant in found} == set(answers)
    assert {answer["outcome"] for answer in answers.values()} == {"caught"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"file": "src/none.py"}, "no file src/none.py"),
        ({"old": "no such text"}, "the old text is 0 times"),
        ({"old": "u"}, "times in src/a.py, not once"),
        ({"new": "(:"}, "is no Python"),
        ({"tests": ["tests/none.py"]}, "no tests tests/none.py"),
    ],
)
def test_a_mutant_that_cannot_be_made_is_named(mutate: Any, tmp_path: Path, changed: Any, said: str) -> None:
    for name, text in {"src/a.py": "u = 1\nfire = u > 2\n", "tests/test_a.py": ""}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text, encoding="utf-8")
    mutant = {"name": "fires at it", "file": "src/a.py", "old": "u > 2", "new": "u >= 2", "tests": ["tests/test_a.py"]}
    assert mutate.mutated(mutant, tmp_path) == "u = 1\nfire = u >= 2\n"
    with pytest.raises(ValueError, match=f"fires at it: .*{said}"):
        mutate.mutated(mutant | changed, tmp_path)


@pytest.mark.slow
def test_a_fault_is_caught_by_name_and_taken_out_again(mutate: Any, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("def fires(u):\n    return u > 2\n", encoding="utf-8")
    tests = {"test_a.py": "fires(2) is False", "test_b.py": "fires(3) is True"}
    for name, what in tests.items():
        text = f"from a import fires\n\n\ndef test_it():\n    assert {what}\n"
        (tmp_path / name).write_text(text, encoding="utf-8")
    mutant = {"name": "fires at it", "file": "src/a.py", "old": "u > 2", "new": "u >= 2"}
    caught, survived = (mutate.answer(mutant | {"tests": [name]}, tmp_path, 60) for name in tests)
    assert (caught["outcome"], caught["by"]) == ("caught", "test_a.py::test_it")
    assert (survived["outcome"], survived["by"]) == ("survived", "")
    assert (tmp_path / "src/a.py").read_text(encoding="utf-8") == "def fires(u):\n    return u > 2\n"
