"""strip() hands back the plain network; no hook outlives a forward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError

MakeNet = Callable[..., Any]


def hooks(net: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in net.modules() for kind in kinds)


@pytest.mark.parametrize("taps", ["stage", "block", ("layer1.1", "layer4")])
def test_strip_is_the_same_object_with_the_same_logits(live_net: Any, images: Tensor, taps: Any) -> None:
    count = sum(p.numel() for p in live_net.parameters())
    model = sb.ShortcutNet(live_net, taps=taps).eval()
    before = model(images)
    net = model.strip()
    assert net is live_net
    assert torch.equal(net(images), before)
    assert sum(p.numel() for p in net.parameters()) == count
    assert hooks(net) == 0
    assert not any(key.startswith("branches") for key in net.state_dict())


def test_strip_after_training_keeps_what_was_learnt(make_net: MakeNet, images: Tensor) -> None:
    net = make_net()
    model = sb.ShortcutNet(net)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for progress in (0.0, 0.5, 1.0):
        optimiser.zero_grad()
        model(images, sb.Evolutionary(0.25)(progress)).square().mean().backward()
        optimiser.step()
    main = model.eval().logits(images)[0]
    assert torch.equal(model.strip()(images), main)


def test_strip_of_an_unknown_tap_lists_the_choices(make_net: MakeNet) -> None:
    model = sb.ShortcutNet(make_net())
    with pytest.raises(UsageError, match=r"'layer9'.*layer1"):
        model.strip(keep=("layer9",))


@pytest.mark.parametrize("read", ["spikes", "current"])
def test_no_hook_is_left_after_a_forward(make_net: MakeNet, images: Tensor, read: Any) -> None:
    model = sb.ShortcutNet(make_net(), read=read)
    assert hooks(model) == 0
    for weight in (0.0, 0.25):
        model(images, weight)
        assert hooks(model) == 0
    model.logits(images)
    assert hooks(model) == 0


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("on purpose")


@pytest.mark.parametrize("read", ["spikes", "current"])
@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_no_hook_is_left_when_the_forward_raises(make_net: MakeNet, images: Tensor, read: Any, weight: float) -> None:
    net = make_net()
    model = sb.ShortcutNet(net, read=read)
    expected = model(images, weight)
    whole, net.layer4 = net.layer4, Raises()  # behind every tap
    with pytest.raises(RuntimeError, match="on purpose"):
        model(images, weight)
    assert hooks(model) == 0
    net.layer4 = whole
    assert torch.equal(model(images, weight), expected)  # and nothing recorded is left either


def test_hooks_of_the_user_stay(make_net: MakeNet, images: Tensor) -> None:
    net = make_net()
    seen: list[torch.Size] = []
    net.layer1.register_forward_hook(lambda _, __, output: seen.append(output.shape))
    model = sb.ShortcutNet(net)
    model(images, 0.25)
    model.strip()(images)
    assert len(seen) == 2
    assert hooks(net) == 1
