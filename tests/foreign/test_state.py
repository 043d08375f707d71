"""Hidden state: forgotten by those who have it, handed on where it is returned, and by nobody else touched."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError
from spikeback.foreign import reset_state

K = 4


class Memory(nn.Module):
    """An integrator of nobody's: its membrane is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def clear(self) -> None:
        self.v = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.5 * self.v + x
        return self.v


class Known(Memory):
    pass


sb.register_stateful(Known, Known.clear)


class Cell(nn.Module):
    """One step, its state taken and returned."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, K)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = self.fc(x) + (0.5 * state if state is not None else 0.0)
        return v, v


class Demanding(Cell):
    def forward(self, x: Tensor, mem: Tensor | None) -> tuple[Tensor, Tensor]:  # pyright: ignore
        return super().forward(x, mem)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell()

    def forward(self, x: Tensor, mem1: Any = None, mem2: Any = None) -> tuple[Tensor, Any, Any]:
        y, mem1 = self.cell(x, mem1)
        mem2 = y if mem2 is None else mem2 + y
        return mem2, mem1, mem2


@pytest.mark.parametrize("make", [Cell, Demanding, Pair])
def test_returned_state_is_handed_to_the_next_step(make: type[Any]) -> None:
    net, x = make(), torch.randn(2, 3)
    logits = sb.Unrolled(net, 3)(x)
    state: tuple[Any, ...] = (None,) * (1 if make is Demanding else 0)
    for t in range(3):
        out = net(x, *state)
        state = out[1:]
        assert torch.equal(logits[t], out[0])
    assert not torch.equal(logits[0], logits[2])
    assert torch.equal(sb.Unrolled(net, 3)(x), logits)  # the next batch starts afresh


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, K)

    def forward(self, x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.fc(x if weights is None else x * weights)
        return y, x


def test_what_may_be_state_or_not_has_to_be_said() -> None:
    with pytest.raises(UsageError, match=r"weights.*hand_on=True.*hand_on=False"):
        sb.Unrolled(Two(), 2)(torch.randn(2, 3))
    net, x = Two(), torch.randn(2, 3)
    assert torch.equal(sb.Unrolled(net, 2, hand_on=False)(x)[1], net(x)[0])
    assert torch.equal(sb.Unrolled(net, 2, hand_on=True)(x)[1], net(x, x)[0])


def test_unrolled_shows_a_sequence_as_it_is_and_walks_along_time_only() -> None:
    """A Conv1d takes (B, C, L): three axes are one time step, four are frames; without a convolution three are."""
    net = nn.Sequential(nn.Conv1d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 4, K))
    x = torch.randn(5, 3, 6)
    assert torch.equal(sb.Unrolled(net, 2)(x), net(x).expand(2, -1, -1))
    frames = torch.randn(4, 5, 3, 6)
    assert torch.equal(sb.Unrolled(net, 2)(frames), torch.stack([net(z) for z in frames]))
    linear = nn.Linear(3, K)
    assert sb.Unrolled(linear, 2)(torch.randn(4, 5, 3)).shape == (4, 5, K)
    assert sb.Unrolled(linear, 2, frames=False)(torch.randn(4, 5, 3)).shape == (2, 4, 5, K)
    volume = nn.Sequential(nn.Conv3d(3, 2, 3), nn.Flatten(), nn.Linear(2, K))
    assert sb.Unrolled(volume, 2)(torch.randn(5, 3, 3, 3, 3)).shape == (2, 5, K)


def test_unrolled_of_convolutions_that_differ_asks() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(2), nn.Conv1d(2, 1, 4), nn.Flatten(), nn.Linear(1, K))
    with pytest.raises(UsageError, match="frames=True"):
        sb.Unrolled(net, 2)(torch.randn(5, 3, 4, 4))
    assert sb.Unrolled(net, 2, frames=False)(torch.randn(5, 3, 4, 4)).shape == (2, 5, K)


@pytest.mark.parametrize("steps", [2.5, True, 0, "4"])
def test_time_steps_are_a_whole_number(steps: Any) -> None:
    with pytest.raises(UsageError, match="time_steps"):
        sb.Unrolled(nn.Linear(3, K), steps)


def test_a_neuron_that_is_made_known_is_reset_with_its_subclasses() -> None:
    neuron = type("Mine", (Known,), {})()
    neuron(torch.ones(2))
    reset_state(nn.Sequential(neuron))
    assert neuron.v == 0.0


@pytest.mark.parametrize(("kind", "forget"), [("Memory", Memory.clear), (nn.Linear, "reset"), (Tensor, print)])
def test_only_modules_and_functions_are_registered(kind: Any, forget: Any) -> None:
    with pytest.raises(UsageError, match="register_stateful"):
        sb.register_stateful(kind, forget)


def remembering(neuron: nn.Module) -> nn.Module:
    return sb.Unrolled(nn.Sequential(nn.Linear(3, 6), neuron, nn.Linear(6, K)), 2)


def test_a_module_that_remembers_unknown_to_us_is_named() -> None:
    with pytest.warns(UserWarning, match=r"'net\.1' \(Memory\) remembers.*register_stateful\(Memory"):
        sb.ShortcutNet(remembering(Memory()), taps=["net.1"], num_classes=K, example=torch.randn(3, 3))
    x, y = torch.randn(8, 3), torch.arange(8) % K
    neurons: Any = {"blocks": ["net.0", "net.2"], "is_spiking": lambda m: isinstance(m, Memory)}
    with pytest.warns(UserWarning, match="remembers the last batch"):
        sb.diagnose(remembering(Memory()), x, y, passes=(), **neurons)
    sb.ShortcutNet(remembering(Known()), taps=["net.1"], num_classes=K, example=torch.randn(3, 3))


def test_random_networks_are_not_taken_for_ones_that_remember() -> None:
    net = sb.Unrolled(nn.Sequential(nn.Linear(3, 6), Noise(), nn.Linear(6, K)), 2)
    sb.ShortcutNet(net, taps=["net.1"], num_classes=K, example=torch.randn(3, 3))


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def test_the_stripped_network_has_forgotten_the_last_batch() -> None:
    model = sb.ShortcutNet(remembering(Known()), taps=["net.1"], num_classes=K, example=torch.randn(3, 3))
    x = torch.randn(5, 3)
    model(x, 0.25).sum().backward()
    expected = model(x).detach()
    net = model.strip()
    neuron: Any = net.get_submodule("net.1")
    assert neuron.v == 0.0
    inner: Any = copy.deepcopy(net)
    assert torch.equal(torch.stack([inner.net(x) for _ in range(2)]), expected)  # called without Unrolled's reset
