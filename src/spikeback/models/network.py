"""What every network shares: time in, time out, one stem convolution for a static image, one linear readout."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.inputs import check_input, warn_of_batch_first
from spikeback.nn.conv import ConvNorm
from spikeback.nn.pool import firing_rates


class Network(nn.Module):
    """Base of the networks: `encoder` (ConvNorm), `body` (a method) and `fc`.

    A static image's first convolution is computed once and repeated over time: the same current enters at each step.
    (In training its batch norm sees (B, H, W) instead of T equal copies: same mean and variance; the running variance
    differs by the factor between n/(n-1) and Tn/(Tn-1).)

    `feature_info` names what can be tapped, as in timm: dicts with `module`, `num_chs`, `reduction`, and `kind`
    ("stage" or "block"), in network order; the last of each kind feeds the readout.
    """

    encoder: ConvNorm
    fc: nn.Linear
    feature_info: list[dict[str, Any]]

    def __init__(self, num_classes: int, time_steps: int) -> None:
        super().__init__()
        self.num_classes, self.time_steps = num_classes, time_steps

    def body(self, frames: Tensor, time_steps: int) -> Tensor:
        """Frames (T, B, C, H, W), or one shown T times -> spikes of the last block (T, B, C', H', W')."""
        raise NotImplementedError

    def forward(self, x: Tensor, per_step: bool = True) -> Tensor:
        """Images (B, C, H, W) or frames (T, B, C, H, W) -> logits (T, B, K).

        Time comes first. Frames that seem to be batch first, (B, T, C, H, W), because T is `time_steps`, are warned of;
        where B is T, too, or frames have another number of steps, nothing can tell.
        `per_step=False` returns their mean over time, (1, B, K), from firing rates: the readout is linear.
        """
        check_input(x, self.encoder[0])
        if x.ndim == 5:
            warn_of_batch_first(x, self.time_steps)
        steps, frames = (self.time_steps, x[None]) if x.ndim == 4 else (x.shape[0], x)
        spikes = self.body(channels_last(frames), steps)
        return self.fc(firing_rates(spikes, per_step))  # (T, B, C) -> (T, B, K)

    def initialise(self) -> None:
        """Weights as in the authors' code: convolutions N(0, 2 / (k^2 C_out)), readout N(0, (1 / C_in)^2), bias 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                module.to(memory_format=torch.channels_last)  # as the images: no weights have to be converted
        nn.init.normal_(self.fc.weight, std=1 / self.fc.in_features)
        nn.init.zeros_(self.fc.bias)


def channels_last(frames: Tensor) -> Tensor:
    """Frames (T, B, C, H, W) that lie in memory with C last, as all that follows."""
    return frames.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def feature(module: str, channels: int, reduction: int, kind: str) -> dict[str, Any]:
    """One entry of `feature_info`: dotted module name, channels, input size over feature size."""
    return {"module": module, "num_chs": channels, "reduction": math.ceil(reduction), "kind": kind}
