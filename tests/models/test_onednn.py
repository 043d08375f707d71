"""A convolution of oneDNN writes beyond its memory on processors with AVX2 and no AVX-512; our networks avoid it.

It is the weight gradient of a channels-last 1x1 convolution whose channel counts are no multiples of 8.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from spikeback.nn.block import Conv2d

NETWORKS = [
    f"{name} {width}" for name in ("spiking_resnet18", "spiking_resnet20", "spiking_vgg11") for width in (4, 12)
]
STEPS = """
import sys, torch
import spikeback as sb
for network in sys.argv[1:]:
    name, width = network.split()
    print(network, flush=True)
    net = sb.create_model(name, num_classes=5, width=int(width), time_steps=2)
    model = sb.ShortcutNet(net, "block")
    size = 32 if "vgg" in name else 16
    for x in (torch.randn(3, 3, size, size), torch.randn(2, 3, 3, size, size)):
        for _ in range(3):
            model(x, 0.5).square().sum().backward()
            model.zero_grad(set_to_none=True)
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's checks of its heap")
def test_training_steps_leave_the_heap_intact() -> None:
    """glibc aborts the process once it finds a block of memory damaged: the last network that was named did it."""
    environment = os.environ | {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "1",
                                "GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.perturb=165"}  # fmt: skip
    words = [sys.executable, "-c", STEPS, *NETWORKS]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (0, [*NETWORKS, "done"]), done.stderr


@pytest.mark.parametrize(("channels", "out_channels"), [(4, 12), (5, 8), (8, 17), (8, 16)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_way_round_it_is_a_convolution(channels: int, out_channels: int, stride: int) -> None:
    x = torch.randn(6, channels, 7, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    ours = Conv2d(channels, out_channels, 1, stride, bias=False).double()
    theirs = nn.Conv2d(channels, out_channels, 1, stride, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    results = []
    for conv in (ours, theirs):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = conv(leaf)
        assert y.is_contiguous(memory_format=torch.channels_last)
        results.append((y, *torch.autograd.grad(y.square().sum(), (leaf, conv.weight))))
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
