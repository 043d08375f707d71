"""A format from a file outside the package is found by name, and exports a network that was trained."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb
from spikeback import export, extensions
from spikeback.errors import UsageError

FORMAT = '''
from safetensors.torch import load_file, save_file

from spikeback.export import fold, register


def folded_weights(net, path):
    """The folded network's weights as one safetensors file."""
    save_file({name: value.contiguous() for name, value in fold(net).state_dict().items()}, path)


register("folded-weights", folded_weights)
'''


@pytest.fixture
def formats(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A registry of its own for one test."""
    known = dict(export.FORMATS)
    monkeypatch.setattr("spikeback.export.formats.FORMATS", known)
    return known


def test_a_format_of_ones_own_is_found_by_name(
    make_net: Callable[..., Any],
    images: Tensor,
    formats: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_format.py").write_text(FORMAT, encoding="utf-8")
    with pytest.raises(UsageError, match="no format 'folded-weights'; choose from fold"):
        export.format_of("folded-weights")
    try:
        extensions.load("my_format.py")
        assert list(formats) == ["fold", "folded-weights"]
        net = make_net()
        optimiser = torch.optim.SGD(net.parameters(), 0.1)
        sb.losses.CrossEntropy()(net(images), {}, 0.0, torch.tensor([0, 3, 4])).backward()
        optimiser.step()
        export.format_of("folded-weights")(net, "net.safetensors")
        read = sys.modules["my_format"].load_file("net.safetensors")
    finally:
        sys.modules.pop("my_format", None)
        extensions.LOADED.discard("my_format.py")
    expected = export.fold(net).state_dict()
    assert read.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in read.items())


def test_a_name_is_given_once(formats: dict[str, Any]) -> None:
    assert export.format_of("fold") is export.fold
    export.register("fold", export.fold)  # as a module that is imported twice does
    with pytest.raises(UsageError, match="there is a format 'fold' already"):
        export.register("fold", lambda net: net)
    assert formats == {"fold": export.fold}
