"""Fidelity, coherence, descent and participation where the truth is known beforehand."""

import copy
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb

from .cases import Chain, Soft, found_blocks, mean_cross_entropy, smooth_images, some_labels

MakeNet = Callable[..., Any]
BOTH = ["first", "second"]


def identity_chain(width: int) -> Chain:
    """Spikes leave as they came: each neuron fires where its own input is 1."""
    net = Chain(width, width, width)
    with torch.no_grad():
        for layer in (net.first, net.second):
            layer.get_submodule("0").weight.copy_(torch.eye(width))  # pyright: ignore
    return net


# --- fidelity


def test_without_noise_fidelity_is_one(make_net: MakeNet) -> None:
    figures = found_blocks(sb.diagnose(make_net(), smooth_images(16), some_labels(16), noise=0.0, passes=("fidelity",)))
    for block in figures.values():
        assert block["fidelity"] == pytest.approx(1.0, abs=1e-5)
        assert -1 - 1e-5 <= block["unrelated"] < 1


def test_fidelity_falls_with_noise_and_with_depth(make_net: MakeNet) -> None:
    x, y = smooth_images(16), some_labels(16)
    net = make_net(width=8)
    last = []
    for noise in (0.001, 0.1, 10.0):
        blocks = list(found_blocks(sb.diagnose(net, x, y, noise=noise, passes=("fidelity",))).values())
        assert all(-1 - 1e-5 <= block["fidelity"] <= 1 + 1e-5 for block in blocks)
        assert noise > 1 or blocks[0]["fidelity"] > blocks[-1]["fidelity"]
        last.append(blocks[0]["fidelity"])
    assert last[0] > last[1] > last[2]


def test_fidelity_of_a_net_that_ignores_small_noise() -> None:
    """Currents are 0 or 1, the threshold 1/2: noise of 0.01 flips no spike."""
    x = torch.randint(2, (32, 6)).float()
    figures = found_blocks(sb.diagnose(identity_chain(6), x, some_labels(32, 2), blocks=BOTH, noise=0.01))
    assert [figures[b]["fidelity"] for b in BOTH] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert all(abs(figures[b]["unrelated"]) < 0.6 for b in BOTH)


# --- coherence: (K s - 1) / (K - 1), s = ||mean g||^2 / mean ||g||^2 over K chunks


def test_identical_samples_are_coherent(make_net: MakeNet) -> None:
    x = smooth_images(1).expand(16, -1, -1, -1).contiguous()
    figures = found_blocks(sb.diagnose(make_net(), x, torch.full((16,), 2), passes=("coherence",)))
    assert [b["coherence"] for b in figures.values()] == pytest.approx([1.0] * len(figures), abs=1e-3)


def test_coherence_of_one_sample_a_chunk_by_hand() -> None:
    """As many chunks as samples and no batch norm: each chunk's gradient is that of one sample, whatever the order."""
    net, x, y = (
        Chain(6, 8, 8, classes=3, steps=2).double(),
        2 * torch.rand(8, 6, dtype=torch.float64),
        some_labels(8, 3),
    )
    figures = found_blocks(sb.diagnose(net, x, y, blocks=BOTH, passes=("coherence",), chunks=8))
    for block in BOTH:
        weight = net.get_submodule(block).get_parameter("0.weight")
        grads = [torch.autograd.grad(mean_cross_entropy(net(x[i : i + 1]), y[i : i + 1]), weight)[0] for i in range(8)]
        g = torch.stack(grads).flatten(1)
        share = g.mean(0).square().sum() / g.square().sum(1).mean()
        assert figures[block]["coherence"] == pytest.approx(((8 * share - 1) / 7).item(), abs=1e-5)


def test_coherence_of_opposite_samples() -> None:
    """Two samples alike with opposite labels, over and over: with equal logits the gradients cancel to the last bit."""
    net = Chain(6, 8, 8, steps=2).double()
    with torch.no_grad():
        net.fc.bias.zero_()
        net.fc.weight[1] = net.fc.weight[0]
        net.fc.weight[0] += 1e-6  # logits all but equal, yet a direction to learn in
        net.fc.weight[1] -= 1e-6
    x = (2 * torch.rand(1, 6, dtype=torch.float64)).expand(8, -1).contiguous()
    figures = found_blocks(sb.diagnose(net, x, torch.tensor([0, 1] * 4), blocks=BOTH, passes=("coherence",), chunks=8))
    assert [figures[b]["coherence"] for b in BOTH] == pytest.approx([-1 / 7] * 2, abs=1e-3)


@pytest.mark.slow
def test_random_labels_are_incoherent_without_bias() -> None:
    """Two classes, logits near 0, labels drawn: each gradient is as likely as its opposite, so the mean is 0."""
    seen = []
    for seed in range(40):
        torch.manual_seed(seed)
        net = Chain(6, 12, 12, steps=2)
        with torch.no_grad():
            net.fc.weight.mul_(1e-3)
            net.fc.bias.zero_()
        x, y = 2 * torch.rand(16, 6), torch.randint(2, (16,))
        figures = found_blocks(sb.diagnose(net, x, y, blocks=BOTH, passes=("coherence",), chunks=8))
        seen.append(statistics.mean(figures[b]["coherence"] for b in BOTH))
    error = statistics.stdev(seen) / len(seen) ** 0.5
    assert abs(statistics.mean(seen)) < 4 * error
    assert error < 0.05
    assert min(seen) < 0  # nothing is cut off at 0: that would be a bias
    assert min(seen) >= -1 / 7 - 1e-6


def test_more_samples_of_one_truth_are_more_coherent() -> None:
    """Chunks of eight see the common direction better than chunks of one."""
    net = Chain(6, 12, 12, classes=2, steps=2)
    x, y = torch.rand(64, 6), torch.zeros(64, dtype=torch.long)
    y[x[:, 0] > 0.5] = 1
    x[:, 0] *= 4
    few, many = (found_blocks(sb.diagnose(net, x, y, blocks=BOTH, passes=("coherence",), chunks=k)) for k in (8, 64))
    assert few["second"]["coherence"] > many["second"]["coherence"]


# --- descent: measured over predicted change of the loss


def test_descent_of_a_smooth_net_is_one() -> None:
    net = Chain(6, 8, 8, classes=3, neuron=Soft()).double()
    x, y = torch.randn(16, 6, dtype=torch.float64), some_labels(16, 3)
    is_soft = lambda module: isinstance(module, Soft)
    figures = found_blocks(sb.diagnose(net, x, y, is_spiking=is_soft, blocks=BOTH, passes=("descent",)))
    assert [figures[b]["descent"] for b in BOTH] == pytest.approx([1.0, 1.0], abs=0.1)


def test_descent_that_flips_no_spike_is_nought() -> None:
    """Membranes far from the threshold, yet inside the surrogate: a gradient promises what no small step brings."""
    net = identity_chain(6)
    with torch.no_grad():
        net.second.get_submodule("0").weight.mul_(0.8)  # pyright: ignore - currents 0 and 0.8: inside the triangle
    x = 0.2 + 0.6 * torch.randint(2, (16, 6)).float()
    figures = found_blocks(sb.diagnose(net, x, some_labels(16, 2), blocks=BOTH, passes=("descent",)))
    assert all(figures[b]["gradient"] > 0 for b in BOTH)
    assert [figures[b]["descent"] for b in BOTH] == pytest.approx([0.0, 0.0], abs=1e-2)


def test_descent_does_not_depend_on_the_losss_unit() -> None:
    net = Chain(6, 8, 8, classes=3, neuron=Soft()).double()
    x, y = torch.randn(16, 6, dtype=torch.float64), some_labels(16, 3)
    loss = lambda logits, labels: 100 * mean_cross_entropy(logits, labels)
    given = {"is_spiking": lambda m: isinstance(m, Soft), "blocks": BOTH, "passes": ("descent",)}
    figures = found_blocks(sb.diagnose(net, x, y, loss=loss, **given))
    assert [figures[b]["descent"] for b in BOTH] == pytest.approx([1.0, 1.0], abs=0.1)


# --- participation ratio (sum of eigenvalues)^2 / sum of their squares, of centred or uncentred activations

PATTERNS = torch.tensor([[float(i >> bit & 1) for bit in range(4)] for i in range(16)])


@pytest.mark.parametrize(
    ("x", "centred", "uncentred"),
    [
        (torch.eye(4).repeat(4, 1), 3.0, 4.0),  # one neuron at a time
        (PATTERNS, 4.0, 16 / 7),  # every pattern once: eigenvalues 1/4 (four times), or 1/4, 1/4, 1/4, 5/4
        (torch.tensor([[0.0], [1.0]]).expand(2, 4).repeat(8, 1), 1.0, 1.0),  # all as one
    ],
    ids=["one at a time", "all patterns", "all as one"],
)
def test_participation(x: Tensor, centred: float, uncentred: float) -> None:
    blocks = sb.diagnose(identity_chain(4), x, some_labels(16, 2), blocks=BOTH).as_dict()["blocks"]
    for block in blocks:
        value = block["participation"]
        assert any(value == pytest.approx(truth, rel=1e-3) for truth in (centred, uncentred)), value


def test_participation_is_centred_everywhere_or_nowhere() -> None:
    one, all_of_them = (
        sb.diagnose(identity_chain(4), x, some_labels(16, 2), blocks=BOTH).as_dict()["blocks"][0]["participation"]
        for x in (torch.eye(4).repeat(4, 1), PATTERNS)
    )
    assert (round(one), round(all_of_them)) in ((3, 4), (4, 2))


# --- residual share


@pytest.mark.slow
def test_share_is_a_share(make_net: MakeNet) -> None:
    """Of a residual block between 0 and 1, of a plain one null; a branch that is nearly nothing has next to none."""
    net, x, y = make_net(), smooth_images(16), some_labels(16)
    before = found_blocks(sb.diagnose(net, x, y))
    quiet = copy.deepcopy(net)
    with torch.no_grad():
        for name in ("layer1.0", "layer1.1"):
            quiet.get_submodule(name).conv2[1].weight.mul_(1e-3)
    after = found_blocks(sb.diagnose(quiet, x, y))
    for name in ("layer1.0", "layer1.1"):
        assert 0.1 < before[name]["share"] < 1
        assert 0 <= after[name]["share"] < 0.05
    plain = Chain(6, 8, 8, classes=5)
    assert all(b["share"] is None for b in sb.diagnose(plain, torch.rand(16, 6), y).as_dict()["blocks"])


@pytest.mark.slow
def test_relu_twin_keeps_fidelity(make_net: MakeNet) -> None:
    """Where spikes forget (DESIGN.md: .1 from block 5 on), the twin with ReLU keeps more."""
    net = make_net(width=8)
    blocks = sb.diagnose(net, smooth_images(32, size=16), some_labels(32)).as_dict()["blocks"]
    assert blocks[-1]["relu_fidelity"] > blocks[-1]["fidelity"]
    assert all(isinstance(b["relu"], float) and b["relu"] > 0 for b in blocks if b["name"].startswith("layer"))
