"""A sick network of any framework: what is proposed works on it and is printed as it is applied, or nothing changes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.adapters.settings import threshold_of
from spikeback.doctor.measure.feeds import survey
from spikeback.doctor.remedies.treatments import out_of_reach, widen
from spikeback.errors import UsageError

from .peers import jelly, need, norse_cell, sinabs_layer, torch_neuron

pytestmark = pytest.mark.peers

T, B = 4, 16
HIGH = 20.0


class Net(nn.Module):
    """Two layers of neurons, run as their framework runs them: frames (T, B, F) -> logits (T, B, K)."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.fc1, self.act1, self.fc2, self.act2 = nn.Linear(20, 30), make(), nn.Linear(30, 30), make()
        self.fc3 = nn.Linear(30, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(run(self.act2, self.fc2(run(self.act1, self.fc1(x)))))


def run(layer: Any, x: Tensor) -> Tensor:
    framework = type(layer).__module__.partition(".")[0]
    if framework == "sinabs":
        return layer(x.transpose(0, 1)).transpose(0, 1)
    name = type(layer).__name__
    if framework in ("spikingjelly", "spikeback") or name in ("LeakyParallel", "LIF", "LSNN", "LIFRefracRecurrent"):
        out = layer(x)
        return out[0] if isinstance(out, tuple) else out
    state, out = (), []
    for x_t in x:
        s, *state = layer(x_t, *state)
        out.append(s)
    return torch.stack(out)


def parallel(kind: str, **options: Any) -> Any:
    node = jelly(kind, **options) if kind != "PSN" else need("spikingjelly.activation_based.neuron").PSN(T)
    nn.init.constant_(node.bias, -HIGH)
    return node


def refractory() -> Any:
    norse = need("norse.torch")
    lif = norse.LIFParameters(v_th=torch.tensor(HIGH))
    return norse.LIFRefracRecurrent(30, 30, norse.LIFRefracParameters(lif=lif))


def lsnn() -> Any:
    norse = need("norse.torch")
    return norse.LSNN(norse.LSNNParameters(v_th=torch.tensor(HIGH)))


SICK = {
    "ours": lambda: sb.LIF(0.25, HIGH),
    **{
        kind: lambda kind=kind: jelly(kind, v_threshold=HIGH)
        for kind in ("IFNode", "LIFNode", "ParametricLIFNode", "KLIFNode", "ComplementaryLIFNode", "QIFNode",
                     "HalfThresholdIFNode", "TernaryIFNode", "ActivationAwareIFNode")
    },
    "ILIFNode": lambda: need("spikingjelly.activation_based.neuron").ILIFNode(v_threshold=HIGH, step_mode="m"),
    "by_channel": lambda: jelly("ActivationAwareIFNode", v_threshold=torch.full((30,), HIGH)),
    "DSRIFNode": lambda: need("spikingjelly.activation_based.neuron").DSRIFNode(T, v_threshold=50.0),
    "DSRLIFNode": lambda: need("spikingjelly.activation_based.neuron").DSRLIFNode(T, v_threshold=50.0),
    "PSN": lambda: parallel("PSN"),
    "SlidingPSN": lambda: parallel("SlidingPSN", k=2),
    "Leaky": lambda: torch_neuron("Leaky", beta=0.9, threshold=HIGH),
    "Leaky_integer": lambda: torch_neuron("Leaky", beta=0.9, threshold=20),
    "Leaky_learnt": lambda: torch_neuron("Leaky", beta=0.9, threshold=HIGH, learn_threshold=True),
    "Lapicque": lambda: torch_neuron("Lapicque", beta=0.9, threshold=HIGH),
    "Synaptic": lambda: torch_neuron("Synaptic", alpha=0.9, beta=0.8, threshold=HIGH),
    "Alpha": lambda: torch_neuron("Alpha", alpha=0.9, beta=0.8, threshold=HIGH),
    "LeakyParallel": lambda: need("snntorch").LeakyParallel(30, 30, beta=0.5, threshold=HIGH),
    "norse_LIF": lambda: norse_cell("LIF", v_th=HIGH),
    "norse_box": lambda: norse_cell("LIFBoxCell", v_th=HIGH),
    "norse_IAF": lambda: norse_cell("IAFCell", v_th=HIGH),
    "norse_LSNN": lsnn,
    "norse_refractory": refractory,
    "sinabs_LIF": lambda: sinabs_layer("LIF", tau_mem=3.0, spike_threshold=torch.tensor(HIGH)),
    "sinabs_IAF": lambda: sinabs_layer("IAF", spike_threshold=torch.tensor(HIGH)),
    "sinabs_ALIF": lambda: sinabs_layer(
        "ALIF", "SingleSpike", tau_mem=3.0, tau_adapt=9.0, spike_threshold=torch.tensor(HIGH)
    ),
}  # fmt: skip


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(T, B, 20, generator=torch.Generator().manual_seed(0)), torch.arange(B) % 5


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return Net(SICK[name])


def diagnosed(net: nn.Module) -> Any:
    return sb.diagnose(net, *data(), passes=())


def thresholds(net: Any) -> list[Tensor]:
    """As the frameworks hold them."""
    found = []
    for layer in (net.act1, net.act2):
        attribute = threshold_of(layer)
        assert attribute is not None
        value: Any = layer
        for part in attribute.name.split("."):
            value = getattr(value, part)
        found.append(torch.as_tensor(value).detach().clone())
    return found


@pytest.mark.parametrize("name", SICK)
def test_the_first_remedy_wakes_a_dead_network_and_is_printed_as_it_is_applied(name: str) -> None:
    net, (x, y) = made(name), data()
    before, learnt = thresholds(net), [p.requires_grad for p in net.parameters()]
    found = diagnosed(net)
    assert found.verdict.kind == "dead"
    assert all(torch.equal(a, b) for a, b in zip(thresholds(net), before, strict=True))  # tried, and taken back
    remedy, typed = found.verdict.remedies[0], made(name)
    assert remedy.title == "threshold"
    assert remedy.apply(net, x, y) is net
    assert all(layer["silent"] < 0.95 for layer in diagnosed(net).layers)
    exec(remedy.code, {"net": typed, "torch": torch, "sb": sb})  # what is printed can be typed
    assert all(torch.equal(a, b) for a, b in zip(thresholds(net), thresholds(typed), strict=True))
    assert [p.requires_grad for p in net.parameters()] == learnt


@pytest.mark.parametrize("framework", ["sinabs", "norse"])
def test_other_networks_of_the_process_keep_their_thresholds(framework: str) -> None:
    """sinabs' layers share the tensor that is their default threshold, norse's their default parameters."""
    make: Callable[[], Any] = {
        "sinabs": lambda: need("sinabs.layers").LIF(tau_mem=3.0),
        "norse": lambda: need("norse.torch").LIF(),
    }[framework]
    torch.manual_seed(0)
    net, other, (x, y) = Net(make), make(), data()
    remedies = sb.diagnose(net, 0.5 * x, y, passes=()).verdict.remedies
    next(remedy for remedy in remedies if remedy.title == "threshold").apply(net, 0.5 * x, y)
    attribute = threshold_of(other)
    assert attribute is not None
    assert attribute.value(other) == attribute.value(make()) == 1.0
    assert all(float(t) < 1 for t in thresholds(net))


def mute(net: Any) -> Any:
    """No threshold above 0 makes the first layer fire."""
    with torch.no_grad():
        net.fc1.weight.mul_(0.01)
        net.fc1.bias.fill_(-1.0)
    return net


def test_a_remedy_that_does_not_help_changes_nothing_and_says_so() -> None:
    net, (x, y) = made("IFNode"), data()
    remedy = diagnosed(net).verdict.remedies[0]
    with pytest.raises(UsageError, match="nothing was changed, as layer 'act1' is dead"):
        remedy.apply(mute(net), x, y)
    assert [float(t) for t in thresholds(net)] == [HIGH, HIGH]
    with pytest.raises(UsageError, match="a layer 'act1'"):
        remedy.apply(nn.Sequential(nn.Linear(20, 5)), x, y)


def test_what_no_threshold_wakes_is_not_told_to_change_it() -> None:
    net = mute(made("LIFNode"))
    assert "threshold" not in [remedy.title for remedy in diagnosed(net).verdict.remedies]


def test_ours_is_told_the_number_for_the_command_as_well() -> None:
    """The usual 0.5, behind a batch norm, would leave this one dead."""
    net: Any = made("ours")
    with torch.no_grad():
        net.fc1.weight.mul_(0.2)
        net.fc1.bias.zero_()
    code = diagnosed(net).verdict.remedies[0].code
    value = float(code.rpartition("  # command: --model.threshold ")[2])
    assert f"= {value}\n" in code or f"= {value}  #" in code
    assert 0 < value < 0.5
    for number, kind in ((0.5, "dead"), (value, "healthy")):
        net.act1.threshold = net.act2.threshold = number
        assert diagnosed(net).verdict.kind == kind


LEAKY = {
    "ours": lambda: sb.LIF(0.0, 0.8),
    "SimpleLIFNode": lambda: jelly("SimpleLIFNode", tau=1.0001, decay_input=False, v_threshold=0.8),
    "Leaky": lambda: torch_neuron("Leaky", beta=0.0, threshold=0.8, reset_mechanism="zero"),
    "sinabs_LIF": lambda: sinabs_layer("LIF", tau_mem=0.1, norm_input=False, spike_threshold=torch.tensor(0.8)),
}


class Summing(Net):
    """Currents of 0.4 at every step: they reach 0.8 only added up."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(run(self.act2, 0.4 + 0 * self.fc2(run(self.act1, 0.4 + 0.01 * self.fc1(x)))))


@pytest.mark.parametrize("name", LEAKY)
def test_a_leak_is_raised_by_its_own_name(name: str) -> None:
    net, typed, (x, y) = Summing(LEAKY[name]), Summing(LEAKY[name]), data()
    found = diagnosed(net)
    assert found.verdict.cause.startswith("leak")
    remedy = found.verdict.remedies[0]
    assert remedy.title == "leak"
    remedy.apply(net, x, y)
    exec(remedy.code, {"net": typed, "torch": torch, "sb": sb})
    for treated in (net, typed):
        assert all(layer["silent"] < 0.95 for layer in diagnosed(treated).layers)


WIDTHS = {
    "ours": lambda: sb.LIF(0.25, 0.5, sb.surrogate.Rectangle(0.01)),
    "Rect": lambda: jelly("IFNode", "Rect", v_threshold=0.5),
    "SingleExponential": lambda: sinabs_layer("IAF", spike_threshold=torch.tensor(0.5)),
}


def narrow(layer: Any) -> Any:
    if hasattr(layer, "surrogate_function"):
        layer.surrogate_function.alpha = 100.0
    if hasattr(layer, "surrogate_grad_fn"):
        layer.surrogate_grad_fn = type(layer.surrogate_grad_fn)(grad_width=2e-4)
    return layer


@pytest.mark.parametrize("name", WIDTHS)
def test_a_surrogate_is_widened_where_membranes_lie_outside_and_only_there(name: str) -> None:
    torch.manual_seed(0)
    net, (x, y) = Net(lambda: narrow(WIDTHS[name]())), data()
    typed = copy.deepcopy(net)
    names = ("act1", "act2")
    treatment = widen(net, x, B, names)
    assert treatment is not None
    assert out_of_reach(survey(net, x, B, names)[0])
    treatment.apply(net, x, y)
    exec(treatment.code(typed), {"net": typed, "torch": torch, "sb": sb, "copy": copy})
    assert not out_of_reach(survey(net, x, B, names)[0])
    assert not out_of_reach(survey(typed, x, B, names)[0])


def test_no_surrogate_width_where_membranes_lie_inside() -> None:
    """A network of SpikingJelly that is chaotic or vanishing for other reasons is not told to widen its surrogate."""
    torch.manual_seed(0)
    layers = [m for _ in range(8) for m in (nn.Linear(20, 20), jelly("IFNode", "Sigmoid", v_threshold=0.5))]
    for m in layers[::2]:
        nn.init.normal_(m.weight, std=0.05)
    net, (x, y) = nn.Sequential(*layers, nn.Linear(20, 5)), data()
    found = sb.diagnose(net, 20 * x, y, passes=())
    assert found.verdict.kind != "healthy"
    assert "surrogate width" not in [remedy.title for remedy in found.verdict.remedies]


@pytest.mark.parametrize("averaged", [False, True])
def test_branches_are_proposed_as_this_network_can_have_them(averaged: bool) -> None:
    """Some networks hand out logits (B, K), the mean over time."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = [(nn.Linear(20, 20), jelly("IFNode", "Sigmoid", v_threshold=0.3)) for _ in range(8)]
            self.blocks = nn.Sequential(*(nn.Sequential(*pair) for pair in pairs))
            self.fc = nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.fc(self.blocks(x))
            return logits.mean(0) if averaged else logits

    torch.manual_seed(0)
    net, (x, y) = Deep(), data()
    found = sb.diagnose(net, x, y, passes=("fidelity",))
    (remedy,) = [remedy for remedy in found.verdict.remedies if remedy.title == "branches"]
    assert isinstance(remedy.apply(net, x, y), sb.ShortcutNet)
    scope = {"net": net, "sb": sb, "x": x}
    exec(remedy.code, scope)
    model: Any = scope["model"]
    assert model(x, 0.25).shape[1:] == (B, 5)
    assert ("TimeAveraged" in remedy.code) == averaged
