"""A neuron, a norm and a block from files outside the package: the examples of docs/extend.md, as they stand there."""

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.measure.residual import residual_norms
from spikeback.errors import UsageError
from spikeback.nn import neurons, plain
from spikeback.nn.blocks import BLOCKS
from spikeback.nn.norms import NORMS
from spikeback.train import ModelConfig
from spikeback.train.start import build_network

PAGE = (Path(__file__).parents[2] / "docs" / "extend.md").read_text()
FILES = dict(re.findall(r"```python\n# (my_\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
SMALL: dict[str, Any] = {"num_classes": 3, "width": 4, "time_steps": 3}
CHOICES: dict[str, dict[str, Any]] = {
    "my_neuron": {"neuron": "PLIF(tau=0.25)"},
    "my_norm": {"norm": "TEBN"},
    "my_block": {"block": "sew-add"},
}


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The files of the page, imported; what they registered is forgotten afterwards."""
    for registry in (neurons.NEURONS, NORMS, BLOCKS):
        monkeypatch.setattr(registry, "known", dict(registry.known))
    modules = {}
    for name, text in FILES.items():
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, name, "exec"), vars(module))
        modules[name] = module
    assert modules.keys() == CHOICES.keys()
    return modules


def made(name: str, net: str = "spiking_resnet18") -> Any:
    torch.manual_seed(0)
    return sb.create_model(net, **SMALL, **CHOICES[name])


@pytest.mark.parametrize("name", CHOICES)
def test_an_example_is_made_by_text_trained_and_diagnosed(name: str, files: dict[str, Any]) -> None:
    net = made(name)
    cls = {"my_neuron": "PLIF", "my_norm": "TEBN", "my_block": "SEWAdd"}[name]
    count = sum(isinstance(module, getattr(files[name], cls)) for module in net.modules())
    assert count == {"PLIF": 17, "TEBN": 20, "SEWAdd": 8}[cls]
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4) % 3
    model = sb.ShortcutNet(net, "stage", read="current")
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    nn.functional.cross_entropy(model(x, 0.5).mean(0), y).backward()
    optimiser.step()
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert all(any(key.endswith(own) for key in moved) for own in {"PLIF": ["w"], "TEBN": [".p"]}.get(cls, [""]))
    found = sb.diagnose(net, x, y, passes=["theory"] if cls == "PLIF" else [])
    assert len(found.blocks) == 8
    assert len(found.layers) == (20 if cls == "SEWAdd" else 17)
    assert not any("Not known" in note for note in found.facts["notes"])
    assert all(layer["threshold"] == 0.5 and layer["active"] is not None for layer in found.layers)


@pytest.mark.parametrize("name", CHOICES)
def test_the_command_chooses_them_by_text(name: str) -> None:
    config = ModelConfig(width=4, time_steps=3, threshold=0.75, surrogate="Triangle(1.3)", **CHOICES[name])
    net = build_network(config, 3, 3)
    expected = sb.create_model(
        "spiking_resnet18", **SMALL, neuron=sb.LIF(), **{k: v for k, v in CHOICES[name].items() if k != "neuron"}
    )
    if name != "my_neuron":
        assert {k: v.shape for k, v in net.state_dict().items()} == {
            k: v.shape for k, v in expected.state_dict().items()
        }
    for module in net.modules():
        if isinstance(module, sb.nn.Neuron):
            assert (module.threshold, module.surrogate) == (0.75, sb.surrogate.Triangle(1.3))
    assert ModelConfig(**vars(config)) == config


def test_plif_begins_as_the_lif_of_its_leak(files: dict[str, Any]) -> None:
    x = torch.randn(3, 2, 4, 5, 5)
    options: dict[str, Any] = {"threshold": 0.5, "surrogate": sb.surrogate.Triangle()}
    results = []
    for neuron in (files["my_neuron"].PLIF(0.5, **options), sb.LIF(0.5, **options)):
        y = x.clone().requires_grad_()
        with plain():
            spikes, u = neuron(y, return_state=True)
        (spikes * torch.arange(3.0).view(3, 1, 1, 1, 1)).sum().backward()
        results.append((spikes.detach(), u.detach(), y.grad))
    assert 0.1 < results[0][0].mean() < 0.9
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_tebn_scales_each_time_step_of_a_static_image(files: dict[str, Any]) -> None:
    """The image is convolved once; the norm still has T factors."""
    net = made("my_norm")
    norm = net.encoder[1]
    with torch.no_grad():
        norm.p.copy_(torch.tensor([1.0, 0.0, 2.0]))
    heard: list[Tensor] = []
    handle = net.stem[0].register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    net(torch.randn(2, 3, 8, 8))
    handle.remove()
    (current,) = heard
    assert current.shape[0] == 3
    assert current[0].abs().max() > 0
    assert not current[1].any()
    assert torch.equal(current[2], 2 * current[0])


def test_sew_add_is_its_equation(files: dict[str, Any]) -> None:
    block = files["my_block"].SEWAdd(4, 4)
    x = (torch.rand(3, 2, 4, 6, 6) > 0.5).float()
    for layer in (block.conv1, block.conv2):
        nn.init.zeros_(layer[1].weight)  # a silent branch
    assert torch.equal(block(x), x)


def test_fire_in_a_block_gives_what_its_modules_give(files: dict[str, Any]) -> None:
    class Fused(files["my_block"].SEWAdd):
        def forward(self, x: Tensor) -> Tensor:
            spikes = sb.nn.fire(self.lif1, sb.nn.current(self.conv1, x))
            return sb.nn.fire(self.lif2, sb.nn.current(self.conv2, spikes)) + self.shortcut(x)

    block, x = Fused(4, 4).eval(), (torch.rand(3, 2, 4, 6, 6) > 0.5).float()
    for layer in (block.conv1, block.conv2):
        layer[1].eps = 0.0
        layer[0].weight.data = torch.randint(-8, 9, layer[0].weight.shape) / 8
    assert torch.equal(block(x), files["my_block"].SEWAdd.forward(block, x))


def test_names_that_do_not_exist_list_what_does() -> None:
    for option, text in (("neuron", "PILF"), ("norm", "TENB"), ("block", "sew-ad")):
        choice: dict[str, Any] = {option: text}
        with pytest.raises(UsageError, match=rf"no {option} '{text}' \(did you mean"):
            sb.create_model("spiking_resnet18", **SMALL, **choice)
        with pytest.raises(UsageError, match=rf"^model.{option}: no {option} '{text}'"):
            ModelConfig(**choice)
    with pytest.raises(UsageError, match=r"'PLIF\(tua=1\)' .*PLIF takes tau, threshold, surrogate, detach_reset"):
        ModelConfig(neuron="PLIF(tua=1)")
    with pytest.raises(UsageError, match="spiking_vgg11 has no residual blocks to choose: leave block='sew-add' out"):
        sb.create_model("spiking_vgg11", block="sew-add")
    with pytest.raises(UsageError, match="neuron 'lif' exists: spikeback"):
        sb.neurons.register(type("Mine", (sb.LIF,), {}), "lif")


def test_the_text_of_a_neuron_sets_the_options_it_names() -> None:
    config = ModelConfig(neuron="LIF(tau=0.5, surrogate=Triangle(1.0))")
    assert (config.neuron, config.tau, config.surrogate) == ("LIF", 0.5, "Triangle(gamma=1.0)")
    with pytest.raises(UsageError, match=r"model.neuron=LIF\(tau=0.5\) and model.tau=0.3: leave one of both out"):
        ModelConfig(neuron="LIF(tau=0.5)", tau=0.3)
    with pytest.raises(UsageError, match=r"model\.tau must lie in"):
        ModelConfig(neuron="LIF(tau=7)")


def test_a_config_of_before_is_what_it_was() -> None:
    """Old results know nothing of neuron, norm and block."""
    old: dict[str, Any] = {k: v for k, v in vars(ModelConfig()).items() if k not in ("neuron", "norm", "block")}
    assert ModelConfig(**old) == ModelConfig()
    nets = []
    for build in (
        lambda: build_network(ModelConfig(**{**old, "width": 4}), 5, 3),
        lambda: sb.create_model("spiking_resnet18", 5, width=4),
    ):
        torch.manual_seed(3)
        nets.append(build())
    assert repr(nets[0]) == repr(nets[1])
    for key, value in nets[0].state_dict().items():
        assert torch.equal(value, nets[1].state_dict()[key]), key


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.slow
def test_residual_norms_of_an_example_are_scaled(name: str) -> None:
    """A norm that holds a batch norm is scaled by the weight of that: training calibrates it as any other."""
    net = made(name)
    norms = residual_norms(net)
    assert len(norms) == (0 if name == "my_block" else 8)
    if norms:
        before = {block: norm.weight.clone() for block, norm in norms.items()}
        found = sb.calibrate(net, torch.randn(4, 3, 16, 16), gain=None, fidelity=0.3)
        scale = torch.tensor(found.norm_scale)
        assert all(torch.allclose(norm.weight, before[block] * scale) for block, norm in norms.items())
