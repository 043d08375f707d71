"""The wheel, tried where no checkout is: everything the package needs is inside."""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
from pathlib import Path

import spikeback as sb
from spikeback.cli.options import recipes
from spikeback.data import load

folder = Path(sys.argv[1]).resolve()
assert Path(sb.__file__).resolve().is_relative_to(folder), sb.__file__
assert "spiking_resnet34" in sb.list_models()
pictures = load("embedded")
assert (len(pictures.train), len(pictures.test)) == (6000, 1000)
assert recipes()["demo"].is_relative_to(folder)
from spikeback.cli.main import main
main(["compare", "--config", "demo", "--help"])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "--wheel-dir", str(folder)]
    done = subprocess.run([*words, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("spikeback-*.whl")
    return file


def test_wheel_holds_data_recipes_and_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        license_text = content.read("spikeback/data/embedded/LICENSE-fashion-mnist").decode()
    package = ROOT / "src" / "spikeback"
    expected = {str(p.relative_to(ROOT / "src")) for p in package.rglob("*") if p.suffix in (".py", ".yaml", ".j2")}
    assert {"spikeback/recipes/demo.yaml", "spikeback/report/template.html.j2"} < expected
    assert expected | {"spikeback/py.typed", "spikeback/data/embedded/fashion-mnist.npz"} <= names
    assert "MIT" in license_text
    assert not [name for name in names if not name.startswith("spikeback")]
    assert wheel.stat().st_size < 4e6


def test_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(tmp_path / "site")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.returncode == 0, done.stderr
    assert "usage: spikeback" in done.stdout
