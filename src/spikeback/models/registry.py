"""The registry: a name, the function that builds the network, and the width that is its own."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from spikeback.errors import UsageError
from spikeback.nn import neurons, norms
from spikeback.nn.blocks import BLOCKS
from spikeback.nn.norms.prototype import Norm
from spikeback.values import check_whole, instead

STEMS = ("cifar", "imagenet", "dvs")
_BUILDERS: dict[str, tuple[Callable[..., nn.Module], int]] = {}


def register(name: str, build: Callable[..., nn.Module], width: int) -> None:
    """Make a network available to `create_model` and the command as `name`.

    Args:
        name: the network's name.
        build: called as `build(num_classes=, stem=, time_steps=, in_channels=, width=, neuron=, norm=)`.
        width: channels of the first stage where none are asked for.
    """
    _BUILDERS[name] = (build, width)


def list_models() -> list[str]:
    """The names that `create_model` knows, sorted."""
    return sorted(_BUILDERS)


def own_width(name: str) -> int | None:
    """Channels of the first stage where none are asked for; None for a network that is not known."""
    return _BUILDERS[name][1] if name in _BUILDERS else None


def create_model(
    name: str,
    num_classes: int = 10,
    stem: str = "cifar",
    time_steps: int = 4,
    in_channels: int | None = None,
    width: int | None = None,
    neuron: nn.Module | str | None = None,
    norm: Norm | str = None,
    block: str = "post",
) -> nn.Module:
    """Build a spiking network with random initial weights.

    The network maps images (B, C, H, W), repeated over time, or frames (T, B, C, H, W) to logits (T, B, K).

    Args:
        name: one of `list_models()`.
        num_classes: K, the number of classes.
        stem: the first layers. "cifar" is a 3x3 convolution with stride 1. "imagenet" is a 7x7 convolution with stride
            2, then pooling. "dvs" is as "cifar", for frames of events with two polarities.
        time_steps: T, how many times a static image is shown. Frames bring their own T.
        in_channels: C, the channels of the input. None is 3, or the 2 polarities for "dvs".
        width: channels of the first stage. None is the network's own (64; ResNet-19: 128; He's CIFAR nets: 16).
        neuron: a module that is deep-copied for every spiking layer, or the name of a registered neuron with its
            arguments as text: "LIF(tau=0.5)". None is `LIF()`.
        norm: likewise, or a function that makes a norm for a number of channels (`nn.norms.norm_for`). None is batch
            norm. A norm given by name that takes `time_steps` gets T.
        block: the residual block by name, "post" or one that was registered, e.g. "MyBlock(groups=2)".

    Raises:
        UsageError: the model, stem, neuron, norm or block is not known, or a number is not whole or below 1.
    """
    if not isinstance(name, str) or name not in _BUILDERS:
        raise UsageError(f"no model {name!r}{instead(name, list_models())}")
    if stem not in STEMS:
        raise UsageError(f"no stem {stem!r}{instead(stem, STEMS)}")
    build, own_width = _BUILDERS[name]
    numbers: dict[str, Any] = {
        "num_classes": num_classes,
        "time_steps": time_steps,
        "in_channels": in_channels if in_channels is not None else 2 if stem == "dvs" else 3,
        "width": own_width if width is None else width,
    }
    for key, value in numbers.items():
        check_whole(key, value)
    neuron = neurons.from_text(neuron) if isinstance(neuron, str) else neuron
    norm = norms.from_text(norm, time_steps=time_steps) if isinstance(norm, str) else norm
    return build(stem=stem, neuron=neuron, norm=norm, **numbers, **_blocks(name, build, block))


def _blocks(name: str, build: Callable[..., nn.Module], block: str) -> dict[str, Any]:
    """The argument for other blocks than the usual ones."""
    make = BLOCKS.maker(block)
    if block == "post":
        return {}
    if "block" not in inspect.signature(build).parameters:
        raise UsageError(f"{name} has no residual blocks to choose: leave block={block!r} out")
    return {"block": make}
