"""The CUDA path: `sb.lif` against the reference on the CPU, whole networks against the plain composition."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import spikeback as sb
from spikeback.nn import plain
from spikeback.ops.surrogate import Surrogate

pytestmark = [pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"), pytest.mark.gpu]

EXACT = [sb.surrogate.Triangle(1.0), sb.surrogate.Rectangle(1.2)]
SMOOTH = [
    sb.surrogate.Tanh(3.0),
    sb.surrogate.Tanh(3.0, normalised=False),
    sb.surrogate.Sigmoid(4.0),
    sb.surrogate.ATan(2.0),
]
SHAPES = [(1, 2, 5, 3, 3), (3, 2, 17, 5, 3), (7, 3, 64, 16, 16), (12, 2, 70, 9, 5), (4, 5, 17), (3, 0, 5, 2, 2)]


def run(x: Tensor, surrogate: Surrogate, device: str, backend: str, detach: bool = False) -> tuple[Tensor, ...]:
    """Spikes, membrane, and the gradients of x and of the state, all on the CPU."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda shape: torch.randn(shape, generator=generator)
    state, grad, grad_membrane = draw(x.shape[1:]), draw(x.shape).to(x.dtype), draw(x.shape[1:])
    x, state = (y.to(device).detach().requires_grad_() for y in (x, state))
    spikes, u = sb.lif(x, 0.5, 0.5, surrogate, state=state, gain=0.75, detach_reset=detach, backend=backend)
    grads = torch.autograd.grad((spikes, u), (x, state), (grad.to(device), grad_membrane.to(device)))
    return tuple(y.detach().cpu() for y in (spikes, u, *grads))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", EXACT, ids=repr)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_equal_the_reference(shape: tuple[int, ...], surrogate: Surrogate, detach: bool) -> None:
    x = torch.randn(shape)
    for form in (x, x.movedim(2, -1).contiguous().movedim(-1, 2)):
        results = run(form, surrogate, "cuda", "triton", detach)
        for result, expected in zip(results, run(x, surrogate, "cpu", "reference", detach), strict=True):
            assert torch.equal(result, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_precision_equals_the_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype)
    results = run(x, EXACT[0], "cuda", "triton")
    for result, expected in zip(results, run(x, EXACT[0], "cpu", "reference"), strict=True):
        assert result.dtype == expected.dtype
        assert torch.equal(result, expected)


@pytest.mark.parametrize("surrogate", SMOOTH, ids=repr)
def test_smooth_gradients(surrogate: Surrogate) -> None:
    x = torch.randn(4, 2, 17, 9, 7)
    spikes, u, *grads = run(x, surrogate, "cuda", "triton")
    exact_spikes, exact_u, *exact = run(x, surrogate, "cpu", "reference")
    assert torch.equal(spikes, exact_spikes)
    assert torch.equal(u, exact_u)
    for result, expected in zip(grads, exact, strict=True):
        assert (result - expected).abs().max() <= 2**-20 * expected.abs().max()


def test_two_runs_give_the_same_bits() -> None:
    x = torch.randn(4, 8, 64, 32, 32)
    first, second = (run(x, EXACT[0], "cuda", "triton") for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_chosen_by_itself_for_cuda_tensors() -> None:
    """Without a backend named, a CUDA tensor gets the same bits as with `triton`."""
    x = torch.randn(4, 2, 17, 9, 7, device="cuda")
    for a, b in zip(*(sb.lif(x, 0.5, 0.5, EXACT[0], backend=name) for name in (None, "triton")), strict=True):
        assert torch.equal(a, b)


def network(name: str = "spiking_resnet18", **options: Any) -> Any:
    torch.manual_seed(0)
    net = sb.create_model(name, 5, time_steps=3, width=16, neuron=sb.LIF(surrogate=EXACT[1]), **options)
    return net.cuda().to(memory_format=torch.channels_last)


def trained(net: Any, x: Tensor, steps: int = 3) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some steps, and what the network is after them."""
    optimiser = torch.optim.SGD(net.parameters(), 0.05, 0.9)
    y = torch.arange(len(x), device=x.device) % 5
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = cross_entropy(net(x).mean(0).float(), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, {name: value.detach().cpu() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("norm", [None, sb.nn.TdBatchNorm2d(1)], ids=["batch norm", "tdBN"])
def test_network_equals_its_plain_composition(norm: Any) -> None:
    """Activations, running statistics and gradients; a mean in another order may flip a few spikes."""
    x = torch.randn(16, 3, 16, 16, device="cuda")
    fused, composed = network(norm=norm), network(norm=norm)
    y = fused(x)
    y.square().sum().backward()
    with plain():
        expected = composed(x)
        expected.square().sum().backward()
    torch.testing.assert_close(y, expected, rtol=0, atol=0.02 * expected.abs().max().item())
    for (name, a), b in zip(fused.named_buffers(), composed.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.01, atol=0.01, msg=lambda text, name=name: f"{name}: {text}")
    for (name, a), b in zip(fused.named_parameters(), composed.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        error = (a.grad - b.grad).norm() / b.grad.norm()
        assert error <= 0.1, (name, error)


def test_first_block_equals_its_plain_composition() -> None:
    """One block only, in float64 beside it: no flip is handed on."""
    x = torch.randn(3, 8, 16, 9, 9, device="cuda").requires_grad_()
    block: Any = sb.nn.BasicBlock(16, 32, 2, sb.LIF(surrogate=EXACT[1])).cuda()
    results = []
    for context in (plain(), None):
        block.zero_grad()
        if context is None:
            y = block(x)
        else:
            with context:
                y = block(x)
        (grad,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
        y.sum().backward()
        results.append((y, grad, block.conv1[1].weight.grad.clone(), block.conv2[1].bias.grad.clone()))
    flips = (results[0][0] != results[1][0]).float().mean()
    assert flips <= 1e-3
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 0.05 * b.norm()


def test_training_goes_on_in_bf16_and_in_channels_last() -> None:
    x = torch.randn(16, 3, 16, 16, device="cuda")
    for precision in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", precision):
            losses, state = trained(network(), x, 6)
        assert min(losses[1:]) < losses[0]
        assert all(value.isfinite().all() for value in state.values())


def test_two_trainings_give_the_same_bits() -> None:
    x = torch.randn(16, 3, 16, 16, device="cuda")
    torch.backends.cudnn.deterministic = True
    try:
        first, second = (trained(network(), x) for _ in range(2))
    finally:
        torch.backends.cudnn.deterministic = False
    assert first[0] == second[0]
    assert all(torch.equal(value, second[1][name]) for name, value in first[1].items())


def test_packed_spikes_take_less_memory_and_change_nothing() -> None:
    x = torch.randn(64, 3, 32, 32, device="cuda")
    peaks, results = [], []
    for pack in (False, True):
        net = network()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        if pack:
            with sb.packed_spikes():
                loss = net(x).square().mean()
        else:
            loss = net(x).square().mean()
        loss.backward()
        peaks.append(torch.cuda.max_memory_allocated())
        results.append([p.grad.clone() for p in net.parameters()])
    assert peaks[1] < 0.9 * peaks[0]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * a.abs().max().item())


def test_a_captured_step_replays_the_eager_one() -> None:
    """Nothing waits for the GPU, and what changes from step to step is read from memory."""
    x = torch.randn(16, 3, 16, 16, device="cuda")
    net, other = network(), network()
    losses, _ = trained(other, x, 8)
    optimiser = torch.optim.SGD(net.parameters(), 0.05, 0.9)
    y = torch.arange(len(x), device="cuda") % 5

    def step() -> Tensor:
        loss = cross_entropy(net(x).mean(0), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    graph.replay()
    replayed = loss.item()
    assert replayed == pytest.approx(losses[3], rel=0.02)
    graph.replay()
    assert loss.item() == pytest.approx(losses[4], rel=0.02)
    tracked = next(value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked"))
    assert tracked == 5


def test_compiled_network_gives_what_it_gives_eagerly() -> None:
    x = torch.randn(8, 3, 16, 16, device="cuda")
    net, compiled = network().eval(), torch.compile(network().eval())
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x), rtol=0, atol=0.05)


def test_evaluation_and_export_forms() -> None:
    x = torch.randn(8, 3, 16, 16, device="cuda")
    net = network()
    net(x)
    net.eval()
    with torch.inference_mode():
        y = net(x)
        with plain():
            torch.testing.assert_close(y, net(x), rtol=0, atol=0.05 * y.abs().max().item())


def test_offsets_beyond_two_to_the_31() -> None:
    """Two time steps, together more numbers than 31 bits count; the second one's spikes are where they belong."""
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GB of GPU memory")
    x = torch.zeros(2, 2**30 + 2**20, dtype=torch.bfloat16, device="cuda")
    x[1, -1] = 1
    spikes, _ = sb.lif(x, 0.5, 0.5, EXACT[0], backend="triton")
    assert spikes[1, -1] == 1
    assert spikes.sum(dtype=torch.float32) == 1
