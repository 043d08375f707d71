"""A branch sees the right samples, time steps and channels, however a network lays them out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError

K = 5


def fire(u: Tensor) -> Tensor:
    soft = torch.sigmoid(4 * (u - 0.5))
    return ((u > 0.5).to(u) - soft).detach() + soft


class Neuron(nn.Module):
    """A neuron of nobody's: fires where its current is above 1/2, and remembers nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return fire(x)


class OverTime(nn.Module):
    """A layer for merged samples, applied to (T, B, ...)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Net(nn.Module):
    """(T, B, ...) -> (T, B, K): `body` by names, a readout over all but time, samples and channels."""

    def __init__(self, channels: int, axis: int = 2, **layers: nn.Module) -> None:
        super().__init__()
        self.names, self.axis = list(layers), axis
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.fc = nn.Linear(channels, K)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.get_submodule(name)(x)
        z = x.movedim(self.axis, -1)
        return self.fc(z.mean([*range(2, z.ndim - 1)]) if z.ndim > 3 else z)


class BatchFirst(nn.Module):
    """The same, but samples come first inside, as (B*T, ...) and (B, T, ...)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.merged, self.neuron, self.fc = nn.Conv2d(3, 6, 3), Neuron(), Neuron(), nn.Linear(6, K)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)  # (B, T, ...)
        z = self.merged(self.conv(x.flatten(0, 1)))  # (B*T, ...)
        z = self.neuron(2 * z.unflatten(0, x.shape[:2]))  # (B, T, ...)
        return self.fc(z.mean((-2, -1))).transpose(0, 1)


def conv1d() -> nn.Module:
    return Net(6, conv=OverTime(nn.Conv1d(4, 6, 3, padding=1)), neuron=Neuron())


def tokens() -> nn.Module:
    return Net(7, 3, linear=nn.Linear(4, 7), norm=nn.LayerNorm(7), neuron=Neuron())


def channels_last() -> nn.Module:
    return Net(7, 4, linear=nn.Linear(4, 7), neuron=Neuron())


def transposed() -> nn.Module:
    """Convolution over a sequence whose result leaves as tokens."""
    net = Net(6, 3, conv=OverTime(nn.Conv1d(4, 6, 3, padding=1)), turn=Turn(), neuron=Neuron())
    return net


class Turn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(-1, -2)


def one_step_a_call() -> nn.Module:
    return sb.Unrolled(nn.Sequential(nn.Conv2d(3, 6, 3), Neuron(), nn.Flatten(), nn.Linear(6 * 36, K)), 3, frames=True)


def averaged() -> nn.Module:
    class Averaged(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mean(0)

    return sb.TimeAveraged(Averaged(6, conv=OverTime(nn.Conv2d(3, 6, 3)), neuron=Neuron()))


def averaged_sequence() -> nn.Module:
    class Averaged(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mean(0)

    return sb.TimeAveraged(Averaged(6, conv=OverTime(nn.Conv1d(4, 6, 3, padding=1)), neuron=Neuron()))


# By name: the network, the shape of one sample at one time step, and for each tap how many channels it has.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "conv1d": (conv1d, (4, 9), {"conv": 6, "conv.layer": 6, "neuron": 6}),
    "tokens": (tokens, (9, 4), {"linear": 7, "norm": 7, "neuron": 7}),
    "channels last": (channels_last, (5, 6, 4), {"linear": 7, "neuron": 7}),
    "transposed": (transposed, (4, 9), {"conv": 6, "turn": 6, "neuron": 6}),
    "batch first": (BatchFirst, (3, 8, 8), {"conv": 6, "merged": 6, "neuron": 6}),
    "a call a step": (one_step_a_call, (3, 8, 8), {"net.0": 6, "net.1": 6}),
    "averaged": (averaged, (3, 8, 8), {"net.conv": 6, "net.conv.layer": 6, "net.neuron": 6}),
    "averaged sequence": (averaged_sequence, (4, 9), {"net.conv": 6, "net.neuron": 6}),
}
SIZES = [(1, 1), (1, 3), (3, 1), (3, 3), (4, 3), (3, 6), (6, 3)]  # T and B: 1, equal, multiples of each other


def wrapped(name: str, steps: int, batch: int) -> tuple[sb.ShortcutNet, Tensor, dict[str, int]]:
    make, sample, channels = CASES[name]
    x = 2 * torch.randn(steps, batch, *sample)
    return sb.ShortcutNet(make(), taps=list(channels), num_classes=K, example=x).eval(), x, channels


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("steps", "batch"), SIZES)
def test_a_sample_changes_its_own_logits_only(name: str, steps: int, batch: int) -> None:
    model, x, channels = wrapped(name, steps, batch)
    assert {tap: branch.in_features for tap, branch in zip(model.taps, branches(model), strict=True)} == channels
    main, before = model.logits(x)
    for b in range(batch):
        other = x.clone()
        other[:, b] += torch.randn_like(other[:, b])
        for tap, logits in model.logits(other)[1].items():
            assert logits.shape == (steps, batch, K) or (steps == 1 and main.shape[0] == 1)
            changed = (logits != before[tap]).flatten(2).any(2)
            assert changed[:, b].any()
            assert not changed[:, [i for i in range(batch) if i != b]].any()


@pytest.mark.parametrize("name", CASES)
def test_an_example_of_one_sample_serves_batches(name: str) -> None:
    """What is found with one sample, or one step, holds for any number of both."""
    make, sample, channels = CASES[name]
    net = make()
    one = sb.ShortcutNet(net, taps=list(channels), num_classes=K, example=torch.randn(2, 1, *sample))
    many = sb.ShortcutNet(net, taps=list(channels), num_classes=K, example=torch.randn(2, 4, *sample))
    many.load_state_dict(one.state_dict())
    x = torch.randn(3, 5, *sample)
    for a, b in zip(one.logits(x)[1].values(), many.logits(x)[1].values(), strict=True):
        assert torch.equal(a, b)
    assert [layout.channels for layout in one.layouts.values()] == [layout.channels for layout in many.layouts.values()]


def branches(model: Any) -> list[Any]:
    return list(model.branches.values())


@pytest.mark.parametrize("name", CASES)
def test_branch_logits_by_hand(name: str) -> None:
    """Means of every channel over all other axes, through the branch's layer."""
    make, sample, channels = CASES[name]
    x = 2 * torch.randn(3, 3, *sample)
    net = make()
    model = sb.ShortcutNet(net, taps=list(channels), num_classes=K, example=x)
    tap, width = next(iter(channels.items()))
    calls: list[Tensor] = []
    hook = net.get_submodule(tap).register_forward_hook(lambda *call: calls.append(call[2]))
    side = model.logits(x)[1][tap]
    hook.remove()
    z = torch.stack(calls) if len(calls) > 1 else calls[0]
    z = z.unflatten(0, (3, 3)) if z.shape[0] == 9 else z
    z = z.transpose(0, 1) if name == "batch first" else z
    axis = next(i for i in range(2, z.ndim) if z.shape[i] == width)
    z = z.movedim(axis, 2).flatten(3).mean(3) if z.ndim > 3 else z
    torch.testing.assert_close(side, branches(model)[0](z))


def test_samples_that_are_alike_do_not_hide_the_layout() -> None:
    net = BatchFirst()
    model = sb.ShortcutNet(net, taps=["merged", "neuron"], num_classes=K, example=torch.ones(3, 3, 3, 8, 8))
    assert [layout.axes for layout in model.layouts.values()] == ["BT", "B T"]


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("static", [True, False])
def test_logits_that_are_batch_first_are_an_error(batch: int, static: bool) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.neuron, self.fc2 = nn.Linear(6, 8), Neuron(), nn.Linear(8, K)

        def forward(self, x: Tensor) -> Tensor:  # (B, 6) or (B, T, 6) -> (B, T, K)
            x = x.unsqueeze(1).expand(-1, 3, -1) if x.ndim == 2 else x
            return self.fc2(self.neuron(self.fc1(x)).cumsum(1))

    x = torch.randn(batch, 6) if static else torch.randn(batch, 3, 6)
    with pytest.raises(UsageError, match=r"batch first.*transpose\(0, 1\)"):
        sb.ShortcutNet(Turned(), taps=["neuron"], num_classes=K, example=x)
    with pytest.raises(UsageError, match="batch first"):
        sb.diagnose(Turned(), x, torch.arange(batch) % K, blocks=["fc1", "fc2"], passes=(), is_spiking=is_neuron)


def is_neuron(module: nn.Module) -> bool:
    return isinstance(module, Neuron)


def test_channels_that_feature_info_has_wrong_are_an_error() -> None:
    net: Any = conv1d()
    net.feature_info = [{"module": "neuron", "num_chs": 9, "reduction": 1, "kind": "block"}]
    with pytest.raises(UsageError, match="feature_info says 9 channels"):
        sb.ShortcutNet(net, taps=["neuron"], num_classes=K, example=torch.randn(3, 2, 4, 9))


def test_without_an_example_the_first_batch_tells() -> None:
    net: Any = BatchFirst()
    net.feature_info = [{"module": "merged", "num_chs": 6, "reduction": 1, "kind": "block"}]
    model, x = sb.ShortcutNet(net, taps=["merged"], num_classes=K), 2 * torch.randn(3, 3, 3, 8, 8)
    before = model.logits(x)[1]["merged"]
    x[:, 1] += 1
    changed = (model.logits(x)[1]["merged"] != before).flatten(2).any(2).any(0)
    assert changed.tolist() == [False, True, False]


class Encoded(nn.Module):
    """A random encoder, and samples first inside: (B, F) -> (B*T, F) -> (T, B, K)."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw, self.enter, self.fc = draw, nn.Linear(16, 6), nn.Linear(6, K)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.enter(self.draw(x.repeat_interleave(3, 0))))
        return self.fc(z).unflatten(0, (-1, 3)).transpose(0, 1)


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "rates": lambda x: (torch.rand_like(x) <= x).float(),
    "bernoulli": torch.bernoulli,
    "poisson": lambda x: torch.poisson(3 * x),
    "noise": lambda x: x + torch.randn(x.shape),
    "in place": lambda x: x + torch.empty_like(x).uniform_(),
    "normal": lambda x: torch.normal(x, 1.0),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("batch", [2, 3, 8])
def test_chance_does_not_hide_where_samples_are(name: str, batch: int) -> None:
    model = sb.ShortcutNet(Encoded(DRAWS[name]), taps=["enter"], num_classes=K, example=torch.rand(batch, 16))
    assert model.layouts["enter"].axes == "BT"


def test_what_one_sample_could_not_tell_the_first_batch_does() -> None:
    model = sb.ShortcutNet(Encoded(lambda x: x), taps=["enter"], num_classes=K, example=torch.rand(1, 16))
    model.logits(torch.rand(4, 16))
    assert model.layouts["enter"].axes == "BT"


def test_one_time_step_at_first_and_more_later() -> None:
    net = sb.Unrolled(nn.Sequential(nn.Conv2d(3, 6, 3), Neuron(), nn.Flatten(), nn.Linear(6 * 36, K)), 4)
    model = sb.ShortcutNet(net, taps=["net.0"], num_classes=K, example=torch.rand(1, 2, 3, 8, 8))
    assert model(torch.rand(4, 2, 3, 8, 8), 0.25).shape == (4, 2, K)


class Twice(nn.Module):
    """(T, B, F) -> (T, B, K), a layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.fc = nn.Linear(4, 4), nn.Linear(4, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


def test_a_module_in_two_places_is_no_module_of_two_time_steps() -> None:
    with pytest.raises(UsageError, match="called 2 times in one forward, each time with all time steps"):
        sb.ShortcutNet(Twice(), taps=["shared"], num_classes=K, example=torch.randn(2, 2, 4))
