"""A user's mistake: one clear message that names the option and the choices, and a net that is as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError

from .cases import Chain, K, MemoryNeuron, as_any, assert_same, block_names, smooth_images, snapshot, some_labels

MakeNet = Callable[..., Any]


FEATURES = torch.rand(16, 4, generator=torch.Generator().manual_seed(0))  # drawn here: the random state is compared


def refused(call: Callable[[], Any], net: nn.Module) -> str:
    """The message with which `call` is refused; `net` stays as it was."""
    before = snapshot(net)
    with pytest.raises(UsageError) as error:
        call()
    assert_same(before, snapshot(net))
    message = str(error.value)
    assert "\n" not in message.strip()
    return message


def test_no_spiking_layer() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), nn.Unflatten(0, (1, -1)))
    assert "is_spiking" in refused(lambda: sb.diagnose(net, FEATURES[:8], some_labels(8, 2)), net)


def test_a_foreign_neuron_without_predicate() -> None:
    net = Chain(4, 4, 4, neuron=MemoryNeuron())
    assert "is_spiking" in refused(lambda: sb.diagnose(net, FEATURES[:8], some_labels(8, 2)), net)


def test_calibrating_a_net_without_our_neurons() -> None:
    net = Chain(4, 4, 4, neuron=MemoryNeuron())
    message = refused(lambda: sb.calibrate(net, FEATURES[:8]), net)
    assert "no spikeback.LIF in Chain" in message
    assert "is_spiking" not in message


def test_predicate_that_finds_none(make_net: MakeNet) -> None:
    net = make_net()
    given: dict[str, Any] = {"is_spiking": lambda module: isinstance(module, MemoryNeuron)}
    try:  # a predicate may stand beside the known neurons, or replace them
        sb.diagnose(net, smooth_images(8), some_labels(8), passes=(), **given)
    except UsageError as error:
        assert "is_spiking" in str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_not_finite(make_net: MakeNet, bad: float) -> None:
    net, x, y = make_net(), smooth_images(8), some_labels(8)
    message = refused(lambda: sb.diagnose(net, x, y, loss=lambda logits, _: logits.sum() * bad), net)
    assert "loss" in message
    assert "finite" in message
    assert "inf" in message or "nan" in message


def test_images_not_finite(make_net: MakeNet) -> None:
    """A NaN pixel makes loss or input not finite; where no spike shows it there is at least no NaN in the figures."""
    net, x = make_net(), smooth_images(8)
    x[0, 0, 0, 0] = float("nan")
    before = snapshot(net)
    try:
        found = sb.diagnose(net, x, some_labels(8), passes=()).as_dict()
        assert all(block["gradient"] == block["gradient"] for block in found["blocks"])
    except UsageError as error:
        assert "finite" in str(error)  # noqa: PT017 - either is right
    assert_same(before, snapshot(net))


@pytest.mark.parametrize("label", [K, -1])
def test_label_out_of_range(make_net: MakeNet, label: int) -> None:
    net, y = make_net(), some_labels(8)
    y[3] = label
    message = refused(lambda: sb.diagnose(net, smooth_images(8), y), net)
    assert "label" in message
    assert str(label) in message
    assert str(K) in message or str(K - 1) in message  # the choices: 0 ... K - 1


@pytest.mark.parametrize("shape", [(7,), (8, 1), ()])
def test_labels_that_do_not_fit_the_batch(make_net: MakeNet, shape: tuple[int, ...]) -> None:
    net = make_net()
    y = torch.zeros(shape, dtype=torch.long)
    message = refused(lambda: sb.diagnose(net, smooth_images(8), y), net)
    assert "label" in message or "y" in message.split()
    assert "8" in message


@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 64), (0, 3, 8, 8)])
def test_images_of_the_wrong_shape(make_net: MakeNet, shape: tuple[int, ...]) -> None:
    net = make_net()
    message = refused(lambda: sb.diagnose(net, torch.zeros(shape), some_labels(shape[0])), net)
    assert "x" in message or "image" in message or "batch" in message


def test_logits_that_are_not_by_time_step(make_net: MakeNet) -> None:
    """(B, K) names the adapter, as ShortcutNet does; a doctor that can take them as they are may do so."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_net()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).mean(0)

    net = Mean()
    before = snapshot(net)
    try:
        assert sb.diagnose(net, smooth_images(8), some_labels(8), passes=()).as_dict()["blocks"]
    except UsageError as error:
        assert "TimeAveraged" in str(error) or "blocks" in str(error)  # noqa: PT017 - either is right
    assert_same(before, snapshot(net))


@pytest.mark.parametrize("blocks", [["layer1.0"], []])
def test_fewer_than_two_blocks(make_net: MakeNet, blocks: list[str]) -> None:
    net = make_net()
    message = refused(lambda: sb.diagnose(net, smooth_images(8), some_labels(8), blocks=blocks), net)
    assert "blocks" in message
    assert "2" in message or "two" in message


def test_blocks_that_cannot_be_inferred() -> None:
    net = nn.Sequential(nn.Unflatten(0, (1, -1)), nn.Linear(4, 4), sb.LIF(), nn.Linear(4, 2))
    message = refused(lambda: sb.diagnose(net, FEATURES[:8], some_labels(8, 2)), net)
    assert "blocks" in message


def test_unknown_block_lists_the_choices(make_net: MakeNet) -> None:
    net = make_net()
    given: dict[str, Any] = {"blocks": ["layer1.0", "layer9"]}
    for call in (sb.diagnose, sb.calibrate):
        message = refused(lambda call=call: call(net, smooth_images(8), some_labels(8), **given), net)
        assert "'layer9'" in message
        assert all(name in message for name in block_names(net)[:4])


def test_block_named_twice(make_net: MakeNet) -> None:
    net = make_net()
    given: dict[str, Any] = {"blocks": ["layer1", "layer1", "layer2"]}
    message = refused(lambda: sb.diagnose(net, smooth_images(8), some_labels(8), **given), net)
    assert "layer1" in message


def test_unknown_pass_lists_the_choices(make_net: MakeNet) -> None:
    net = make_net()
    given: dict[str, Any] = {"passes": as_any(("fidelity", "coherance"))}
    message = refused(lambda: sb.diagnose(net, smooth_images(8), some_labels(8), **given), net)
    assert "'coherance'" in message
    assert all(name in message for name in ("fidelity", "coherence", "descent", "theory"))


@pytest.mark.parametrize("given", [{"chunks": 1}, {"chunks": 0}, {"noise": -0.1}])
def test_numbers_that_make_no_sense(make_net: MakeNet, given: dict[str, Any]) -> None:
    net = make_net()
    assert next(iter(given)) in refused(lambda: sb.diagnose(net, smooth_images(8), some_labels(8), **given), net)


def test_weight_without_branches(make_net: MakeNet) -> None:
    net = make_net()
    message = refused(lambda: sb.diagnose(net, smooth_images(8), some_labels(8), weight=0.25), net)
    assert "weight" in message
    assert "ShortcutNet" in message


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"gain": 0.0}, "gain"),
        ({"gain": -1.0}, "gain"),
        ({"fidelity": 1.5}, "fidelity"),
        ({"fidelity": 0.0}, "fidelity"),
    ],
)
def test_calibrate_targets_out_of_range(make_net: MakeNet, given: dict[str, Any], named: str) -> None:
    net = make_net()
    assert named in refused(lambda: sb.calibrate(net, smooth_images(16), **given), net)


def test_calibrate_width_of_a_surrogate_without_one(make_net: MakeNet) -> None:
    net = make_net(neuron=sb.LIF(0.25, 0.5, sb.surrogate.Triangle(1.0)))
    message = refused(lambda: sb.calibrate(net, smooth_images(16), width=True), net)
    assert "width" in message
    assert "Triangle" in message
    assert "Rectangle" in message  # one that has a width


def test_calibrate_foreign_neurons() -> None:
    net = Chain(4, 4, 4, neuron=MemoryNeuron())
    refused(lambda: sb.calibrate(net, FEATURES), net)


def test_calibrate_fidelity_without_residual_norms() -> None:
    net = Chain(4, 8, 8, steps=2)
    assert "norms" in refused(lambda: sb.calibrate(net, 2 * FEATURES, fidelity=0.7), net)


def test_decompose_of_something_else_than_a_loss(make_net: MakeNet) -> None:
    from spikeback.doctor import decompose

    model = sb.ShortcutNet(make_net())
    given: dict[str, Any] = {"loss": as_any("sums")}
    message = refused(lambda: decompose(model, smooth_images(8), some_labels(8), 0.25, **given), model)
    assert all(word in message for word in ("'sums'", "must be a loss", "CrossEntropy()"))


def test_decompose_without_branches(make_net: MakeNet) -> None:
    from spikeback.doctor import decompose

    net = make_net()
    assert "ShortcutNet" in refused(lambda: decompose(as_any(net), smooth_images(8), some_labels(8), 0.25), net)
