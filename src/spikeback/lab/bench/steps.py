"""A training step, its floor, and inference, of any network: the work of most arms."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from spikeback.lab.bench import nets
from spikeback.lab.bench.worker import Absent, Work, find, synchronise
from spikeback.nn import why_not_fused

Made = tuple[Work, dict[str, Any]]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
RATE = 0.001  # learning rate: the network stays what it is however often the step is repeated


def train(net: str, *, layout: str = "channels_last", **options: Any) -> Made:
    """Forward, loss, backward and SGD with momentum of the network "module:function" on one random batch.

    `layout` is "contiguous", "channels_last" or "faster", the one of both that a trial finds faster. `arguments` go to
    the function; then parameters and multiply-accumulates are among the facts. `compiled` is a mode of `torch.compile`.
    """
    return faster(_train, net=net, **options) if layout == "faster" else _train(net, layout=layout, **options)


def infer(net: str, *, layout: str = "channels_last", **options: Any) -> Made:
    """One forward in eval mode without autograd; `fold` merges batch norm into the convolutions before."""
    return faster(_infer, net=net, **options) if layout == "faster" else _infer(net, layout=layout, **options)


def faster(make: Callable[..., Made], **options: Any) -> Made:
    """The work in the layout that takes less time here."""
    seconds = {}
    for layout in LAYOUTS:
        work, _ = make(layout=layout, **options)
        work()
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        seconds[layout] = time.perf_counter() - start
        del work  # its memory must not be there when the other is measured
    return make(layout=min(seconds, key=lambda layout: seconds[layout]), **options)


def _train(
    net: str, *, width: int, time_steps: int, batch: int, size: int, classes: int, layout: str,
    precision: str = "float32", within: str | None = None, compiled: str | None = None,
    arguments: dict[str, Any] | None = None,
) -> Made:  # fmt: skip
    model, x = _model(net, width, time_steps, batch, size, classes, layout, **arguments or {})
    counted = nets.counts(model, x[:1]) if arguments and isinstance(model, nets.Ours) else {}
    facts = _facts(model)
    if within is None and isinstance(model, nets.Ours):
        with autocast(x, precision):
            facts |= {"unfused": found} if (found := why_not_fused(model, x)) else {}
    model = torch.compile(model, mode=compiled, dynamic=False) if compiled else model
    y = torch.randint(classes, (batch,))
    optimiser = torch.optim.SGD(model.parameters(), RATE, 0.9)
    enter = _context(within)

    def step() -> Tensor:
        with enter(), autocast(x, precision):
            loss = cross_entropy(model(x).float(), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss

    return step, facts | counted | {"layout": layout, "loss": step().item()}


def _infer(
    net: str, *, width: int, time_steps: int, batch: int, size: int, classes: int, layout: str,
    precision: str = "float32", within: str | None = None, fold: bool = False,
) -> Made:  # fmt: skip
    model, x = _model(net, width, time_steps, batch, size, classes, layout)
    settle(model, x)
    facts = _facts(model) | {"layout": layout}
    if net.endswith(":stripped"):
        facts["as_never_wrapped"] = _as_never_wrapped(model, x, width, time_steps, classes)
    if fold:
        from spikeback.export import fold as folded  # pyright: ignore

        model = nets.Ours(folded(model.get_submodule("net")))
    enter = _context(within)

    def forward() -> Tensor:
        with torch.inference_mode(), enter(), autocast(x, precision):
            return model(x)

    return forward, facts


def floor(
    *, width: int, time_steps: int, batch: int, size: int, classes: int, precision: str = "float32",
    within: str | None = None,
) -> Made:  # fmt: skip
    """The convolutions and the readout of our network alone, forward, backward and update: no norm, no neurons.

    Each is fed 0/1 spikes of the shape and density that it sees in the real network, and a gradient prepared
    beforehand; all but the first compute the gradient of their input as well.
    """
    model, x = _model("spikeback.lab.bench.nets:ours", width, time_steps, batch, size, classes, "channels_last")
    sites = _sites(model, x, precision)
    optimiser = torch.optim.SGD([p for layer, _, _ in sites for p in layer.parameters()], RATE, 0.9)
    densities = [(x != 0).float().mean().item() for _, x, _ in sites[1:-1]]
    enter = _context(within)

    def step() -> None:
        optimiser.zero_grad()
        for layer, x, grad in sites:
            with enter(), autocast(x, precision):
                y = layer(x)
            y.backward(grad)
            x.grad = None
        optimiser.step()

    return step, _facts(model) | {"layout": "channels_last", "firing_rate": sum(densities) / len(densities)}


def _sites(model: nn.Module, x: Tensor, precision: str) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Every convolution and linear layer with an input and an output gradient like those of the real network."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    note: Any = lambda layer, inputs, y: seen.append((layer, inputs[0], y))
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        plain = _context("spikeback.nn:plain", needed=False)
        with torch.no_grad(), plain(), autocast(x, precision):
            model(x)  # a fused operation would pass the hooks by
    finally:
        for hook in hooks:
            hook.remove()
    return [(m, _alike(x, first=i == 0), torch.randn_like(y)) for i, (m, x, y) in enumerate(seen)]


def _alike(x: Tensor, first: bool) -> Tensor:
    """The images themselves, or 0/1 spikes as dense as x, channels last, which want a gradient."""
    if first:
        return x
    spikes = (torch.rand_like(x, dtype=torch.float32) < (x != 0).float().mean()).to(x.dtype)
    return (spikes.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else spikes).requires_grad_()


def _model(
    net: str, width: int, time_steps: int, batch: int, size: int, classes: int, layout: str, **arguments: Any
) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = find(net)(width, time_steps, classes, **arguments).to(memory_format=LAYOUTS[layout])
    return model, torch.randn(batch, 3, size, size).contiguous(memory_format=LAYOUTS[layout])


def settle(model: nn.Module, x: Tensor) -> None:
    """Give batch norms the statistics of x, so that the network is not silent in eval mode, and switch to it."""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    model.eval()


def autocast(x: Tensor, precision: str) -> AbstractContextManager[Any]:
    """Where x lies."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16")


def _context(name: str | None, needed: bool = True) -> Callable[[], AbstractContextManager[Any]]:
    """The context manager that "module:name" makes; without it the arm is absent, if it is needed."""
    if name is None:
        return nullcontext
    try:
        return find(name)
    except (ImportError, AttributeError):
        if needed:
            raise Absent(f"this version has no {name.replace(':', '.')}") from None
        return nullcontext


def _facts(model: nn.Module) -> dict[str, Any]:
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return {"convolution_weights": sum(m.weight.numel() for m in convolutions)}


class _Kernels(TorchDispatchMode):
    """Notes every kernel that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def _as_never_wrapped(model: nn.Module, x: Tensor, width: int, time_steps: int, classes: int) -> bool:
    """Whether the stripped network runs the kernels, and gives the bytes, of one that never had branches."""
    torch.manual_seed(0)
    plain = nets.ours(width, time_steps, classes)
    plain.load_state_dict(model.state_dict())
    runs = []
    for net in (model, plain.to(memory_format=torch.channels_last).eval()):
        with torch.inference_mode(), _Kernels() as kernels:
            runs.append((net(x), kernels.names))
    return torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
