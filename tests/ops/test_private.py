"""What is used of PyTorch without a promise: a newer one that has changed it fails here, and it stands in one file."""

import re
from pathlib import Path

import torch
from torch import nn
from torch.autograd import forward_ad

import spikeback
from spikeback.ops import private

PACKAGE = Path(spikeback.__file__).parent
PRIVATE = (
    r"torch\._C|torch\._disable_dynamo|_current_level|_forward_hooks|_forward_pre_hooks|_backward_hooks|\._schema\b"
)


def test_autograd_is_below_inside_and_back_outside() -> None:
    x = torch.ones(2, requires_grad=True)
    with private.below_autograd():
        assert not (2 * x).requires_grad
    assert (2 * x).requires_grad


def test_forward_mode_is_noticed() -> None:
    assert private.in_forward_mode() is False
    with forward_ad.dual_level():
        assert private.in_forward_mode() is True
    assert private.in_forward_mode() is False


def test_arguments_of_an_operator_have_names_defaults_and_what_is_written() -> None:
    relu, add = torch.ops.aten.relu_.default, torch.ops.aten.add.Tensor
    (x,) = private.arguments_of(relu)
    assert (x.name, x.alias_info.is_write) == ("self", True)
    assert [(a.name, a.default_value) for a in private.arguments_of(add)] == [
        ("self", None),
        ("other", None),
        ("alpha", 1),
    ]


def test_what_is_opaque_is_the_function_still() -> None:
    """That Dynamo does not look into it is what the compiled operators show (test_operators.py)."""
    assert callable(torch._disable_dynamo)  # pyright: ignore[reportPrivateImportUsage]
    assert private.opaque(lambda x, y: x - y)(3, 1) == 2


def test_every_kind_of_hook_is_seen() -> None:
    for register in (
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ):
        module = nn.Identity()
        assert not private.is_watched(module)
        handle = getattr(module, register)(lambda *_: None)
        assert private.is_watched(module), register
        handle.remove()
        assert not private.is_watched(module)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert private.is_watched(nn.Identity())
    handle.remove()
    assert not private.is_watched(nn.Identity())


def test_it_stands_in_one_file() -> None:
    files = [path for folder in ("ops", "nn") for path in (PACKAGE / folder).rglob("*.py") if path.name != "private.py"]
    found = {path.name: re.findall(PRIVATE, path.read_text()) for path in files}
    assert {name: words for name, words in found.items() if words} == {}
    assert len(re.findall(PRIVATE, (PACKAGE / "ops" / "private.py").read_text())) >= 7
