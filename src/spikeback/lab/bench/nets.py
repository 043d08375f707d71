"""The post-activation ResNet-18 with CIFAR stem: ours, and the same of any layers, ReLU or another framework's."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

import spikeback as sb
from spikeback.models.macs import counting_macs

DEPTHS, MULTIPLES = (2, 2, 2, 2), (1, 2, 4, 8)


class Block(nn.Module):
    """o = act(norm(conv(act(norm(conv(x))))) + shortcut(x))."""

    def __init__(self, inputs: int, channels: int, stride: int, conv: Any, norm: Any, act: Any) -> None:
        super().__init__()
        self.conv1, self.norm1, self.act1 = conv(inputs, channels, 3, stride, 1, bias=False), norm(channels), act()
        self.conv2, self.norm2, self.act2 = conv(channels, channels, 3, 1, 1, bias=False), norm(channels), act()
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(conv(inputs, channels, 1, stride, bias=False), norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """Images (B, C, H, W) -> logits (B, K); layers of a framework may take (T, B, C, H, W) -> (T, B, K)."""

    def __init__(
        self,
        width: int,
        classes: int,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        norm: Callable[..., nn.Module] = nn.BatchNorm2d,
        act: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        layers = [conv(3, width, 3, 1, 1, bias=False), norm(width), act()]
        inputs = width
        for depth, multiple in zip(DEPTHS, MULTIPLES, strict=True):
            for i in range(depth):
                stride = 2 if multiple > 1 and i == 0 else 1
                layers.append(Block(inputs, multiple * width, stride, conv, norm, act))
                inputs = multiple * width
        self.body = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((-2, -1)))


class Ours(nn.Module):
    """Our network, or a ShortcutNet around it: images -> logits averaged over time, on pooled rates if it can."""

    def __init__(self, net: nn.Module, **arguments: Any) -> None:
        super().__init__()
        self.net = net
        pooled = "per_step" in inspect.signature(net.forward).parameters
        self.arguments = arguments | ({"per_step": False} if pooled else {})

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, **self.arguments).mean(0)  # (T or 1, B, K) -> (B, K)


def ours(width: int, time_steps: int, classes: int, name: str = "spiking_resnet18") -> nn.Module:
    return Ours(sb.create_model(name, classes, time_steps=time_steps, width=width))


def shortcut(
    width: int, time_steps: int, classes: int, name: str = "spiking_resnet18", taps: Literal["stage", "block"] = "stage"
) -> nn.Module:
    """With branches, at the evolutionary weight that training begins with."""
    net = sb.create_model(name, classes, time_steps=time_steps, width=width)
    return Ours(sb.ShortcutNet(net, taps=taps), weight=0.25)


def stripped(width: int, time_steps: int, classes: int) -> nn.Module:
    """What ShortcutNet gives back after training."""
    net = sb.create_model("spiking_resnet18", classes, time_steps=time_steps, width=width)
    return Ours(sb.ShortcutNet(net, taps="stage").strip())


def ann(width: int, time_steps: int, classes: int) -> nn.Module:
    """The same with ReLU in plain PyTorch; it is given T * B images."""
    return ResNet18(width, classes)


def counts(model: Ours, image: Tensor) -> dict[str, int]:
    """Parameters, and multiply-accumulates of a forward of one image (1, C, H, W): as trained, and stripped."""
    plain = model.net.strip() if isinstance(model.net, sb.ShortcutNet) else model.net
    result = {}
    for when, net in (("training", model), ("inference", Ours(plain))):
        training = net.training
        with counting_macs() as macs:
            net.eval()(image)
        net.train(training)
        result[f"parameters_{when}"] = sum(p.numel() for p in net.parameters())
        result[f"macs_{when}"] = macs()
    return result
