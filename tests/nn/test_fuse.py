"""Normalisation, residual addition and neuron in one operation: what the modules give, to rounding, or nearer to it."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.nn import TdBatchNorm2d, plain
from spikeback.nn.conv import over_time
from spikeback.nn.fuse import Term, why_not
from spikeback.nn.fuse import fused as fused_of_terms
from spikeback.ops import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiled kernels")

Part = tuple[Tensor, nn.Module | None]
C, T = 5, 3
NORMS = {"batch norm": nn.BatchNorm2d, "tdBN": TdBatchNorm2d}


def images(*shape: int, channels_last: bool = True) -> Tensor:
    x = torch.randn(shape)
    return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) if channels_last else x


def norm(kind: str = "batch norm", channels: int = C, training: bool = True) -> Any:
    """A norm with weights and running statistics of its own."""
    layer = NORMS[kind](channels).train(training)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias, std=0.3)
    if layer.running_mean is not None:
        nn.init.normal_(layer.running_mean, std=0.3)
        nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return layer


def fused(neuron: nn.Module, parts: list[Part], steps: int) -> Tensor:
    terms = [Term(*part) for part in parts]
    assert why_not(neuron, terms) is None
    return fused_of_terms(neuron, terms, steps)


def composed(neuron: nn.Module, parts: list[Part], steps: int) -> Tensor:
    """What `fused` stands for: every norm on merged images, the sum, the neuron."""
    with plain():
        currents = [y if layer is None else over_time(layer, y) for y, layer in parts]
        current = sum(currents[1:], start=currents[0])
        return neuron(current.expand(steps, *current.shape[1:]))


def run(
    f: Any, neuron: nn.Module, parts: list[Part], steps: int = T, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Spikes, every gradient and every buffer after one forward and backward pass on copies."""
    copies: list[Any] = [(y.detach().clone().to(dtype).requires_grad_(), copy.deepcopy(n)) for y, n in parts]
    copies = [(y, n if n is None else n.to(dtype)) for y, n in copies]
    spikes = f(copy.deepcopy(neuron).to(dtype), copies, steps)
    r = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1))
    (spikes * r.to(dtype)).sum().backward()
    results = {"spikes": spikes.detach()}
    for i, (y, n) in enumerate(copies):
        results[f"input {i}"] = y.grad
        if n is not None:
            results |= {f"{name} {i}": p.grad for name, p in n.named_parameters()}
            results |= {f"{name} {i}": b for name, b in n.named_buffers()}
    return results


def assert_close(results: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-5) -> None:
    """Spikes to the bit, the rest relative to its largest number."""
    assert results.keys() == expected.keys()
    assert torch.equal(results["spikes"], expected["spikes"])
    assert 0.02 < results["spikes"].mean() < 0.98
    for name, exact in expected.items():
        assert results[name].dtype == exact.dtype, name
        assert (results[name] - exact).abs().max() <= rtol * exact.abs().max(), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("second", ["none", "plain", "normalised"])
def test_spikes_gradients_and_statistics_are_those_of_the_modules(
    second: str, kind: str, channels_last: bool, training: bool
) -> None:
    y, other = (images(T, 4, C, 5, 3, channels_last=channels_last) for _ in range(2))
    parts: list[Part] = [(y, norm(kind, training=training))]
    if second != "none":
        parts.append((other, norm(kind, training=training) if second == "normalised" else None))
    for detach_reset in (False, True):
        neuron = sb.LIF(surrogate=sb.surrogate.Triangle(1.3), detach_reset=detach_reset)
        neuron.gain.fill_(0.75)
        expected = run(composed, neuron, parts)
        assert expected["input 0"].abs().max() > 0.1
        assert_close(run(fused, neuron, parts), expected)
        assert_close(run(fused, neuron, parts[::-1]), run(composed, neuron, parts[::-1]))  # in either order


def test_a_norm_may_have_no_weights_and_no_statistics() -> None:
    y = images(T, 4, C, 5, 3)
    for training in (True, False):
        for affine, track in ((False, True), (True, False), (False, False)):
            layer = nn.BatchNorm2d(C, affine=affine, track_running_stats=track).train(training)
            assert_close(run(fused, sb.LIF(), [(y, layer)]), run(composed, sb.LIF(), [(y, layer)]))


@pytest.mark.parametrize("shape", [(1, 2, 17, 3, 3), (7, 2, 5, 4, 4), (3, 1, 1, 5, 3), (2, 3, 70, 1, 1)], ids=str)
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    y, other, layer = images(*shape), images(*shape), norm(channels=shape[2])
    parts: list[Part] = [(y, layer), (other, norm(channels=shape[2]))]
    results, expected = run(fused, sb.LIF(), parts, shape[0]), run(composed, sb.LIF(), parts, shape[0])
    assert_close(results, expected, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_a_static_image_is_its_repetition(training: bool) -> None:
    """But for the unbiased variance, whose count is that of the images shown: T times or once."""
    y, layer = images(1, 4, C, 5, 3), norm(training=training)
    results = run(fused, sb.LIF(), [(y, layer)])
    repeated = run(composed, sb.LIF(), [(y.expand(T, -1, -1, -1, -1), layer)])
    assert torch.equal(results["spikes"], repeated["spikes"])
    repeated["input 0"] = repeated["input 0"].sum(0, keepdim=True)
    for name in ("input 0", "weight 0", "bias 0", "running_mean 0"):
        torch.testing.assert_close(results[name], repeated[name], rtol=1e-4, atol=1e-4)
    assert_close(results, run(composed, sb.LIF(), [(y, layer)]))


@pytest.mark.parametrize("second", [False, True])
def test_first_flips_are_within_4_ulp_of_the_threshold(second: bool) -> None:
    """Given mean and inverse deviation: those of evaluation, rounded to float32 as the kernels get them."""
    tau, threshold, shape = 0.25, 0.5, (4, 8, 16, 24, 24)
    norms = [norm(channels=16, training=False) for _ in range(1 + second)]
    inputs = [images(*shape) for _ in norms]
    spikes = fused(sb.LIF(tau, threshold), list(zip(inputs, norms, strict=True)), 4)
    assert spikes is not None
    current = torch.zeros(shape, dtype=torch.float64)
    for y, n in zip(inputs, norms, strict=True):
        inverse = (n.running_var.double() + n.eps).rsqrt().float()
        mean, scale, shift = (v.double()[:, None, None] for v in (n.running_mean, n.weight * inverse, n.bias))
        current += (y.double() - mean) * scale + shift
    u, flipped = torch.zeros(shape[1:], dtype=torch.float64), torch.zeros(shape[1:], dtype=torch.bool)
    for current_t, s_t in zip(current, spikes, strict=True):
        u = tau * u + current_t
        s = u > threshold
        first = (s != s_t.bool()) & ~flipped
        assert ((u[first] - threshold).abs() <= 4 * 2**-24).all()
        flipped |= first
        u = u * ~s
    assert flipped.sum() <= 20
    assert 0.1 < spikes.mean() < 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ratio", [0, 10, 1000])
def test_gradients_are_no_worse_than_those_of_eager_pytorch(ratio: int, dtype: torch.dtype) -> None:
    """Against float64, over several seeds, also where the mean is a thousand standard deviations."""
    errors: dict[str, Tensor] = {}
    for seed in range(6):
        torch.manual_seed(seed)
        y = (images(T, 4, C, 9, 9) + ratio * torch.randn(C, 1, 1)).to(dtype)
        parts: list[Part] = [(y, norm())]
        neuron = sb.LIF(surrogate=sb.surrogate.Triangle())
        exact = run(composed, neuron, parts, dtype=torch.float64)
        for name, f in (("fused", fused), ("eager", composed)):
            results = run_in(f, neuron, parts, dtype)
            error = [
                (results[k].double() - exact[k]).norm() / exact[k].norm() for k in ("weight 0", "bias 0", "input 0")
            ]
            errors[name] = errors.get(name, torch.zeros(3)) + torch.stack(error)
    assert (errors["fused"] <= errors["eager"]).all(), errors


def run_in(f: Any, neuron: nn.Module, parts: list[Part], dtype: torch.dtype) -> dict[str, Tensor]:
    """`run` with inputs in `dtype` and parameters in float32, as autocast has it."""
    mixed = lambda neuron, parts, steps: f(neuron, [(y.to(dtype), n) for y, n in parts], steps).float()
    return run(mixed, neuron, parts)


def test_an_outlier_in_the_corner_costs_few_digits() -> None:
    """The first number of a channel is where the moments are centred: here it is far from all others."""
    y = images(T, 4, C, 9, 9)
    y[0, 0, :, 0, 0] = 300.0
    parts: list[Part] = [(y, norm())]
    result, exact = (run(fused, sb.LIF(), parts), run(composed, sb.LIF(), parts, dtype=torch.float64))
    for name in ("running_mean 0", "running_var 0"):
        torch.testing.assert_close(result[name].double(), exact[name], rtol=1e-5, atol=1e-6)


def test_layout_and_data_type_are_those_of_the_input() -> None:
    for channels_last in (True, False):
        for dtype in (torch.float32, torch.bfloat16):
            y = images(T, 4, C, 5, 3, channels_last=channels_last).to(dtype).requires_grad_()
            spikes = fused(sb.LIF(), [(y, norm())], T)
            assert spikes is not None
            spikes.sum().backward()
            assert y.grad is not None
            assert spikes.dtype == y.grad.dtype == dtype
            assert spikes.stride() == y.grad.stride() == y.stride()


UNKNOWN: dict[str, Any] = {
    "neuron": lambda y: (nn.ReLU(), [(y, norm())]),
    "neuron's subclass": lambda y: (type("Mine", (sb.LIF,), {})(), [(y, norm())]),
    "norm": lambda y: (sb.LIF(), [(y, nn.InstanceNorm2d(C))]),
    "norm's subclass": lambda y: (sb.LIF(), [(y, type("Mine", (nn.BatchNorm2d,), {})(C))]),
    "float64": lambda y: (sb.LIF().double(), [(y.double(), norm().double())]),
    "two modes": lambda y: (sb.LIF(), [(y, norm()), (y, norm(training=False))]),
    "three terms": lambda y: (sb.LIF(), [(y, norm()), (y, None), (y, None)]),
    "two data types": lambda y: (sb.LIF(), [(y, norm()), (y.bfloat16(), None)]),
    "broadcast residual": lambda y: (sb.LIF(), [(y, norm()), (y[:1], None)]),
}
WHY = {
    "neuron": "^ReLU has no kernel$",
    "neuron's subclass": "^Mine has no kernel$",
    "norm": "^InstanceNorm2d has no kernel$",
    "norm's subclass": "^Mine has no kernel$",
    "float64": "^float64 has no kernel, only float32, bfloat16$",
    "two modes": "running",
    "three terms": "^3 currents are added, the kernels know two$",
    "two data types": "differ in data type or shape",
    "broadcast residual": "differ in data type or shape",
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_it_does_not_know_is_left_to_the_modules(what: str) -> None:
    neuron, parts = UNKNOWN[what](images(T, 4, C, 5, 3))
    before = {k: v.clone() for _, n in parts if n is not None for k, v in n.state_dict().items()}
    assert re.search(WHY[what], str(why_not(neuron, [Term(*part) for part in parts])))
    assert all(torch.equal(v, before[k]) for _, n in parts if n is not None for k, v in n.state_dict().items()) or (
        what == "two modes"
    )


def test_plain_forces_the_modules() -> None:
    with plain():
        assert "plain()" in str(why_not(sb.LIF(), [Term(images(T, 4, C, 5, 3), norm())]))
