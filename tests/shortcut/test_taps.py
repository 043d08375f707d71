"""Taps are found by name, channels from feature_info or from a dry run that leaves no trace."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError

MakeNet = Callable[..., Any]


class Counter(nn.Module):
    """A neuron that remembers, in a plain attribute, what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def reset(self) -> None:
        self.v = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = self.v + x.mean(0)
        return torch.sigmoid(x)


class Foreign(nn.Module):
    """Not ours: no feature_info; batch norm, dropout and hidden state, all of which a forward changes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"conv": nn.Conv2d(3, 6, 3), "norm": nn.BatchNorm2d(6), "neuron": Counter()})
        self.unused = nn.Conv2d(3, 3, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:  # (T, B, C, H, W) -> (T, B, K)
        y = self.body["norm"](self.body["conv"](x.flatten(0, 1)))
        y = self.body["neuron"](y.unflatten(0, x.shape[:2]))
        return self.head(self.drop(y.mean((-2, -1))))


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(2, 3, 3, 8, 8)


def test_stage_and_block_are_all_but_the_last_of_feature_info(make_net: MakeNet) -> None:
    net = make_net()
    assert sb.ShortcutNet(net).taps == ("layer1", "layer2", "layer3")
    blocks = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))
    assert sb.ShortcutNet(net, "block").taps == blocks[:-1]


def test_dotted_names_of_feature_info_need_no_example(make_net: MakeNet, images: Tensor) -> None:
    model = sb.ShortcutNet(make_net(), taps=["layer3.1", "layer1.0"])
    assert set(model.taps) == {"layer3.1", "layer1.0"}
    assert set(model.logits(images)[1]) == {"layer3.1", "layer1.0"}


def test_a_module_outside_feature_info_needs_an_example(make_net: MakeNet, images: Tensor) -> None:
    net = make_net()
    name = next(n for n, m in net.named_modules() if isinstance(m, sb.LIF))
    assert name not in {info["module"] for info in net.feature_info}
    with pytest.raises(UsageError, match="example"):
        sb.ShortcutNet(net, taps=[name])
    assert sb.ShortcutNet(net, taps=[name], example=images).logits(images)[1][name].shape == (2, 3, 5)


def test_channels_come_from_a_dry_run_on_the_example(frames: Tensor) -> None:
    model = sb.ShortcutNet(Foreign(), taps=["body.neuron"], num_classes=5, example=frames)
    assert [m.in_features for m in model.branches.modules() if isinstance(m, nn.Linear)] == [6]
    main, side = model.eval().logits(frames)
    assert torch.equal(model(frames, 0.5), main + 0.5 * side["body.neuron"])


@pytest.mark.parametrize("training", [True, False])
def test_dry_run_leaves_no_trace(frames: Tensor, training: bool) -> None:
    net: Any = Foreign().train(training)
    net(frames)
    net.body["norm"].eval()
    state, membrane = copy.deepcopy(net.state_dict()), net.body["neuron"].v.clone()
    modes = [m.training for m in net.modules()]
    random_state = torch.get_rng_state()
    sb.ShortcutNet(net, taps=["body.neuron"], num_classes=5, example=frames)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in state.items())
    assert torch.equal(net.body["neuron"].v, membrane)
    assert [m.training for m in net.modules()] == modes
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_dry_run_leaves_a_fresh_neuron_fresh(frames: Tensor) -> None:
    net = Foreign()
    before = copy.deepcopy(net.state_dict())
    sb.ShortcutNet(net, taps=["body.neuron"], num_classes=5, example=frames)
    assert net.body["neuron"].v == 0.0
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())


def test_neither_example_nor_feature_info_is_an_error_that_says_so() -> None:
    with pytest.raises(UsageError, match=r"(?s)(?=.*example)(?=.*feature_info)"):
        sb.ShortcutNet(Foreign(), taps=["body.neuron"], num_classes=5)


@pytest.mark.parametrize("taps", ["stage", "block"])
def test_kinds_of_taps_need_feature_info(frames: Tensor, taps: str) -> None:
    with pytest.raises(UsageError, match="feature_info"):
        sb.ShortcutNet(Foreign(), taps=taps, num_classes=5, example=frames)


def test_number_of_classes_must_be_known(make_net: MakeNet, frames: Tensor) -> None:
    assert sb.ShortcutNet(make_net(num_classes=7)).logits(torch.randn(2, 3, 8, 8))[1]["layer1"].shape == (2, 2, 7)
    net: Any = Foreign()
    net.feature_info = [{"module": "body.neuron", "num_chs": 6, "reduction": 1, "kind": "block"}]
    assert sb.ShortcutNet(net, taps=["body.neuron"], num_classes=5)(frames, 0.25).shape == (2, 3, 5)
    with pytest.raises(UsageError, match="num_classes"):
        sb.ShortcutNet(net, taps=["body.neuron"])


def test_number_of_classes_must_fit_the_logits(frames: Tensor) -> None:
    with pytest.raises(UsageError, match=r"(?s)(?=.*\b7\b)(?=.*\b5\b)"):
        sb.ShortcutNet(Foreign(), taps=["body.neuron"], num_classes=7, example=frames)(frames, 0.25)


def test_unknown_tap_lists_the_choices(make_net: MakeNet) -> None:
    with pytest.raises(
        UsageError, match=r"no module 'layer9' \(did you mean 'layer4'\?\); choose from .*layer1.*layer2"
    ) as error:
        sb.ShortcutNet(make_net(), taps=["layer1", "layer9"])
    assert "\n" not in str(error.value)


def test_unknown_tap_of_a_foreign_net_lists_its_modules(frames: Tensor) -> None:
    with pytest.raises(UsageError, match=r"no module 'layer9'; choose from .*body\.neuron"):
        sb.ShortcutNet(Foreign(), taps=["layer9"], num_classes=5, example=frames)


def test_unknown_kind_of_taps_is_an_error(make_net: MakeNet) -> None:
    with pytest.raises(UsageError, match=r"'layer9'"):
        sb.ShortcutNet(make_net(), taps="layer9")


def test_tap_that_never_runs_is_an_error(frames: Tensor) -> None:
    with pytest.raises(UsageError, match="unused"):
        sb.ShortcutNet(Foreign(), taps=["unused"], num_classes=5, example=frames)


def test_time_and_batch_merged_in_a_tap_are_told_apart(frames: Tensor) -> None:
    model = sb.ShortcutNet(Foreign().double(), taps=["body.norm"], num_classes=5, example=frames.double()).double()
    outputs: list[Tensor] = []
    model.net.get_submodule("body.norm").register_forward_hook(lambda *call: outputs.append(call[2]))
    side = model.logits(frames.double())[1]["body.norm"]
    linear = next(m for m in model.branches.modules() if isinstance(m, nn.Linear))
    assert outputs[0].shape[:2] == (2 * 3, 6)
    torch.testing.assert_close(side, linear(outputs[0].mean((-2, -1)).unflatten(0, (2, 3))), rtol=1e-12, atol=1e-12)


def test_tap_that_runs_another_number_of_times_than_steps_is_an_error() -> None:
    class Twice(Foreign):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x)

    with pytest.raises(UsageError, match=r"body\.neuron"):
        sb.ShortcutNet(Twice(), taps=["body.neuron"], num_classes=5, example=torch.randn(3, 4, 3, 8, 8))


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_an_image_of_another_dtype_is_said_so(frames: Tensor, weight: float) -> None:
    model = sb.ShortcutNet(Foreign(), taps=["body.neuron"], num_classes=5, example=frames)
    with pytest.raises(UsageError, match=r"uint8.*x\.float\(\) / 255"):
        model(frames.abs().byte(), weight)
    with pytest.raises(UsageError, match=r"uint8.*x\.float\(\) / 255"):
        sb.ShortcutNet(Foreign(), taps=["body.neuron"], num_classes=5, example=frames.abs().byte())
