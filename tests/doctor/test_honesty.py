"""What one batch cannot tell is not told, and what is wrong beside the gradient is."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikeback as sb
from spikeback.report.doctor import doctor_text, write_diagnosis

from .cases import Chain, assert_same, mean_cross_entropy, residual_net, smooth_images, snapshot, some_labels

X, Y = smooth_images(32, 1), some_labels(32, 4)


def small_net(**options: Any) -> Any:
    return residual_net((1, 1), width=8, num_classes=4, **options)


@pytest.fixture(scope="module")
def trained() -> Any:
    """A network that knows its batch by heart; its running statistics are those of a pass over it."""
    net = small_net()
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(30):
        optimiser.zero_grad()
        mean_cross_entropy(net(X), Y).backward()
        optimiser.step()
    torch.optim.swa_utils.update_bn([(X,)], net)
    return net


def accuracy(net: nn.Module, training: bool) -> float:
    with torch.no_grad():
        return (copy.deepcopy(net).train(training)(X).mean(0).argmax(-1) == Y).float().mean().item()


@pytest.mark.parametrize("fault", ["far", "reset", "one norm"])
@pytest.mark.slow
def test_stale_statistics(trained: Any, fault: str, tmp_path: Any) -> None:
    assert sb.diagnose(trained, X, Y, passes=()).verdict.kind != "statistics"
    net = copy.deepcopy(trained)
    norms: list[Any] = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms[-3:-2] if fault == "one norm" else norms:
        norm.reset_running_stats()
        if fault != "reset":  # as if updated: a count of 0 alone would be no excuse
            norm.num_batches_tracked.fill_(100)
            norm.running_mean.fill_(3.0)
    assert accuracy(net, True) > 0.8 > 0.6 > accuracy(net, False)
    diagnosis = sb.diagnose(net, X, Y, passes=())
    verdict = diagnosis.verdict
    assert verdict.kind == "statistics", str(verdict)
    assert f"{100 * accuracy(net, False):.0f} % right" in verdict.cause
    assert "statistics" in verdict.blocks.values() or fault == "one norm"
    if fault == "far":
        facts = diagnosis.as_dict()
        assert "statistics" in doctor_text(facts)
        page = write_diagnosis(facts, tmp_path / "page.html").read_text()
        assert "Statistics, by statistics" in page
        assert "✚" in page  # the mark of the kind
    assert verdict.remedies[0].title == "statistics"
    before = {name: p.clone() for name, p in net.named_parameters()}
    net = verdict.remedies[0].apply(net, X, Y)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert accuracy(net, False) > 0.8
    assert sb.diagnose(net, X, Y, passes=()).verdict.kind != "statistics"


def test_an_untrained_network_has_no_stale_statistics() -> None:
    for seed in range(3):
        net = small_net(seed=seed)
        before = snapshot(net)
        diagnosis = sb.diagnose(net, X, Y, passes=())
        assert diagnosis.verdict.kind != "statistics"
        assert_same(before, snapshot(net))


def test_a_batch_without_variety_is_named() -> None:
    net = small_net()
    for x, y in ((X[:1].expand(16, -1, -1, -1).contiguous(), Y[:16]), (X[:1], Y[:1])):
        found = sb.diagnose(net, x, y, passes=("fidelity",))
        assert found.verdict.kind == "healthy"
        assert set(found.verdict.blocks.values()) == {"healthy"}
        assert "The batch has no variety" in found.verdict.cause
        assert "far above the threshold" not in str(found)
    zero = sb.diagnose(net, 0 * X, Y, passes=()).verdict
    assert (zero.kind, zero.cause.partition(":")[0]) == ("dead", "input")
    assert zero.remedies == ()
    assert "All labels are one class" in sb.diagnose(net, X, 0 * Y, passes=()).verdict.cause
    plain = sb.diagnose(net, X, Y, passes=()).verdict.cause
    assert not any(word in plain for word in ("variety", "one class", "frozen", "gradient:", "at random"))


def test_a_low_threshold_behind_a_norm_is_the_thresholds_fault() -> None:
    net = residual_net((2, 2), width=8, neuron=sb.LIF(0.25, 0.001, sb.surrogate.Rectangle(0.01)))
    verdict = sb.diagnose(net, X, Y, passes=()).verdict
    assert verdict.kind != "healthy"
    assert verdict.cause.startswith("threshold: ")
    assert "0.001" in verdict.cause
    assert verdict.remedies[0].title == "threshold"


def test_what_would_not_be_trained_is_said() -> None:
    net = small_net().requires_grad_(False)
    assert "No parameter requires a gradient" in sb.diagnose(net, X, Y, passes=()).verdict.cause
    net.fc.requires_grad_(True)
    total = len([*net.parameters()])
    assert f"{total - 2} of {total} parameters are frozen" in sb.diagnose(net, X, Y, passes=()).verdict.cause


@pytest.mark.parametrize("always", [True, False])
def test_randomness_in_evaluation_is_said(always: bool) -> None:
    net = Chain(6, 8, 8, steps=2)

    def dropped(module: nn.Module, _args: Any, z: Tensor) -> Tensor:
        return F.dropout(z, 0.2, always or module.training)

    net.first.register_forward_hook(dropped)
    x, y = 2 * torch.rand(16, 6), some_labels(16, 2)
    cause = sb.diagnose(net, x, y, blocks=["first", "second"], passes=()).verdict.cause
    assert ("draws at random in evaluation" in cause) == always


def test_one_norm_far_too_large_is_named() -> None:
    net = small_net(neuron=sb.LIF(surrogate=sb.surrogate.Rectangle(1.0)))
    with torch.no_grad():
        net.layer2[0].conv1[1].weight.mul_(1e3)
    verdict = sb.diagnose(net, X, Y, passes=()).verdict
    assert verdict.kind == "exploding"
    assert "layer2.0.conv1.1" in verdict.cause
    assert verdict.remedies[0].title == "norm weights"


def test_zero_weights_with_a_bias_before_a_norm_are_no_small_gamma() -> None:
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
    nn.init.zeros_(layers[2].weight)
    over = lambda conv, norm: Merged(nn.Sequential(conv, norm))
    net = nn.Sequential(over(*layers[:2]), sb.LIF(), over(*layers[2:]), sb.LIF(), Readout())
    verdict = sb.diagnose(net, X.expand(2, *X.shape), Y, blocks=["0", "2"], passes=()).verdict
    assert verdict.kind == "dead"
    assert verdict.cause.startswith("zero weights: ")
    assert "2.layer.0" in verdict.cause


class Merged(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Readout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((-2, -1)))


class Both(nn.Module):
    """Logits, and something of the same shape beside them, as tutorials return spikes and membranes."""

    def __init__(self, beside: bool) -> None:
        super().__init__()
        self.net, self.beside = small_net(), beside

    def forward(self, x: Tensor) -> Any:
        logits = self.net(x)
        return (logits, 2 * logits) if self.beside else logits


def test_of_several_outputs_it_is_said_which_is_judged() -> None:
    found = sb.diagnose(Both(True), X, Y, passes=())
    assert any("returns 2 tensors of shape" in note for note in found.facts["notes"])
    assert "the first is what is judged. To have another" in " ".join(str(found).split())
    assert (
        sb.diagnose(Both(True), X, Y, passes=(), loss=lambda out, y: mean_cross_entropy(out[1], y)).facts["notes"] == []
    )
    assert sb.diagnose(Both(False), X, Y, passes=()).facts["notes"] == []
