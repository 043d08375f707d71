"""Spiking VGG nets with batch norm, average pooling and one linear readout, as in the authors' code."""

from functools import partial

from torch import Tensor, nn

from spikeback.models.network import Network, feature
from spikeback.models.registry import register
from spikeback.nn.blocks import Stack, neuron_for
from spikeback.nn.conv import ConvNorm
from spikeback.nn.norms.prototype import Norm
from spikeback.nn.pool import Pool


class SpikingVGG(Network):
    """Stages of conv3x3-norm-LIF layers, each ended by average pooling by 2 (odd sizes are rounded up).

    Args:
        depths: convolutions in each stage.
        widths: channels of each stage as multiples of `width`.
        stem: ignored: a VGG's first convolution is 3x3 with stride 1 for any image.
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
    ) -> None:
        super().__init__(num_classes, time_steps)
        self.encoder = ConvNorm(in_channels, width * widths[0], 3, norm)
        self.layers = Stack()
        self.feature_info = []
        channels, reduction = width * widths[0], 1
        for depth, multiple in zip(depths, widths, strict=True):
            for _ in range(depth):
                first = len(self.layers) == 0  # its convolution is the encoder
                conv = [] if first else [ConvNorm(channels, multiple * width, 3, norm)]
                channels = multiple * width
                self.layers.append(Stack(*conv, neuron_for(neuron)))
                self.feature_info.append(feature(f"layers.{len(self.layers) - 1}", channels, reduction, "block"))
            reduction *= 2
            self.layers.append(Pool(2, ceil_mode=True))
            self.feature_info.append(feature(f"layers.{len(self.layers) - 1}", channels, reduction, "stage"))
        self.fc = nn.Linear(channels, num_classes)
        self.initialise()

    def body(self, frames: Tensor, time_steps: int) -> Tensor:
        return self.layers(frames, self.encoder, time_steps)


register("spiking_vgg11", partial(SpikingVGG, (1, 1, 2, 2, 2), (1, 2, 4, 8, 8)), 64)
register("spiking_vgg16", partial(SpikingVGG, (2, 2, 3, 3, 3), (1, 2, 4, 8, 8)), 64)
