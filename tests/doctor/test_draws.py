"""What a network draws at random is the same for a batch and for the batch with noise, so fidelity compares like with
like."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikeback as sb
from spikeback.doctor.measure.draws import poisson

from .cases import Chain, found_blocks, residual_net, smooth_images, some_labels
from .peers import need

Encoder = Callable[[Tensor], Tensor]
GENERATOR = torch.Generator().manual_seed(3)
ENCODERS: dict[str, Encoder] = {  # (T, B, F) -> (T, B, F)
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout of T*B": lambda x: F.dropout(x.flatten(0, 1), 0.3).unflatten(0, x.shape[:2]),
    "dropout of each step": lambda x: torch.stack([F.dropout(z, 0.3) for z in x]),
    "dropout of features": lambda x: F.dropout1d(x, 0.3),
    "alpha dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "rand": lambda x: (torch.rand_like(x) < x).float(),
    "own generator": lambda x: (torch.rand(x.shape, generator=GENERATOR) < x).float(),
    "bernoulli": lambda x: torch.bernoulli(x.clamp(0, 1)),
    "poisson": lambda x: torch.poisson(3 * x.clamp_min(0)),
    "randn": lambda x: x + torch.randn(x.shape),
    "normal in place": lambda x: x + x.new_empty(x.shape).normal_(),
    "normal of tensors": lambda x: torch.normal(x, torch.ones_like(x)),
    "randint": lambda x: x * torch.randint(0, 2, x.shape),
    "multinomial": lambda x: x * torch.multinomial(x.flatten(0, 1).abs() + 0.1, 1).unflatten(0, x.shape[:2]),
    "rrelu": lambda x: F.rrelu(x - 0.5, training=True) + 0.5,
    "weights": lambda x: x * torch.rand(x.shape[-1]),
}


class Encoded(Chain):
    def __init__(self, encode: Encoder, steps: int) -> None:
        super().__init__(6, 16, 16, classes=5, steps=steps)
        self.encode = encode

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.encode(x.expand(self.steps, *x.shape)))


def fidelities(net: nn.Module, x: Tensor, noise: float) -> list[float]:
    y = some_labels(len(x), 5)
    return [b["fidelity"] for b in sb.diagnose(net, x, y, passes=("fidelity",), noise=noise).as_dict()["blocks"]]


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_without_noise_fidelity_is_one_whatever_is_drawn(encode: Encoder) -> None:
    """Also where T = B, 2 B, and B = 1, which no shape tells apart."""
    for steps, batch in ((3, 16), (4, 4), (8, 4), (8, 1)):
        torch.manual_seed(0)
        net, x = Encoded(encode, steps), 2 * torch.rand(batch, 6)
        assert {1.0 if f is None else round(f, 5) for f in fidelities(net, x, 0.0)} == {1.0}, (steps, batch)


def test_noise_still_shows_under_dropout() -> None:
    torch.manual_seed(0)
    net, x = Encoded(ENCODERS["dropout"], 3), 2 * torch.rand(32, 6)
    quiet, loud = fidelities(net, x, 0.01), fidelities(net, x, 1.0)
    assert quiet[-1] > 0.9 > loud[-1]


def drop(_module: nn.Module, _args: Any, z: Tensor) -> Tensor:
    return F.dropout(z, 0.1)


def test_a_healthy_net_with_dropout_is_healthy() -> None:
    """Batch norm sees both halves, dropout the same of each: as faithful as without, which is not changed by a bit."""
    net, x, y = residual_net((1, 1), width=8), smooth_images(32, 1), some_labels(32, 10)
    plain = found_blocks(sb.diagnose(net, x, y, passes=("fidelity",)))
    net.get_submodule("layer1.0.conv2.1").register_forward_hook(drop)
    dropped = found_blocks(sb.diagnose(net, x, y, passes=("fidelity",)))
    assert [dropped[b]["fidelity"] for b in dropped] == pytest.approx([plain[b]["fidelity"] for b in plain], abs=0.1)
    assert sb.diagnose(net, x, y, passes=("fidelity",)).verdict.kind == "healthy"


def test_layers_that_put_samples_first() -> None:
    """sinabs merges (B*T, ...): a draw there is shared by sample, not by time step."""
    layers = need("sinabs.layers")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(6, 16), layers.LIFSqueeze(tau_mem=3.0, num_timesteps=4))
            self.second = nn.Sequential(nn.Linear(16, 16), layers.LIFSqueeze(tau_mem=3.0, num_timesteps=4))
            self.fc = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            z = x.repeat_interleave(4, 0)  # (B*T, F)
            noisy = 4 * z + 20 * torch.rand_like(z)
            return self.fc(self.second(self.first(noisy))).unflatten(0, (-1, 4)).transpose(0, 1)

    torch.manual_seed(0)
    seen: list[Tensor] = []
    net, x = Net(), torch.rand(5, 6)
    net.first[0].register_forward_hook(lambda _m, args, _out: seen.append(args[0].detach().clone()))
    sb.diagnose(net, x, some_labels(5, 5), passes=("fidelity",), noise=0.0)
    clean, noisy = next(z for z in reversed(seen) if len(z) == 2 * 5 * 4).unflatten(0, (10, 4)).split(5)
    assert torch.equal(clean, noisy)


def test_poisson_counts_have_their_rate() -> None:
    rate = torch.tensor([0.0, 0.3, 4.0, 50.0]).repeat(4000, 1)
    torch.manual_seed(0)
    counts = poisson(rate)
    assert counts.mean(0).tolist() == pytest.approx([0.0, 0.3, 4.0, 50.0], rel=0.05)
    assert counts.var(0).tolist() == pytest.approx([0.0, 0.3, 4.0, 50.0], rel=0.1)


def test_descent_is_measured_under_the_draws_of_its_gradient() -> None:
    """A smooth net: what a step promises is what it brings, with dropout as without."""

    class Soft(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(2 * (x - 0.5))

    torch.manual_seed(0)
    net = Chain(6, 8, 8, classes=3, neuron=nn.Sequential(Soft(), nn.Dropout(0.5))).double()
    x, y = torch.randn(16, 6, dtype=torch.float64), some_labels(16, 3)
    found = sb.diagnose(
        net, x, y, is_spiking=lambda m: isinstance(m, Soft), blocks=["first", "second"], passes=("descent",)
    )
    assert [b["descent"] for b in found.blocks] == pytest.approx([1.0, 1.0], abs=0.1)
