"""A network without chance: what it would draw at random is what it draws on average."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class MeanDraws(TorchDispatchMode):
    """While the context lasts no random operator draws, so that a sample's output does not depend on its place.

    Bernoulli and Poisson draws are their means, a uniform number is the same for all entries, dropout drops nothing.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return out
        name = func.__name__.split(".")[0]
        if name in ("bernoulli", "poisson"):
            return args[0].clone()
        if name == "native_dropout":
            return args[0].clone(), torch.ones_like(out[1])
        if name == "normal" and isinstance(args[0], Tensor):
            return args[0].clone()
        if isinstance(out, Tensor) and out.is_floating_point() and out.numel():
            out.fill_(out.float().mean().item())
        return out
