"""Networks of other frameworks, as they are: their spiking layers, their blocks, and every membrane replayed."""

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.adapters.neurons import neuron_of, spiking_layers
from spikeback.doctor.measure.blocks import find_blocks
from spikeback.foreign import first, reset_state

from .peers import fires, need, sinabs_layer, torch_neuron

pytestmark = pytest.mark.peers

T, B = 4, 3
RESNET18 = [f"layer{stage}.{i}" for stage in range(1, 5) for i in range(2)]


def recorded(net: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Currents and spikes, (T, B, ...) each, of every spiking layer in one forward."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with ExitStack() as hooks, torch.no_grad():
        for name, layer in spiking_layers(net).items():
            keep = lambda _, inputs, output, name=name: calls.setdefault(name, []).append((inputs[0], first(output)))
            hooks.callback(layer.register_forward_hook(keep).remove)
        net(x)
    return {name: (stacked([c for c, _ in pairs]), stacked([s for _, s in pairs])) for name, pairs in calls.items()}


def stacked(calls: list[Tensor]) -> Tensor:
    return calls[0] if len(calls) == 1 else torch.stack(calls)


def assert_replayed(net: nn.Module, x: Tensor, expected: list[str]) -> None:
    layers = spiking_layers(net)
    assert list(layers) == expected
    seen = recorded(net, x)
    for name, layer in layers.items():
        neuron, (current, spikes) = neuron_of(layer), seen[name]
        assert neuron is not None
        if type(layer).__module__.startswith("sinabs"):  # samples first
            current, spikes = (z.unflatten(0, (-1, T)) if z.shape[0] == B * T else z for z in (current, spikes))
            current, spikes = current.transpose(0, 1), spikes.transpose(0, 1)
        assert current.shape[:2] == (T, B)
        assert torch.equal(fires(neuron, layer, neuron.membrane(current, spikes)), spikes)
    assert max(spikes.mean() for _, spikes in seen.values()) > 0.01


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("kind", ["IFNode", "LIFNode", "ParametricLIFNode"])
def test_spikingjelly_resnet18(kind: str, mode: str) -> None:
    models = need("spikingjelly.activation_based.model.spiking_resnet")
    neuron, functional = need("spikingjelly.activation_based.neuron"), need("spikingjelly.activation_based.functional")
    node = getattr(neuron, kind)
    net = models.spiking_resnet18(
        pretrained=False, spiking_neuron=node, detach_reset=True, v_threshold=0.5, num_classes=5
    )
    functional.set_step_mode(net, mode)
    x = torch.randn(T, B, 3, 32, 32)
    blocks = find_blocks(net, spiking_layers(net))
    assert blocks == RESNET18
    names = ["sn1", *(f"{block}.{sn}" for block in blocks for sn in ("sn1", "sn2"))]
    if mode == "m":
        assert_replayed(net, x, names)
    else:
        net = sb.Unrolled(net, T)
        assert find_blocks(net, spiking_layers(net)) == [f"net.{block}" for block in RESNET18]
        assert_replayed(net, x, [f"net.{name}" for name in names])


class Stepped(nn.Module):
    """snnTorch's tutorials: layers as attributes, membranes handed on in a loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(20, 30), torch_neuron("Leaky", beta=0.9)
        self.fc2, self.lif2 = nn.Linear(30, 30), torch_neuron("Leaky", beta=0.8, reset_mechanism="zero")
        self.fc3, self.lif3 = nn.Linear(30, 5), torch_neuron("Lapicque", beta=0.8, threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        states: list[Any] = [lif.reset_mem() for lif in (self.lif1, self.lif2, self.lif3)]
        out = []
        for x_t in x:
            s, states[0] = self.lif1(self.fc1(x_t), states[0])
            s, states[1] = self.lif2(self.fc2(s), states[1])
            s, states[2] = self.lif3(self.fc3(s), states[2])
            out.append(s)
        return torch.stack(out)


def test_snntorch_net_in_a_loop() -> None:
    net = Stepped()
    assert_replayed(net, 3 * torch.randn(T, B, 20), ["lif1", "lif2", "lif3"])
    assert find_blocks(net, spiking_layers(net)) == ["lif1", "lif2", "lif3"]


def test_snntorch_net_with_hidden_state() -> None:
    lif = lambda: torch_neuron("Leaky", beta=0.5, threshold=0.2, init_hidden=True)
    pair = lambda inputs, outputs: nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), lif())
    net = sb.Unrolled(nn.Sequential(pair(3, 6), pair(6, 6), nn.Flatten(), nn.Linear(6 * 64, 5), lif()), T)
    assert_replayed(net, 2 * torch.randn(T, B, 3, 8, 8), ["net.0.1", "net.1.1", "net.4"])
    assert find_blocks(net, spiking_layers(net)) == ["net.0", "net.1"]


def test_norse_sequential_over_time() -> None:
    norse = need("norse.torch")
    p = norse.LIFParameters(v_th=torch.tensor(0.3), tau_mem_inv=torch.tensor(500.0))
    net = norse.SequentialState(nn.Linear(20, 30), norse.LIF(p), nn.Linear(30, 30), norse.IAF(), norse.LI())
    assert_replayed(net, 3 * torch.randn(T, B, 20), ["1", "3"])
    assert find_blocks(net, spiking_layers(net)) == ["1", "3"]


class Looped(nn.Module):
    """norse's cells in a loop over time, the state handed on."""

    def __init__(self) -> None:
        super().__init__()
        norse = need("norse.torch")
        p = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(750.0), v_th=torch.tensor(0.3))
        pair = lambda inputs, cell: norse.SequentialState(nn.Linear(inputs, 30), cell)
        self.net = norse.SequentialState(pair(20, norse.LIFBoxCell(p)), pair(30, norse.LIFCell()), nn.Linear(30, 5))

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for x_t in x:
            y, state = self.net(x_t, state)
            out.append(y)
        return torch.stack(out)


def test_norse_cells_in_a_loop() -> None:
    net = Looped()
    assert_replayed(net, 3 * torch.randn(T, B, 20), ["net.0.1", "net.1.1"])
    assert find_blocks(net, spiking_layers(net)) == ["net.0", "net.1"]


def test_sinabs_sequential() -> None:
    need("sinabs")
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        sinabs_layer("IAFSqueeze", batch_size=B, spike_threshold=torch.tensor(0.5)),
        nn.Conv2d(6, 6, 3, padding=1),
        sinabs_layer("LIFSqueeze", batch_size=B, tau_mem=2.0, spike_threshold=torch.tensor(0.1)),
        nn.Flatten(),
        nn.Unflatten(0, (B, T)),
        nn.Linear(6 * 64, 5),
        sinabs_layer("LIF", "SingleSpike", "MembraneReset", tau_mem=2.0, norm_input=False),
        need("sinabs.layers").ExpLeak(tau_mem=2.0),
    )
    assert_replayed(net, 2 * torch.randn(B * T, 2, 8, 8), ["1", "3", "7"])
    assert find_blocks(net, spiking_layers(net)) == ["1", "3", "7"]


def test_kinds_whose_recursion_is_unknown_are_spiking_all_the_same() -> None:
    neuron = need("spikingjelly.activation_based.neuron")
    net = nn.Sequential(neuron.KLIFNode(), neuron.NonSpikingLIFNode(), neuron.LIFNode())
    layers = spiking_layers(net)
    assert list(layers) == ["0", "2"]
    assert neuron_of(layers["0"]) is None


def assert_diagnosed(net: nn.Module, x: Tensor, theory: bool) -> None:
    """Gradients by autograd.grad of our own, every layer known, the net as before."""
    y = torch.arange(x.shape[1]) % 5
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = sb.diagnose(net, x, y, passes=("fidelity", "descent", "theory"))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert str(found).strip()
    for layer in found.layers:
        assert 0 <= layer["active"] <= 1
        assert len(layer["rate_by_step"]) == T
    outputs: dict[str, list[Tensor]] = {block["name"]: [] for block in found.blocks}
    reset_state(net)
    net.train()
    with ExitStack() as hooks:
        for name, calls in outputs.items():
            keep = lambda _module, _inputs, output, calls=calls: calls.append(first(output))
            hooks.callback(net.get_submodule(name).register_forward_hook(keep).remove)
        loss = torch.nn.functional.cross_entropy(first(net(x)).mean(0), y)
    flat = [z for calls in outputs.values() for z in calls]
    grads = iter(torch.autograd.grad(loss, flat))
    for block in found.blocks:
        own = torch.stack([next(grads).norm() for _ in outputs[block["name"]]]).norm().item()
        assert block["gradient"] == pytest.approx(own, rel=1e-3)
        assert block["gain"] is None or block["gain"] > 0
        assert not theory or 0.5 < block["predicted"] / block["gain"] < 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["m", "s"])
def test_spikingjelly_resnet18_is_diagnosed_as_it_is(mode: str) -> None:
    models = need("spikingjelly.activation_based.model.spiking_resnet")
    neuron, functional = need("spikingjelly.activation_based.neuron"), need("spikingjelly.activation_based.functional")
    net = models.spiking_resnet18(pretrained=False, spiking_neuron=neuron.IFNode, num_classes=5)
    functional.set_step_mode(net, mode)
    assert_diagnosed(net if mode == "m" else sb.Unrolled(net, T), torch.randn(T, 8, 3, 32, 32), theory=mode == "m")


def test_a_snntorch_net_is_diagnosed_as_it_is() -> None:
    need("snntorch")
    assert_diagnosed(Stepped(), 2 * torch.rand(T, 8, 20), theory=False)


def test_a_norse_net_is_diagnosed_as_it_is() -> None:
    assert_diagnosed(Looped(), 3 * torch.rand(T, 8, 20), theory=False)
