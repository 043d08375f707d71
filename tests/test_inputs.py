"""What does not fit a network is answered with what was given and what to do, and doing that works."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.errors import UsageError

DTYPES = {  # given -> the advice, and what it makes of x
    torch.uint8: ("x.float() / 255", lambda x: x.float() / 255),
    torch.int64: ("x.float()", Tensor.float),
    torch.bool: ("x.float()", Tensor.float),
    torch.float64: ("x.float()", Tensor.float),
    torch.float16: ("x.float()", Tensor.float),
    torch.bfloat16: ("x.float()", Tensor.float),
}
USES: dict[str, Callable[..., Any]] = {
    "forward": lambda net, x, y: net(x),
    "branches": lambda net, x, y: sb.ShortcutNet(net, "stage")(x),
    "diagnose": lambda net, x, y: sb.diagnose(net, x, y, passes=[]),
    "calibrate": lambda net, x, y: sb.calibrate(net, x, y),
}


class Foreign(nn.Module):
    """A network of one's own; `whole` wants whole numbers."""

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self.first = nn.Embedding(256, 3) if whole else nn.Conv2d(3, 3, 3)
        self.neurons, self.more, self.fc = sb.LIF(), sb.LIF(), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x.mean((1, 2, 3)) if isinstance(self.first, nn.Embedding) else x.mean((2, 3))
        return self.fc(self.more(self.neurons(x.expand(2, -1, -1))))


@pytest.fixture
def y() -> Tensor:
    return torch.arange(3)


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wrong_dtype(make_net: Callable[..., Any], y: Tensor, dtype: torch.dtype, use: str) -> None:
    net, (advice, cast) = make_net(), DTYPES[dtype]
    x = (255 * torch.rand(3, 3, 8, 8)).to(dtype)
    with pytest.raises(UsageError) as error:
        USES[use](net, x, y)
    assert f"x is {dtype}, the network's weights are torch.float32: pass {advice}" in str(error.value)
    USES[use](net, cast(x), y)


@pytest.mark.parametrize("use", ["diagnose", "calibrate"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64], ids=str)
def test_wrong_dtype_of_a_foreign_network(y: Tensor, dtype: torch.dtype, use: str) -> None:
    with pytest.raises(UsageError, match=f"Foreign: x is {dtype}.*weights are torch.float32: pass x.float"):
        USES[use](Foreign(), (255 * torch.rand(3, 3, 8, 8)).to(dtype), y)


def test_a_network_that_wants_whole_numbers_gets_them(y: Tensor) -> None:
    sb.diagnose(Foreign(whole=True), torch.randint(0, 256, (3, 3, 8, 8)), y, passes=[], blocks=["neurons", "more"])


def test_right_dtypes(make_net: Callable[..., Any], images: Tensor) -> None:
    assert make_net().double()(images.double()).dtype == torch.float64
    net = make_net()
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            net(images.to(dtype))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UsageError, match=r"float64.*pass x\.float"):
        net(images.double())


AXES = {  # what was given -> what is said, and the cure
    "channels last": (lambda x: x.movedim(1, -1), "pass x.movedim(-1, -3)", lambda x: x.movedim(-1, -3)),
    "frames, channels last": (
        lambda x: x.movedim(1, -1)[None], "pass x.movedim(-1, -3)", lambda x: x.movedim(-1, -3),
    ),
    "one image": (lambda x: x[0], "one image is x[None]", lambda x: x[None]),
    "an array": (lambda x: x.numpy(), "torch.as_tensor(x)", torch.as_tensor),
}  # fmt: skip


@pytest.mark.parametrize("case", AXES)
def test_wrong_axes(make_net: Callable[..., Any], images: Tensor, case: str) -> None:
    spoil, said, cure = AXES[case]
    with pytest.raises(UsageError) as error:
        make_net()(spoil(images))
    assert said in str(error.value)
    make_net()(cure(spoil(images)))


def test_wrong_channels(make_net: Callable[..., Any], images: Tensor) -> None:
    with pytest.raises(UsageError, match=r"takes 2 channels.*\(T, B, 2, H, W\).*in_channels=3\) takes these"):
        make_net(stem="dvs")(images)
    make_net(stem="dvs", in_channels=3)(images)


LABELS = {  # given -> the cure
    "float": (Tensor.float, "y.long()", Tensor.long),
    "one-hot": (lambda y: torch.eye(5)[y], "y.argmax(1)", lambda y: y.argmax(1)),
    "whole one-hot": (lambda y: torch.eye(5)[y].long(), "y.argmax(1)", lambda y: y.argmax(1)),
    "a column": (lambda y: y[:, None], "y.squeeze(1).long()", lambda y: y.squeeze(1).long()),
    "a list": (Tensor.tolist, "torch.as_tensor(y)", torch.as_tensor),
    "an array": (Tensor.numpy, "torch.as_tensor(y)", torch.as_tensor),
}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.slow
def test_wrong_labels(make_net: Callable[..., Any], images: Tensor, y: Tensor, case: str) -> None:
    spoil, said, cure = LABELS[case]
    for use in (USES["diagnose"], USES["calibrate"]):
        with pytest.raises(UsageError) as error:
            use(make_net(), images, spoil(y))
        assert f"pass {said}" in str(error.value)
        use(make_net(), images, cure(spoil(y)))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_whole_dtype(make_net: Callable[..., Any], images: Tensor, y: Tensor, dtype: Any) -> None:
    net = make_net()
    loss = [sb.diagnose(net, images, labels, passes=[]).facts["loss"] for labels in (y, y.to(dtype))]
    assert loss[0] == loss[1]


@pytest.mark.parametrize("option", ["num_classes", "time_steps", "in_channels", "width"])
@pytest.mark.parametrize("value", [2.5, 2.0, True, "4", float("nan"), 0, -1])
def test_numbers_that_are_not_whole(make_net: Callable[..., Any], option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{option} must be (a whole number|at least 1), not "):
        make_net(**{option: value})


TAUS = {2.0: "0.5", 100: "0.99", 1.25: "0.2"}  # SpikingJelly's -> ours


@pytest.mark.parametrize("tau", TAUS)
def test_the_tau_of_another_framework(tau: float) -> None:
    calls = [sb.LIF, lambda tau: sb.lif(torch.zeros(1, 1), tau, 0.5, sb.surrogate.Tanh(3.0))]
    for call in calls:
        with pytest.raises(UsageError) as error:
            call(tau)
        assert f"SpikingJelly's tau={float(tau)} is tau={TAUS[tau]} here" in str(error.value)
        assert "snnTorch's beta is tau as it is" in str(error.value)
        call(float(TAUS[tau]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, "0.5", None, True, [0.5]])
def test_what_is_no_tau_and_no_threshold(value: Any) -> None:
    with pytest.raises(UsageError, match=r"tau must .*\[0, 1\]") as error:
        sb.LIF(tau=value)
    assert "SpikingJelly" not in str(error.value)
    if value not in (float("inf"), -0.5):
        with pytest.raises(UsageError, match="threshold must be a positive number"):
            sb.LIF(threshold=value)
        with pytest.raises(UsageError, match="k must be a positive number"):
            sb.surrogate.Tanh(value)
        with pytest.raises(UsageError, match="start must be a number"):
            sb.Evolutionary(value)


NEAR = {"spiking_resnet81": "spiking_resnet18", "resnet34": "spiking_resnet34", "Spiking_VGG61": "spiking_vgg16"}


@pytest.mark.parametrize("name", NEAR)
def test_the_model_that_was_meant(name: str) -> None:
    with pytest.raises(UsageError) as error:
        sb.create_model(name)
    assert f"no model '{name}' (did you mean '{NEAR[name]}'?); choose from " in str(error.value)


def test_a_model_that_is_like_none() -> None:
    for name in ("", "transformer", None, ["a"]):
        with pytest.raises(UsageError, match="; choose from") as error:
            sb.create_model(name)  # pyright: ignore[reportArgumentType]
        assert "did you mean" not in str(error.value)


TIMED: dict[str, Callable[[], nn.Module]] = {
    "ours": lambda: sb.create_model("spiking_resnet18", num_classes=5, width=4, time_steps=2),
    "branches": lambda: sb.ShortcutNet(sb.create_model("spiking_resnet18", num_classes=5, width=4, time_steps=2)),
    "unrolled": lambda: sb.Unrolled(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.LazyLinear(5)), 2),
}


@pytest.mark.parametrize("kind", TIMED)
def test_frames_that_look_batch_first_are_warned_of(kind: str) -> None:
    net, x = TIMED[kind](), torch.rand(3, 2, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"batch first.*x.transpose\(0, 1\)") as said:
        net(x)
    assert len(said) == 1
    assert net(x.transpose(0, 1)).shape == (2, 3, 5)  # as advised: no warning, which is an error here
    for shape in ((2, 2), (1, 3), (3, 4), (4, 1)):  # nothing can tell
        net(torch.rand(*shape, 3, 8, 8))
    inner: Any = net.net if kind == "branches" else net
    inner.time_steps = 3
    net(x)  # the other advice


def test_calibrate_warns_of_frames_that_look_batch_first() -> None:
    net, x = TIMED["ours"](), torch.rand(3, 2, 3, 8, 8)
    with pytest.warns(UserWarning, match="batch first"):
        sb.calibrate(net, x, batches=1)
