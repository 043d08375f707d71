"""`sb.calibrate` on the residual norms of another framework's network."""

import copy

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.measure.residual import residual_norms
from spikeback.errors import UsageError

from .broken import Merged
from .cases import smooth_images, some_labels
from .peers import jelly

pytestmark = [pytest.mark.peers, pytest.mark.slow]

T, B, WIDTH = 2, 32, 8


class Block(nn.Module):
    """A residual block with torchvision's names, of SpikingJelly's nodes: they fire after the sum, or before (SEW)."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        conv = lambda: Merged(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False))
        self.conv1, self.bn1, self.sn1 = conv(), Merged(nn.BatchNorm2d(WIDTH)), jelly("IFNode", v_threshold=0.5)
        self.conv2, self.bn2, self.sn2 = conv(), nn.BatchNorm2d(WIDTH), jelly("IFNode", v_threshold=0.5)
        self.downsample, self.late = None, late

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv2(self.sn1(self.bn1(self.conv1(x))))
        z = self.bn2(z.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.sn2(z + x) if self.late else self.sn2(z) + x


class Net(nn.Module):
    def __init__(self, late: bool, blocks: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH))
        self.sn = jelly("IFNode", v_threshold=0.5)
        self.blocks = nn.Sequential(*(Block(late) for _ in range(blocks)))
        self.fc = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = self.sn(self.stem(x).expand(T, *x.shape[:1], WIDTH, *x.shape[-2:]))
        return self.fc(self.blocks(z).mean((-2, -1)))


def data() -> tuple[Tensor, Tensor]:
    return smooth_images(B, size=8), some_labels(B, 10)


def test_residual_norms_of_another_framework_are_scaled_until_the_forward_pass_is_faithful() -> None:
    net, (x, y) = Net(late=True), data()
    before = copy.deepcopy(net.state_dict())
    found = sb.diagnose(net, x, y, passes=("fidelity",))
    assert found.blocks[-1]["fidelity"] < 0.4
    result = sb.calibrate(net, x, y, gain=None, fidelity=0.7)
    assert result.norm_scale is not None
    assert 0 < result.norm_scale < 1
    assert result.fidelity is not None
    assert result.fidelity > 0.6
    assert result.gains == {}
    assert set(result.shares) == set(residual_norms(net))
    assert all(0 < share < 0.5 for share in result.shares.values())
    for name, value in net.state_dict().items():
        scaled = before[name] * result.norm_scale if name.endswith("bn2.weight") else before[name]
        assert torch.allclose(value, scaled), name


def test_a_chaotic_network_is_offered_that_and_gets_it() -> None:
    net, (x, y) = Net(late=True), data()
    found = sb.diagnose(net, x, y, passes=("fidelity",))
    assert found.verdict.kind in ("vanishing", "exploding", "chaotic")
    remedy = found.verdict.remedies[0]
    assert (remedy.title, remedy.code) == ("calibrate", "sb.calibrate(net, x, gain=None, fidelity=0.7)")
    assert remedy.apply(net, x, y) is net
    after = sb.diagnose(net, x, y, passes=("fidelity",)).blocks[-1]["fidelity"]
    assert after > found.blocks[-1]["fidelity"] + 0.2


def test_layers_that_fall_silent_are_not_faithful() -> None:
    """Where neurons fire before the sum, small norms silence them, and the blocks are faithful for want of spikes."""
    net, (x, y) = Net(late=False), data()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(UsageError, match=r"0\.985 is reached at no scale"):  # that leaves all layers firing
        sb.calibrate(net, x, y, gain=None, fidelity=0.985)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    result = sb.calibrate(net, x, y, gain=None, fidelity=0.85)
    assert result.norm_scale is not None
    assert result.norm_scale < 0.5
    assert all(layer["silent"] < 0.95 for layer in sb.diagnose(net, x, y, passes=()).layers)


def test_a_gain_needs_ours_and_the_way_that_does_not_is_named() -> None:
    net, (x, y) = Net(late=True), data()
    with pytest.raises(UsageError, match=r"other neurons have no gain to set; gain=None, fidelity=0.7 sets"):
        sb.calibrate(net, x, y)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), jelly("IFNode"), nn.Linear(8, 8), jelly("IFNode"))
    with pytest.raises(UsageError, match=r"no gain to set$"):
        sb.calibrate(plain, x, y)
    with pytest.raises(UsageError, match="name them"):
        sb.calibrate(plain, x, y % 8, gain=None, fidelity=0.7)
