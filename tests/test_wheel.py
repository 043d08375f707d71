"""The wheel, tried where no checkout is: everything the package needs is inside."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

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
images = load("embedded")
assert (len(images.train), len(images.test)) == (6000, 1000)
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
    assert {"spikeback/recipes/demo.yaml", "spikeback/report/pages/report.html.j2"} < expected
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


PLAIN = """
import sys
from pathlib import Path

import pytest
import torch

import spikeback as sb
from spikeback.ops import native

assert Path(sb.__file__).resolve().is_relative_to(Path(sys.argv[1]).resolve()), sb.__file__
assert not native.available()
x = torch.randn(3, 2, 5, requires_grad=True)
surrogate = sb.surrogate.Triangle()
for a, b in zip(*(sb.lif(x, 0.25, 0.5, surrogate, backend=name) for name in (None, "reference")), strict=True):
    assert torch.equal(a, b)
with pytest.raises(ValueError, match="cpu"):
    sb.lif(x, 0.25, 0.5, surrogate, backend="cpu")
net = sb.create_model("spiking_resnet18", num_classes=5, width=4, time_steps=2)
with sb.packed_spikes():
    loss = sb.ShortcutNet(net)(torch.randn(2, 3, 16, 16), 0.5).square().sum()
loss.backward()
assert all(p.grad is not None for p in net.parameters())
"""


def test_wheel_holds_the_kernels(wheel: Path) -> None:
    """Where this machine could compile them."""
    with zipfile.ZipFile(wheel) as content:
        kernels = {Path(name).stem for name in content.namelist() if name.endswith(".so")}
    if shutil.which("c++") is None:
        assert wheel.name.endswith("py3-none-any.whl")
        return
    assert "kernels-default" in kernels
    assert "none-any" not in wheel.name
    assert "-py3-none-" in wheel.name


@pytest.mark.skipif(find_spec("hatchling") is None, reason="needs hatchling")
@pytest.mark.parametrize("environment", [{"CXX": "/bin/false"}, {"PATH": "/nowhere"}], ids=str)
def test_without_a_compiler_the_wheel_is_pure_python(environment: dict[str, str], tmp_path: Path) -> None:
    """Even if kernels of an earlier build lie in the checkout; the package runs on PyTorch's operations."""
    checkout = tmp_path / "checkout"
    leave = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "src", checkout / "src", ignore=leave)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, checkout / name)
    native = checkout / "src" / "spikeback" / "ops" / "native"
    (native / "kernels-default.so").write_text("of an earlier build")
    inherited = {k: v for k, v in os.environ.items() if k not in ("CXX", "PYTHONPATH")}
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(words, cwd=checkout, env=inherited | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no compiled kernels" in done.stdout + done.stderr
    assert not list(native.glob("*.part"))
    (file,) = tmp_path.glob("spikeback-*.whl")
    assert file.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(file) as content:
        assert not [name for name in content.namelist() if name.endswith((".so", ".part"))]
        content.extractall(tmp_path / "site")
    if environment == {"CXX": "/bin/false"}:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PLAIN, str(tmp_path / "site")],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        )
        assert done.returncode == 0, done.stderr
