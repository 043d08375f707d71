"""Images and frames go in, logits (T, B, K) come out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError


@pytest.mark.parametrize("name", sb.list_models())
def test_every_model_trains_every_parameter(name: str) -> None:
    net = sb.create_model(name, num_classes=5, width=8, time_steps=2)
    side = 32 if "vgg" in name else 16  # a VGG halves its maps five times
    logits = net(torch.randn(2, 3, side, side))
    assert logits.shape == (2, 2, 5)
    nn.functional.cross_entropy(logits.mean(0), torch.tensor([0, 4])).backward()
    for parameter_name, p in net.named_parameters():
        assert p.grad is not None, parameter_name
        assert p.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("stem", ["cifar", "imagenet", "dvs"])
@pytest.mark.parametrize("name", ["spiking_resnet18", "spiking_resnet34", "spiking_resnet19"])
def test_every_stem_takes_its_input(name: str, stem: str) -> None:
    channels = 2 if stem == "dvs" else 3
    net: Any = sb.create_model(name, num_classes=5, stem=stem, width=4, time_steps=2)
    assert net(torch.randn(2, 2, channels, 32, 32)).shape == (2, 2, 5)


@pytest.mark.parametrize("name", sb.list_models())
def test_feature_info_tells_the_truth(name: str) -> None:
    net: Any = sb.create_model(name, width=4, time_steps=2)
    shapes: dict[str, torch.Size] = {}
    for info in net.feature_info:
        keep = lambda _, __, output, module=info["module"]: shapes.update({module: output.shape})
        net.get_submodule(info["module"]).register_forward_hook(keep)
    net(torch.randn(2, 3, 32, 32))
    for info in net.feature_info:
        assert set(info) >= {"module", "num_chs", "reduction", "kind"}
        assert info["kind"] in ("block", "stage")
        assert shapes[info["module"]][-3:] == (info["num_chs"], 32 // info["reduction"], 32 // info["reduction"])


@pytest.mark.parametrize("name", [n for n in sb.list_models() if "resnet" in n])
def test_feature_info_follows_the_network(name: str) -> None:
    net: Any = sb.create_model(name, width=4)
    order = [n for n, _ in net.named_modules()]
    for kind in ("stage", "block"):
        positions = [order.index(i["module"]) for i in net.feature_info if i["kind"] == kind]
        assert len(positions) > 1
        assert positions == sorted(positions)


@pytest.mark.parametrize(("name", "sides"), [("spiking_resnet18", (3, 7)), ("spiking_resnet34", (3, 15))])
def test_stage_and_block_taps_leave_out_the_last(name: str, sides: tuple[int, int]) -> None:
    net = sb.create_model(name, width=4)
    assert (len(sb.ShortcutNet(net, "stage").taps), len(sb.ShortcutNet(net, "block").taps)) == sides


@pytest.mark.parametrize(
    ("name", "stem", "stages"),
    [
        ("spiking_resnet18", "cifar", [(4, 1), (8, 2), (16, 4), (32, 8)]),
        ("spiking_resnet34", "imagenet", [(4, 4), (8, 8), (16, 16), (32, 32)]),
        ("spiking_resnet18", "dvs", [(4, 1), (8, 2), (16, 4), (32, 8)]),
        ("spiking_resnet19", "cifar", [(4, 1), (8, 2), (16, 4)]),
        ("spiking_resnet20", "cifar", [(4, 2), (8, 4), (16, 8), (32, 16)]),
        ("spiking_resnet56_he", "cifar", [(4, 1), (8, 2), (16, 4)]),
    ],
)
def test_stages_have_these_channels_and_reductions(name: str, stem: str, stages: list[tuple[int, int]]) -> None:
    net: Any = sb.create_model(name, stem=stem, width=4)
    found = [(i["num_chs"], i["reduction"]) for i in net.feature_info if i["kind"] == "stage"]
    assert found == stages


def stem_batches(net: nn.Module, x: Tensor) -> list[int]:
    batches: list[int] = []
    stem = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    stem.register_forward_hook(lambda _, inputs, __: batches.append(inputs[0].shape[0]))
    net(x)
    return batches


@pytest.mark.parametrize("name", ["spiking_resnet18", "spiking_resnet20", "spiking_resnet20_he", "spiking_vgg11"])
def test_stem_convolves_a_static_image_once(name: str) -> None:
    net = sb.create_model(name, width=4, time_steps=3)
    assert stem_batches(net, torch.randn(2, 3, 32, 32)) == [2]


def test_stem_convolves_every_frame(make_net: Callable[..., Any]) -> None:
    assert sum(stem_batches(make_net(), torch.randn(3, 4, 3, 8, 8))) == 3 * 4


def test_a_image_is_the_same_as_its_repeated_frames(live_net: Any, images: Tensor) -> None:
    net, x = live_net.double(), images.double()
    frames = x.expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(net(x), net(frames), rtol=1e-10, atol=1e-12)


def test_number_of_frames_may_differ_from_time_steps(make_net: Callable[..., Any]) -> None:
    net = make_net(time_steps=2)
    for steps in (1, 2, 5):
        assert net(torch.randn(steps, 3, 3, 8, 8)).shape == (steps, 3, 5)


def test_logits_of_a_step_do_not_depend_on_later_frames(live_net: Any) -> None:
    frames = torch.randn(4, 3, 3, 8, 8).double()
    net = live_net.double()
    torch.testing.assert_close(net(frames)[:2], net(frames[:2]), rtol=1e-10, atol=1e-12)


def test_nothing_is_remembered_between_forwards(live_net: Any, images: Tensor) -> None:
    first = live_net(images)
    live_net(torch.randn(5, 3, 8, 8))
    assert torch.equal(live_net(images), first)


def test_no_time_step_is_an_error(make_net: Callable[..., Any]) -> None:
    for steps in (0, -1):
        with pytest.raises(UsageError, match="time_steps"):
            make_net(time_steps=steps)
    with pytest.raises(UsageError, match=r"time step|frame|T"):
        make_net()(torch.randn(0, 2, 3, 8, 8))


def test_input_that_is_neither_image_nor_frames_is_an_error(make_net: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="B, C, H, W"):
        make_net()(torch.randn(3, 8, 8))


@pytest.mark.parametrize(("name", "sees"), [("spiking_resnet20", True), ("spiking_resnet18", False)])
def test_shortcuts_of_a_deep_stem_pool_and_others_skip_pixels(name: str, sees: bool) -> None:
    net = sb.create_model(name, num_classes=5, width=4).eval()
    x = torch.zeros(1, 1, 4, 4, 4)
    x[..., 1, 1] = 1.0  # no pixel that a stride of 2 looks at
    assert net.get_submodule("layer2.0.shortcut")(x).any() == sees


def test_a_vgg_rounds_odd_sides_up() -> None:
    net: Any = sb.create_model("spiking_vgg11", num_classes=5, width=4, time_steps=2)
    shapes: list[torch.Size] = []
    for info in (i for i in net.feature_info if i["kind"] == "stage"):
        net.get_submodule(info["module"]).register_forward_hook(lambda _, __, output: shapes.append(output.shape[-2:]))
    net(torch.randn(2, 3, 11, 9))
    assert shapes == [(6, 5), (3, 3), (2, 2), (1, 1), (1, 1)]
