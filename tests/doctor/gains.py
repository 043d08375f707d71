"""What the tests of the theory share: networks, a batch, and gains measured by hooks of their own."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.adapters.neurons import Neuron, neuron_of
from spikeback.doctor.theory.gain import RELU, observe, predict

SURROGATES = {"triangle": sb.surrogate.Triangle(1.0), "rectangle": sb.surrogate.Rectangle(1.0)}
SURROGATES["tanh"] = sb.surrogate.Tanh(3.0)


def known(lif: sb.LIF) -> Neuron:
    neuron = neuron_of(lif)
    assert neuron is not None
    return neuron


def spiking_net(name: str = "spiking_resnet18", seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    defaults: dict[str, Any] = {"time_steps": 2, "width": 16, "neuron": sb.LIF(surrogate=SURROGATES["triangle"])}
    return sb.create_model(name, **(defaults | options))


def batch(size: int = 16, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (32,), generator=generator)
    return torch.randn(32, channels, size, size, generator=generator), labels


def measured(net: nn.Module, x: Tensor, y: Tensor, blocks: list[str]) -> dict[str, float]:
    """||dL/d input|| / ||dL/d output|| of each block."""
    ends: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda _module, args, output: ends.__setitem__(name, (args[0], output))

    hooks = [net.get_submodule(name).register_forward_hook(keep(name)) for name in blocks]
    loss = F.cross_entropy(net.train()(x).mean(0), y)
    for hook in hooks:
        hook.remove()
    power = lambda z: torch.autograd.grad(loss, z, retain_graph=True)[0].norm().item()
    return {name: power(a) / power(o) for name, (a, o) in ends.items() if a.requires_grad}


def ratios(net: nn.Module, x: Tensor, y: Tensor, blocks: list[str], twin: bool = False) -> list[float]:
    """Prediction over measurement."""
    neurons = {name: RELU for name, m in net.named_modules() if isinstance(m, nn.ReLU)} if twin else None
    theory = predict(net, observe(net, x, neurons), blocks)
    gains = measured(net, x, y, blocks)
    assert len(gains) >= len(blocks) - 1
    return [(theory[name] or math.nan) / gain for name, gain in gains.items()]
