"""Networks that draw from NumPy's and Python's random numbers, or from generators of their own."""

import copy
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError
from spikeback.foreign.randomness import same_draws
from spikeback.foreign.undisturbed import all_or_nothing, undisturbed

T, B, F, K = 3, 8, 6, 4
NOISE = 0.5


class Noisy(nn.Module):
    """Noise on every current, from the source named; each time step and sample has a draw of its own."""

    def __init__(self, source: str) -> None:
        super().__init__()
        made: dict[str, Callable[[], Any]] = {
            "torch": lambda: torch.Generator().manual_seed(7),
            "numpy generator": lambda: np.random.default_rng(7),
            "numpy state": lambda: np.random.RandomState(7),
            "python generator": lambda: random.Random(7),
            "in a list": lambda: [torch.Generator().manual_seed(7)],
            "numpy": lambda: np.random,
            "python": lambda: random,
        }
        self.source = made[source]()

    def forward(self, x: Tensor) -> Tensor:
        g: Any = self.source[0] if isinstance(self.source, list) else self.source
        if isinstance(g, torch.Generator):
            z = torch.randn(x.shape, generator=g)
        elif isinstance(g, np.random.Generator):
            z = torch.from_numpy(g.standard_normal(x.shape))
        elif g is np.random or isinstance(g, np.random.RandomState):
            z = torch.from_numpy(g.normal(size=tuple(x.shape)))
        else:
            z = torch.tensor([g.gauss(0, 1) for _ in range(x.numel())]).view(x.shape)
        return x + NOISE * z.to(x.dtype)


class Net(nn.Module):
    """(T, B, F) -> (T, B, K)."""

    def __init__(self, source: str | None) -> None:
        super().__init__()
        self.noise = Noisy(source) if source else nn.Identity()
        self.first = nn.Sequential(nn.Linear(F, 16, bias=False), sb.LIF())
        self.second = nn.Sequential(nn.Linear(16, 16, bias=False), sb.LIF())
        self.fc = nn.Linear(16, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(2 * self.first(self.noise(x))))


SOURCES = ("torch", "numpy generator", "numpy state", "python generator", "in a list", "numpy", "python")


def batch() -> tuple[Tensor, Tensor]:
    return 3 * torch.rand(T, B, F), torch.arange(B) % K


def states(net: Any) -> list[Any]:
    g = net.noise.source[0] if isinstance(net.noise.source, list) else net.noise.source
    if isinstance(g, torch.Generator):
        own = g.get_state().tolist()
    elif isinstance(g, np.random.Generator):
        own = g.bit_generator.state
    else:
        own = str(g.get_state() if hasattr(g, "get_state") else g.getstate())
    return [own, str(np.random.get_state()), random.getstate(), torch.get_rng_state().tolist()]  # noqa: NPY002


USES: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {
    "diagnose": lambda net, x, y: sb.diagnose(net, x, y, chunks=8),
    "calibrate": lambda net, x, y: sb.calibrate(net, x, y, batches=2),
    "branches": lambda net, x, y: sb.ShortcutNet(net, ["first"], example=x),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("source", SOURCES)
def test_every_generator_is_where_it_was(source: str, use: str) -> None:
    torch.manual_seed(0)
    net, (x, y) = Net(source), batch()
    before = copy.deepcopy(states(net))
    USES[use](net, x, y)
    after = states(net)
    assert after[:3] == before[:3]
    assert use != "diagnose" or after[3] == before[3]


@pytest.mark.parametrize("source", SOURCES)
def test_both_halves_of_the_fidelity_measure_see_the_same_draws(source: str) -> None:
    torch.manual_seed(0)
    net, (x, y) = Net(source), batch()
    fidelities = [row["fidelity"] for row in sb.diagnose(net, x, y, passes=("fidelity",), noise=0.0).blocks]
    assert fidelities == pytest.approx([1.0, 1.0], abs=1e-9)


@pytest.mark.parametrize("source", SOURCES)
def test_draws_are_the_same_in_every_pass_and_differ_from_the_networks_own(source: str) -> None:
    net, (x, _) = Net(source), batch()
    outputs = []
    for _ in range(2):
        with same_draws(net):
            outputs.append((net.noise(x), net.noise(x)))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1], outputs[1][1])
    assert not torch.equal(*outputs[0])
    with undisturbed(net):
        first = net.noise(x)
    assert torch.equal(net.noise(x), first)
    drawn = []
    with suppress(UsageError), all_or_nothing(net):
        drawn.append(net.noise(x))
        raise UsageError("failed")
    assert torch.equal(net.noise(x), drawn[0])


@pytest.mark.parametrize("source", SOURCES)
def test_samples_are_found_under_noise_and_the_descent_test_is_paired(source: str) -> None:
    torch.manual_seed(0)
    net, x = Net(source), 3 * torch.rand(B, B, F)  # T = B: only what moves with the samples tells them
    found = sb.diagnose(net, x, torch.arange(B) % K, passes=("descent",))
    assert len(found.layers[0]["rate_by_step"]) == B
    calm = sb.diagnose(net.train(), x, torch.arange(B) % K, passes=("descent",))
    assert [row["descent"] for row in found.blocks] == [row["descent"] for row in calm.blocks]
    model = sb.ShortcutNet(net, ["first"], example=x)
    with same_draws(net):
        clean = model.logits(x)[1]["first"]
    changed = x.clone()
    changed[:, 2] = 0
    with same_draws(net):
        moved = (model.logits(changed)[1]["first"] != clean).any(-1).any(0)
    assert moved.nonzero().flatten().tolist() == [2]
