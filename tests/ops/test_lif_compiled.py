"""The reference through torch.compile; captured and differentiated, but not lowered, which would take half a minute."""

import torch

import spikeback as sb
from spikeback.ops.lif import compiled, reference


def test_compiled_equals_the_reference() -> None:
    x, state = torch.randn(3, 2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    results = []
    for lif in (reference.lif, lambda *arguments: compiled.lif(*arguments, backend="aot_eager")):
        spikes, u = lif(x, 0.25, 0.5, sb.surrogate.Tanh(3.0), state, 1.0, False)
        results.append((spikes, u, *torch.autograd.grad(spikes.sum() + u.sum(), (x, state))))
    for expected, result in zip(*results, strict=True):
        assert torch.equal(result, expected)
    assert results[0][2].any()
