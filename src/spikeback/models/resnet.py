"""Spiking ResNets: the networks of the paper's tables."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from spikeback.models.network import Network, feature
from spikeback.models.registry import register
from spikeback.nn.blocks import BasicBlock, Stack, neuron_for
from spikeback.nn.conv import ConvNorm
from spikeback.nn.norms.prototype import Norm
from spikeback.nn.pool import Pool


class SpikingResNet(Network):
    """Stem, stages of residual blocks, global average pooling, linear readout.

    Args:
        depths: residual blocks in each stage; the stride is 1 in the first stage, 2 in the others.
        widths: channels of each stage as multiples of `width`.
        stem: "imagenet" is conv7x7 stride 2, LIF, average pooling by 2; "cifar" and "dvs" are conv3x3, LIF.
        deep_stem: the stem of Dspike's "ResNet20": three conv3x3 with LIF, average pooling by 2; shortcuts pool too.
        block: makes the residual blocks; called as `BasicBlock`.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        num_classes: int,
        stem: str,
        time_steps: int,
        in_channels: int,
        width: int,
        neuron: nn.Module | None,
        norm: Norm,
        deep_stem: bool = False,
        block: Callable[..., nn.Module] = BasicBlock,
    ) -> None:
        super().__init__(num_classes, time_steps)
        large = stem == "imagenet"
        deep = deep_stem and not large
        self.encoder = ConvNorm(in_channels, width, 7 if large else 3, norm, stride=2 if large else 1)
        self.stem = Stack(neuron_for(neuron))
        for _ in range(2 if deep else 0):
            self.stem.extend([ConvNorm(width, width, 3, norm), neuron_for(neuron)])
        if large:
            self.stem.append(Pool(3, stride=2, padding=1))
        elif deep:
            self.stem.append(Pool(2))

        self.feature_info = []
        channels, reduction = width, 4 if large else 2 if deep else 1
        for stage, (depth, multiple) in enumerate(zip(depths, widths, strict=True), start=1):
            blocks = nn.Sequential()
            for i in range(depth):
                stride = 2 if stage > 1 and i == 0 else 1
                reduction *= stride
                blocks.append(block(channels, multiple * width, stride, neuron, norm, pooled_shortcut=deep_stem))
                channels = multiple * width
                self.feature_info.append(feature(f"layer{stage}.{i}", channels, reduction, "block"))
            self.add_module(f"layer{stage}", blocks)
            self.feature_info.append(feature(f"layer{stage}", channels, reduction, "stage"))
        self.stages = [f"layer{stage}" for stage in range(1, len(depths) + 1)]
        self.fc = nn.Linear(channels, num_classes)
        self.initialise()

    def body(self, frames: Tensor, time_steps: int) -> Tensor:
        x = self.stem(frames, self.encoder, time_steps)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return x


register("spiking_resnet18", partial(SpikingResNet, (2, 2, 2, 2), (1, 2, 4, 8)), 64)
register("spiking_resnet34", partial(SpikingResNet, (3, 4, 6, 3), (1, 2, 4, 8)), 64)
register("spiking_resnet19", partial(SpikingResNet, (3, 3, 2), (1, 2, 4)), 128)
register("spiking_resnet20", partial(SpikingResNet, (2, 2, 2, 2), (1, 2, 4, 8), deep_stem=True), 64)
for n in (3, 5, 7, 9):  # He et al. 2016, Sec. 4.2: 6n + 2 layers, here with 1x1 convolutions where the shape changes
    register(f"spiking_resnet{6 * n + 2}_he", partial(SpikingResNet, (n, n, n), (1, 2, 4)), 16)
