"""Randomness in a network (dropout, Poisson encoders, noise): the two halves of a doubled batch see the same draws."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

RANDOM = torch.Tag.nondeterministic_seeded  # of every operator that may draw


class Draws(TorchDispatchMode):
    """Notes the shape of what every random operator draws while the context lasts; None where it drew nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size | None] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return self.draw(func, args, kwargs) if RANDOM in func.tags else func(*args, **kwargs)

    def draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        generator = _generator(args, kwargs)
        before = generator.get_state()
        out = func(*args, **kwargs)
        self.shapes.append(None if torch.equal(before, generator.get_state()) else _tensor(out).shape)
        return out

    @property
    def any(self) -> bool:
        return any(shape is not None for shape in self.shapes)


class SharedDraws(Draws):
    """Every random operator runs for one half of a doubled batch and, from the same random state, for the other.

    Args:
        single: the shapes that the same network drew for one half alone (`Draws`). The axis that is twice as long now
            counts the samples; what has none, noise on weights for example, is one draw for both halves anyway.
        batch: B, the samples of one half.
        steps: T. An axis that merges samples with others is (T*B*...), or, where T does not divide it, (...*B).
        batch_first: it is (B*...).
    """

    def __init__(self, single: Sequence[torch.Size | None], batch: int, steps: int, batch_first: bool) -> None:
        super().__init__()
        self.single, self.batch, self.steps, self.batch_first = list(single), batch, steps, batch_first

    def draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        one = self.single.pop(0) if self.single else None
        in_place, generator = func.__name__.split(".")[0].endswith("_"), _generator(args, kwargs)
        before = generator.get_state()
        out = args[0] if in_place else func(*args, **kwargs)
        whole = _tensor(out).shape
        axis = _doubled(one, whole)
        if one is None or axis is None or one[axis] % self.batch:
            return func(*args, **kwargs) if in_place else out
        sizes = (self._outer(one[axis] // self.batch), 2, -1)
        alone = poisson if func.__name__.startswith("poisson") else func
        halves = []
        for i in (0, 1):
            generator.set_state(before)
            halves.append(alone(*(_half(a, i, one, whole, axis, sizes) for a in args), **kwargs))
        join = lambda *z: torch.stack([t.unflatten(axis, sizes[::2]) for t in z], axis + 1).flatten(axis, axis + 2)
        if in_place:
            return out.copy_(join(*halves))
        return join(*halves) if isinstance(out, Tensor) else tuple(map(join, *halves))

    def _outer(self, merged: int) -> int:
        """How many of what is merged with the samples lies outside them."""
        if self.batch_first:
            return 1
        return merged if merged % self.steps else self.steps


def poisson(rate: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Poisson counts, each from one uniform number: rates that are nearly alike have counts that are nearly alike."""
    u = torch.rand(rate.shape, generator=generator, device=rate.device, dtype=torch.float64)
    count = torch.zeros_like(u)
    while (more := u > torch.special.gammaincc(count + 1, rate.double().clamp_min(1e-300))).any():
        count += more
    return count.to(rate.dtype)


def _half(value: Any, i: int, one: torch.Size, whole: torch.Size, axis: int, sizes: tuple[int, ...]) -> Any:
    """Half i of an operator's argument: of a tensor that has the doubled axis, and of the shape that is asked for."""
    if isinstance(value, list | tuple) and tuple(value) == tuple(whole):
        return list(one)
    if not isinstance(value, Tensor) or value.ndim != len(whole) or value.shape[axis] != whole[axis]:
        return value
    return value.unflatten(axis, sizes).select(axis + 1, i).flatten(axis, axis + 1).clone()


def _doubled(one: torch.Size | None, both: torch.Size) -> int | None:
    """The axis that is twice as long in `both`; None if there is none, or they differ otherwise."""
    if one is None or len(one) != len(both):
        return None
    axes = [i for i, (n, m) in enumerate(zip(one, both, strict=True)) if n != m]
    return axes[0] if len(axes) == 1 and both[axes[0]] == 2 * one[axes[0]] else None


def _tensor(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def _generator(args: Any, kwargs: Any) -> torch.Generator:
    """What an operator draws from."""
    if isinstance(given := kwargs.get("generator"), torch.Generator):
        return given
    device = next((a.device for a in args if isinstance(a, Tensor)), kwargs.get("device"))
    device = torch.device("cpu" if device is None else device)
    if device.type != "cuda":
        return torch.default_generator
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
