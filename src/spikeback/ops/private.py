"""All that the operators and the blocks use of PyTorch without a promise that it stays, and why there is no other way.

tests/ops/test_private.py fails loudly where a newer PyTorch has changed one of these.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module

Function = Callable[..., Any]


# `torch.library.register_autograd` does this and what follows, but looks at every operand of every call in Python,
# which takes longer than many a kernel.
below_autograd: Any = torch._C._AutoDispatchBelowAutograd


def opaque(function: Function) -> Function:
    """Nothing for Dynamo to look into. `torch.compiler.disable` imports Dynamo at once, which takes seconds."""
    hidden = torch._disable_dynamo(function)  # pyright: ignore[reportPrivateImportUsage]
    return lambda *inputs: (hidden if "torch._dynamo" in sys.modules else function)(*inputs)


def in_forward_mode() -> bool:
    """Whether forward-mode derivatives are being computed; asking every operand for its tangent takes longer."""
    return forward_ad._current_level >= 0


def arguments_of(op: Any) -> list[Any]:
    """The arguments of an operator: each has a `name`, a `default_value`, `alias_info.is_write` if it is changed."""
    return op._schema.arguments


def is_watched(module: nn.Module) -> bool:
    """Whether a hook waits for the module to be called. PyTorch does not tell."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(map(len, hooks)) or bool(torch_module._has_any_global_hook())
