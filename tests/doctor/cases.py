"""Networks, images, and an independent account of what a forward and backward pass does, to hold the doctor to."""

import copy
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

import spikeback as sb
from spikeback.models.resnet import SpikingResNet

K = 5


def smooth_images(batch: int, channels: int = 3, size: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32):
    """Random images (B, C, H, W) of unit variance whose neighbouring pixels are alike; the same for the same seed."""
    noise = torch.randn(batch, channels, size + 2, size + 2, generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool2d(noise, 3, 1)
    return (smooth / smooth.std()).to(dtype)


def some_labels(batch: int, classes: int = K, seed: int = 0) -> Tensor:
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(1000 + seed))


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the mean over time of logits (T, B, K)."""
    return F.cross_entropy(logits.mean(0), y)


def residual_net(depths: tuple[int, ...], width: int = 8, seed: int = 0, **options: Any) -> SpikingResNet:
    """A Spiking ResNet of these depths; the other arguments are those of `SpikingResNet`."""
    torch.manual_seed(seed)
    given = {"num_classes": 10, "stem": "cifar", "time_steps": 2, "in_channels": 1, "neuron": None, "norm": None}
    widths = tuple(2**i for i in range(len(depths)))
    return SpikingResNet(depths, widths, width=width, **(given | options))


class Chain(nn.Module):
    """A user's own network, nothing in it but plain modules: features (B, F), or frames (T, B, F), -> (T, B, K)."""

    def __init__(self, *widths: int, classes: int = 2, steps: int = 1, neuron: nn.Module | None = None) -> None:
        super().__init__()
        neuron = sb.LIF(0.5, 0.5, sb.surrogate.Triangle(1.0)) if neuron is None else neuron
        self.steps = steps
        self.first = nn.Sequential(nn.Linear(widths[0], widths[1], bias=False), copy.deepcopy(neuron))
        self.second = nn.Sequential(nn.Linear(widths[1], widths[2], bias=False), copy.deepcopy(neuron))
        self.fc = nn.Linear(widths[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        frames = x if x.ndim == 3 else x.expand(self.steps, *x.shape)
        return self.fc(self.second(self.first(frames)))


class Soft(nn.Module):
    """A 'neuron' without a step: (T, B, F) -> (T, B, F), everywhere smooth, its gradient exact."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(2 * (x - 0.5))


class MemoryNeuron(nn.Module):
    """Another framework's multi-step neuron, which remembers its membrane until reset() and has no adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def reset(self) -> None:
        self.v = 0.0

    def step(self, x: Tensor) -> Tensor:
        u = 0.5 * self.v + x
        soft = torch.sigmoid(4 * (u - 0.5))
        spikes = ((u > 0.5).to(u) - soft).detach() + soft
        self.v = u * (1 - spikes)
        return spikes

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.step(x_t) for x_t in x])


sb.register_stateful(MemoryNeuron, MemoryNeuron.reset)


def is_memory_neuron(module: nn.Module) -> bool:
    return isinstance(module, MemoryNeuron)


@dataclass
class Account:
    """One forward and backward pass, taken apart by hooks of its own and `torch.autograd.grad`."""

    loss: float
    outputs: dict[str, Tensor]  # of each block, (T, B, ...)
    gradients: dict[str, Tensor]  # dL/d output
    entering: dict[str, Tensor | None]  # dL/d input; None: the input needs no gradient
    parameters: dict[str, Tensor]  # dL/d parameter
    currents: dict[str, Tensor]  # of each spiking layer, (T, B, ...)
    spikes: dict[str, Tensor]


def account(
    net: nn.Module, x: Tensor, y: Tensor, blocks: Iterable[str], weight: float | None = None, loss: Any = None
) -> Account:
    """Everything on a deep copy of `net`, in its own mode; `weight` is that of a ShortcutNet's branches."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, MemoryNeuron):
            module.reset()
    ins: dict[str, Tensor] = {}
    outs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, args: Any, output: Any) -> None:
            ins[name], outs[name] = args[0], output

        module.register_forward_hook(hook)

    blocks = list(blocks)
    layers = [name for name, m in net.named_modules() if isinstance(m, sb.LIF | MemoryNeuron)]
    for name in {*blocks, *layers}:
        keep(name, net.get_submodule(name))
    value = (loss or mean_cross_entropy)(net(x) if weight is None else net(x, weight), y)
    parameters = dict(net.named_parameters())
    grad = lambda wanted: torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
    zero = lambda grads, like: [torch.zeros_like(t) if g is None else g for g, t in zip(grads, like, strict=True)]
    outputs = [outs[b] for b in blocks]
    linked = [b for b in blocks if ins[b].requires_grad]
    entering = dict.fromkeys(blocks) | dict(zip(linked, grad([ins[b] for b in linked]), strict=True))
    return Account(
        value.item(),
        {b: outs[b].detach() for b in blocks},
        dict(zip(blocks, zero(grad(outputs), outputs), strict=True)),
        entering,
        dict(zip(parameters, zero(grad(list(parameters.values())), parameters.values()), strict=True)),
        {name: ins[name].detach() for name in layers},
        {name: outs[name].detach() for name in layers},
    )


def replay(currents: Tensor, tau: float, threshold: float) -> Tensor:
    """Eq. 1-2 written out once more: membranes just before firing, (T, B, ...)."""
    u, membranes = torch.zeros_like(currents[0]), []
    for c in currents:
        u = tau * u + c
        membranes.append(u)
        u = torch.where(u > threshold, torch.zeros_like(u), u)
    return torch.stack(membranes)


def block_names(net: Any) -> list[str]:
    return [entry["module"] for entry in net.feature_info if entry["kind"] == "block"]


def short(name: str) -> str:
    """A block's name without the wrapper's prefix."""
    return name.removeprefix("net.")


def found_blocks(diagnosis: Any) -> dict[str, dict[str, Any]]:
    """The blocks of a diagnosis by name; of a wrapped network by the name they have in the network inside."""
    return {short(block["name"]): block for block in diagnosis.as_dict()["blocks"]}


def _hooks(module: Any) -> dict[str, list[int]]:
    """Ids of everything in the hook dictionaries of a module (or of torch.nn.modules.module itself)."""
    return {
        key: [id(hook) for hook in value.values()]
        for key, value in vars(module).items()
        if "hook" in key and isinstance(value, dict)
    }


def snapshot(net: nn.Module, *tensors: Tensor) -> dict[str, Any]:
    """All that a measurement must leave as it is: of the net, of the tensors given to it, of the process."""
    state: dict[str, Any] = {
        "rng": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002 - the legacy state is the one in doubt
        "grad mode": torch.is_grad_enabled(),
        "global hooks": _hooks(torch_module),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    for i, t in enumerate(tensors):
        state[f"tensor {i}"] = (_bits(t), t.requires_grad, t.grad)
    for name, module in net.named_modules():
        state[f"{name}: hooks"] = _hooks(module)
        state[f"{name}: training"] = module.training
        state[f"{name}: attributes"] = sorted(vars(module))
        loose = {k: v for k, v in vars(module).items() if isinstance(v, Tensor | float)}
        state[f"{name}: loose"] = {k: (id(v), _bits(v)) if isinstance(v, Tensor) else v for k, v in loose.items()}
        state[f"{name}: surrogate"] = repr(getattr(module, "surrogate", None))
    for name, p in net.named_parameters():
        grad = None if p.grad is None else (id(p.grad), _bits(p.grad))
        state[f"{name}: parameter"] = (id(p), _bits(p), p.requires_grad, grad)
    for name, b in net.named_buffers():
        state[f"{name}: buffer"] = (id(b), _bits(b))
    return state


def _bits(t: Tensor) -> tuple[Any, ...]:
    return (t.dtype, tuple(t.shape), t.detach().contiguous().cpu().numpy().tobytes())


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    assert [key for key in before if before[key] != after[key]] == []


def lifs(module: nn.Module) -> list[sb.LIF]:
    return [m for m in module.modules() if isinstance(m, sb.LIF)]


def as_any(value: object) -> Any:
    """For calls that a type checker would rightly refuse."""
    return cast(Any, value)
