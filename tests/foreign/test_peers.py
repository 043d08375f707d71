"""Networks of other frameworks: branches see their own samples, and the doctor's figures are those counted by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.foreign import reset_state

from ..doctor.peers import jelly, need, norse_cell, sinabs_layer, torch_neuron

pytestmark = pytest.mark.peers

K = 5


class Sinabs(nn.Module):
    """Frames (T, B, C, H, W) -> (T, B, K); inside, sinabs' way, samples come first."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        squeezed = lambda threshold: sinabs_layer(
            "LIFSqueeze", num_timesteps=steps, tau_mem=4.0, spike_threshold=torch.tensor(threshold), norm_input=False
        )
        self.conv1, self.lif1 = nn.Conv2d(2, 6, 3, padding=1), squeezed(0.5)
        self.conv2, self.lif2 = nn.Conv2d(6, 8, 3, padding=1), squeezed(0.3)
        self.repeat = need("sinabs.layers").Repeat(nn.Conv2d(8, 4, 3))
        self.lif3 = sinabs_layer("IAF", spike_threshold=torch.tensor(0.05))
        self.fc = nn.Linear(4 * 36, K)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        z = self.lif2(self.conv2(self.lif1(self.conv1(x.flatten(0, 1))))).unflatten(0, x.shape[:2])
        return self.fc(self.lif3(self.repeat(z)).flatten(2)).transpose(0, 1)


class Jelly(nn.Module):
    """SpikingJelly, several steps a call; a sequence (T, B, C, L)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        layer = need("spikingjelly.activation_based.layer")
        self.conv1, self.sn1 = layer.Conv1d(2, 6, 3, padding=1, step_mode="m"), jelly("IFNode", v_threshold=0.3)
        self.conv2, self.sn2 = layer.Conv1d(6, 8, 3, padding=1, step_mode="m"), jelly("LIFNode", v_threshold=0.2)
        self.fc = nn.Linear(8, K)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(3)
        return self.fc(self.sn2(self.conv2(self.sn1(self.conv1(x)))).mean(-1))


def jelly_steps(steps: int) -> nn.Module:
    """SpikingJelly, one step a call; as many channels as there may be samples."""
    node = lambda: jelly("LIFNode", tau=1.5, v_threshold=0.1)
    net = nn.Sequential(nn.Conv2d(2, 16, 3), node(), nn.Conv2d(16, 8, 3), node(), nn.Flatten(), nn.Linear(8 * 16, K))
    need("spikingjelly.activation_based.functional").set_step_mode(net, "s")
    return sb.Unrolled(net, steps)


def torch_steps(steps: int) -> nn.Module:
    lif = lambda: torch_neuron("Leaky", beta=0.5, threshold=0.3, init_hidden=True)
    net = nn.Sequential(nn.Conv2d(2, 16, 3), lif(), nn.Conv2d(16, 8, 3), lif(), nn.Flatten(), nn.Linear(8 * 16, K))
    return sb.Unrolled(net, steps)


def norse_steps(steps: int) -> nn.Module:
    cell = lambda: norse_cell("LIFBoxCell", tau_mem_inv=500.0, v_th=0.2)
    conv = (nn.Conv2d(2, 16, 3), cell(), nn.Conv2d(16, 8, 3), cell(), nn.Flatten(), nn.Linear(8 * 16, K))
    return sb.Unrolled(need("norse.torch").SequentialState(*conv), steps)


def norse_sequence(steps: int) -> nn.Module:
    """Frames at once, time first: norse lifts a convolution over time."""
    norse = need("norse.torch")
    p = norse.LIFParameters(v_th=torch.tensor(0.2), tau_mem_inv=torch.tensor(500.0))
    conv = (norse.Lift(nn.Conv2d(2, 6, 3)), norse.LIF(p), norse.Lift(nn.Conv2d(6, 8, 3)), norse.LIF(p))
    return norse.SequentialState(*conv, nn.Flatten(2), nn.Linear(8 * 16, K))


class Fixed(nn.Module):
    """sinabs' layers for one size of batch, (B*T, C, H, W) -> (T, B, K), as its tutorials have them."""

    def __init__(self, steps: int, batch: int) -> None:
        super().__init__()
        squeezed = lambda: sinabs_layer("IAFSqueeze", batch_size=batch, spike_threshold=torch.tensor(0.3))
        self.conv1, self.lif1, self.conv2, self.lif2 = nn.Conv2d(2, 6, 3), squeezed(), nn.Conv2d(6, 8, 3), squeezed()
        self.unflatten, self.fc = nn.Unflatten(0, (batch, steps)), nn.Linear(8 * 16, K)

    def forward(self, x: Tensor) -> Tensor:
        z = self.unflatten(self.lif2(self.conv2(self.lif1(self.conv1(x)))))
        return self.fc(z.flatten(2)).transpose(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "batch"), [(4, 4), (3, 8)])
def test_a_network_for_one_size_of_batch_takes_samples_first(steps: int, batch: int) -> None:
    net, x = Fixed(steps, batch), 2 * torch.rand(batch * steps, 2, 8, 8)
    layers = ["lif1", "lif2"]
    found = sb.diagnose(net, x, torch.arange(batch) % K, blocks=layers, passes=("fidelity",), noise=0.0)
    for layer, block in zip(layers, found.blocks, strict=True):
        spikes: list[Tensor] = []
        hook = net.get_submodule(layer).register_forward_hook(lambda _m, _i, out, of=spikes: of.append(out))
        reset_state(net)
        net(x)
        hook.remove()
        z = spikes[0].unflatten(0, (batch, steps)).transpose(0, 1)
        assert block["rate_by_step"] == pytest.approx(z.flatten(1).mean(1).tolist(), abs=1e-6)
        assert block["fidelity"] == pytest.approx(1.0, abs=1e-5)
        a, b = z.flatten(), z.roll(1, 1).flatten()
        assert block["unrelated"] == pytest.approx(torch.corrcoef(torch.stack([a, b]))[0, 1].item(), abs=1e-4)
    model = sb.ShortcutNet(net, taps=["conv1", "lif1", "lif2"], num_classes=K, example=x)
    _, before = model.logits(x)
    x = x.unflatten(0, (batch, steps)).clone()
    x[1] = 0
    for logits, tap in zip(model.logits(x.flatten(0, 1))[1].values(), model.taps, strict=True):
        changed = (logits != before[tap]).flatten(2).any(2).any(0)
        assert changed.tolist() == [b == 1 for b in range(batch)]


# By name: the network for T steps, its taps, which of them are spiking layers.
NETS: dict[str, tuple[Callable[[int], nn.Module], list[str], list[str]]] = {
    "sinabs": (Sinabs, ["conv1", "lif1", "conv2", "lif2", "repeat", "lif3"], ["lif1", "lif2", "lif3"]),
    "spikingjelly": (Jelly, ["conv1", "sn1", "conv2", "sn2"], ["sn1", "sn2"]),
    "spikingjelly step by step": (jelly_steps, [f"net.{i}" for i in range(4)], ["net.1", "net.3"]),
    "snntorch": (torch_steps, [f"net.{i}" for i in range(4)], ["net.1", "net.3"]),
    "norse": (norse_steps, [f"net.{i}" for i in range(4)], ["net.1", "net.3"]),
    "norse at once": (norse_sequence, ["0", "1", "2", "3"], ["1", "3"]),
}
SIZES = [(3, 2), (4, 4), (8, 4), (2, 8), (1, 3), (3, 1)]


def made(name: str, steps: int, batch: int) -> tuple[nn.Module, Tensor, list[str], list[str]]:
    make, taps, layers = NETS[name]
    return make(steps), 2 * torch.rand(steps, batch, 2, 8, 8), taps, layers


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("steps", "batch"), SIZES)
def test_a_sample_changes_its_own_branch_logits_only(name: str, steps: int, batch: int) -> None:
    net, x, taps, _ = made(name, steps, batch)
    model = sb.ShortcutNet(net, taps=taps, num_classes=K, example=x)
    widths = [branch.in_features for branch in model.branches.values()]  # pyright: ignore
    assert set(widths) <= {4, 6, 8, 16}
    _, before = model.logits(x)
    for b in range(batch):
        other = x.clone()
        other[:, b] = 0
        for tap, logits in model.logits(other)[1].items():
            changed = (logits != before[tap]).flatten(2).any(2).any(0)
            assert changed.tolist() == [i == b for i in range(batch)], tap


@pytest.mark.parametrize("name", NETS)
def test_what_is_found_with_one_sample_holds_for_more(name: str) -> None:
    net, x, taps, _ = made(name, 4, 5)
    one, many = (sb.ShortcutNet(net, taps=taps, num_classes=K, example=z) for z in (x[:, :1], x))
    assert one.layouts == many.layouts


def by_hand(net: nn.Module, x: Tensor, name: str, steps: int, batch: int) -> Tensor:
    """What a module puts out in one forward, (T, B, ...)."""
    calls: list[Tensor] = []
    keep = lambda _m, _i, out: calls.append((out[0] if isinstance(out, tuple) else out).detach().clone())
    hook = net.get_submodule(name).register_forward_hook(keep)
    reset_state(net)
    with torch.no_grad():
        net(x)
    hook.remove()
    if len(calls) > 1:
        return torch.stack(calls)
    (z,) = calls
    if isinstance(net, Sinabs):  # samples first
        return (z if z.ndim == 5 else z.unflatten(0, (batch, steps))).transpose(0, 1)
    return z if z.shape[0] == steps and z.shape[1] == batch else z.unflatten(0, (steps, batch))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("steps", "batch"), [(4, 4), (8, 4), (2, 8), (3, 16)])
def test_rates_and_fidelity_are_those_counted_by_hand(name: str, steps: int, batch: int) -> None:
    net, x, _, layers = made(name, steps, batch)
    found = sb.diagnose(net, x, torch.arange(batch) % K, blocks=layers, passes=("fidelity",), noise=0.0)
    assert found.facts["time_steps"] == steps
    rows = {row["name"]: row for row in found.layers}
    for layer, block in zip(layers, found.blocks, strict=True):
        z = by_hand(net, x, layer, steps, batch)
        assert rows[layer]["rate_by_step"] == pytest.approx(z.flatten(1).mean(1).tolist(), abs=1e-6)
        assert rows[layer]["silent"] == pytest.approx((z.sum((0, 1)) == 0).float().mean().item())
        a, b = z.flatten(), z.roll(1, 1).flatten()
        assert block["fidelity"] == pytest.approx(1.0, abs=1e-5)
        assert block["unrelated"] == pytest.approx(torch.corrcoef(torch.stack([a, b]))[0, 1].item(), abs=1e-4)
        assert len(block["gradient_by_step"]) == steps


@pytest.mark.parametrize("name", NETS)
def test_gradients_by_step_are_those_of_autograd(name: str) -> None:
    steps, batch = 4, 4
    net, x, _, layers = made(name, steps, batch)
    y = torch.arange(batch) % K
    found = sb.diagnose(net, x, y, blocks=layers, passes=())
    for layer, block in zip(layers, found.blocks, strict=True):
        calls: list[Tensor] = []
        keep = lambda _m, _i, out, calls=calls: calls.append(out[0] if isinstance(out, tuple) else out)
        hook = net.get_submodule(layer).register_forward_hook(keep)
        reset_state(net)
        out: Any = net(x)
        hook.remove()
        loss = nn.functional.cross_entropy((out[0] if isinstance(out, tuple) else out).mean(0), y)
        grads = [*torch.autograd.grad(loss, calls)]
        g = torch.stack(grads) if len(grads) > 1 else grads[0]
        if isinstance(net, Sinabs):
            g = (g if g.ndim == 5 else g.unflatten(0, (batch, steps))).transpose(0, 1)
        assert block["gradient_by_step"] == pytest.approx(g.flatten(1).norm(dim=1).tolist(), rel=1e-3)


def test_one_network_does_not_wipe_the_others() -> None:
    mine, other = torch_steps(2), torch_steps(2)
    x = 2 * torch.rand(3, 2, 8, 8)
    other(x)
    neuron: Any = other.get_submodule("net.1")
    membrane = neuron.mem.detach().clone()
    assert membrane.any()
    model = sb.ShortcutNet(mine, taps=["net.1"], num_classes=K, example=x)
    model(x, 0.25)
    sb.diagnose(mine, x, torch.arange(3), blocks=["net.1", "net.3"], passes=())
    model.strip()
    assert torch.equal(neuron.mem, membrane)


@pytest.mark.parametrize("name", NETS)
def test_the_stripped_network_has_forgotten(name: str) -> None:
    net, x, taps, _ = made(name, 3, 4)
    model = sb.ShortcutNet(net, taps=taps, num_classes=K, example=x)
    model(x, 0.25).sum().backward()
    expected = model(x).detach()
    plain = copy.deepcopy(model.strip())
    logits = plain(x)
    assert torch.equal(logits[0] if isinstance(logits, tuple) else logits, expected)


def test_norse_cells_keep_their_state_from_step_to_step() -> None:
    cell, x = norse_cell("LIFBoxCell", tau_mem_inv=100.0, v_th=50.0), torch.ones(2, 3)
    state = None
    for _ in range(3):
        _, state = cell(x, state)
    net = need("norse.torch").SequentialState(need("norse.torch").LICell())
    logits = sb.Unrolled(net, 20)(x)
    assert (logits[1:] > logits[:-1]).all()  # a leaky integrator rises towards its input
