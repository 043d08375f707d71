"""No figure while the tests are red."""

from pathlib import Path
from typing import Any

import pytest
import torch

from spikeback.errors import TrainingError
from spikeback.lab.bench import gate


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose tests are all green."""
    monkeypatch.setattr(gate, "PACKAGE", tmp_path / "src")
    for folder in gate.TESTS:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"test_{Path(folder).name}.py").write_text("def test_parity(): pass")
    return tmp_path


@pytest.mark.slow
def test_green_tests_let_figures_pass(checkout: Path) -> None:
    assert "2 passed" in gate.green()


@pytest.mark.slow
def test_a_red_test_keeps_figures_back(checkout: Path) -> None:
    (checkout / "tests/ops/test_ops.py").write_text("def test_parity(): assert False")
    with pytest.raises(
        TrainingError, match=r"no figures: the tests are not green: FAILED tests/ops/test_ops\.py::test_p"
    ):
        gate.green()


def test_without_tests_the_package_checks_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PACKAGE", tmp_path / "site-packages")
    assert gate.green() == "self-check: lif with 5 surrogates equals its reference"


@pytest.mark.parametrize("wrong", ["spikes", "gradient"])
def test_self_check_sees_a_wrong_operation(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gate.sb.lif

    def lif(x: torch.Tensor, *args: Any, backend: str | None = None) -> Any:
        spikes, state = right(x if backend or wrong == "gradient" else x + 1 / 64, *args, backend=backend)
        return (spikes if backend or wrong == "spikes" else spikes + 0.001 * (x - x.detach())), state

    monkeypatch.setattr(gate.sb, "lif", lif)
    with pytest.raises(TrainingError, match="is not what its reference is"):
        gate.self_check()
