"""3x3 convolutions by Winograd's minimal filtering against the direct ones, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck
from torch.nn.functional import conv2d

from spikeback.errors import UsageError
from spikeback.nn.conv import Conv2d
from spikeback.ops import convolution, native
from spikeback.ops.convolution import convolve, convolve_input, convolve_weights
from spikeback.ops.lif import plain

pytestmark = pytest.mark.skipif(not native.CONVOLVES, reason="no compiled convolutions")

# images, channels in and out, height, width: whole tiles, parts of tiles, less than one, several blocks of tiles
SHAPES = [(2, 16, 16, 4, 4), (1, 32, 16, 8, 8), (3, 16, 48, 7, 9), (1, 48, 80, 14, 5), (2, 16, 32, 1, 1),
          (1, 16, 16, 3, 2), (1, 16, 16, 1, 33), (60, 16, 32, 13, 12), (50, 48, 16, 17, 15), (1, 160, 16, 6, 4),
          (1, 16, 160, 4, 6)]  # fmt: skip
ALL = pytest.mark.parametrize("shape", SHAPES, ids=str)
STRIDES = pytest.mark.parametrize("stride", [1, 2])
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def operands(n: int, c: int, k: int, h: int, w: int, stride: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, weights as they are initialised, a gradient."""
    torch.manual_seed(0)
    spikes, grad = (torch.rand(n, c, h, w) < 0.3).float(), torch.randn(n, k, -(-h // stride), -(-w // stride))
    return last(spikes), last(torch.randn(k, c, 3, 3) * (2 / (9 * k)) ** 0.5), last(grad)


def gradients(conv: Any, *leaves: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
    """Result and first gradients, and the gradients of a function of these."""
    leaves = tuple(x.detach().clone().requires_grad_() for x in leaves)
    slope = slope.detach().clone().requires_grad_()
    y = conv(*leaves)
    first = torch.autograd.grad(y, leaves, slope, create_graph=True)
    second = torch.autograd.grad(torch.stack([(g**2).sum() for g in first]).sum(), (*leaves, slope))
    return (y, *first, *second)


def assert_close(result: Tensor, exact: Tensor, tolerance: float) -> None:
    assert result.shape == exact.shape
    assert (result.double() - exact).norm() <= tolerance * exact.norm()
    assert (result.double() - exact).abs().max() <= 5 * tolerance * exact.abs().max()


@ALL
@STRIDES
def test_results_and_gradients_are_those_of_the_direct_convolution(shape: tuple[int, ...], stride: int) -> None:
    x, weight, slope = operands(*shape, stride=stride)
    direct = lambda a, b: conv2d(a, b, padding=1, stride=stride)
    exact = gradients(direct, x.double(), weight.double(), slope=slope.double())
    for y, e in zip(gradients(lambda a, b: convolve(a, b, stride), x, weight, slope=slope), exact, strict=True):
        assert_close(y, e, 5e-6)


@ALL
@STRIDES
def test_the_gradient_of_the_input_is_the_transpose_and_has_gradients(shape: tuple[int, ...], stride: int) -> None:
    x, weight, slope = operands(*shape, stride=stride)
    size = x.shape[2:]
    more = [(y - 1) % stride for y in size]
    transposed = lambda a, b: nn.functional.conv_transpose2d(a, b, padding=1, stride=stride, output_padding=more)
    exact = gradients(transposed, slope.double(), weight.double(), slope=x.double())
    ours = gradients(lambda a, b: convolve_input(a, b, *size, stride), slope, weight, slope=x)
    for y, e in zip(ours, exact, strict=True):
        assert_close(y, e, 5e-6)


@STRIDES
def test_rounding_is_far_below_that_of_tf32(stride: int) -> None:
    x, weight, _ = operands(2, 512, 512, 4 * stride, 4 * stride)
    direct = lambda a, b: conv2d(a.double(), b.double(), padding=1, stride=stride)
    exact = direct(x, weight)
    tf32 = (weight.view(torch.int32) + (1 << 12) & ~0x1FFF).view(torch.float32)  # ten bits of mantissa
    off = lambda y: ((y.double() - exact).norm() / exact.norm()).item()
    assert off(convolve(x, weight, stride)) < off(direct(x, tf32)) / 20


@STRIDES
def test_bits_depend_neither_on_threads_nor_on_the_other_images(stride: int) -> None:
    x, weight, grad = operands(40, 32, 48, 17 * stride, 15 * stride, stride)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            back = convolve_input(grad, weight, *x.shape[2:], stride), convolve_weights(x, grad, stride)
            results.append((convolve(x, weight, stride), *back))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))
    assert torch.equal(convolve(x[7:9], weight, stride), results[0][0][7:9])


@STRIDES
def test_no_number_but_those_of_the_operands_is_read_or_written(stride: int) -> None:
    """Operands lie between NaNs, results between marks."""

    def lent(y: Tensor) -> tuple[Tensor, Tensor]:
        n, c, h, w = y.shape
        buffer = torch.full((y.numel() + 128,), torch.nan)
        return buffer[64:-64].view(n, h, w, c).permute(0, 3, 1, 2).copy_(y), buffer

    for shape in SHAPES:
        (n, c, k, h, w), operand = shape, [lent(y)[0] for y in operands(*shape, stride)]
        x, weight, grad = operand
        for name, a, b, out in (("convolve", x, weight, grad), ("convolve_input", grad, weight, x),
                                ("convolve_weights", x, grad, weight)):  # fmt: skip
            y, buffer = lent(torch.full_like(out, torch.nan))
            native.run_convolution(name, a, b, y, (n, h, w, c, k, stride))
            assert y.isfinite().all()
            assert buffer[:64].isnan().all()
            assert buffer[-64:].isnan().all()


def test_empty_batch_and_other_layouts() -> None:
    x, weight, grad = operands(2, 16, 32, 5, 6)
    assert convolve(x[:0], weight).shape == (0, 32, 5, 6)
    assert convolve(x[:0], weight, 2).shape == (0, 32, 3, 3)
    assert convolve_input(grad[:0], weight, 5, 6).shape == (0, 16, 5, 6)
    assert torch.equal(convolve_weights(x[:0], grad[:0]), torch.zeros(32, 16, 3, 3))
    assert torch.equal(convolve(x.contiguous(), weight.contiguous()), convolve(x, weight))
    strided = last(x.repeat_interleave(2, 3))[..., ::2]
    assert torch.equal(convolve_weights(strided, grad.contiguous()), convolve_weights(x, grad))


WRONG = [((2, 24, 5, 6), (32, 24, 3, 3), 1), ((2, 16, 5, 6), (24, 16, 3, 3), 1), ((2, 16, 5, 6), (32, 32, 3, 3), 1),
         ((2, 16, 5, 6), (32, 16, 5, 5), 1), ((2, 16, 5, 6), (32, 16, 3, 3), 3), ((2, 16, 5, 6), (32, 16, 3, 3), 0),
         ((16, 5, 6), (32, 16, 3, 3), 1), ((1, 2, 16, 5, 6), (32, 16, 3, 3), 1)]  # fmt: skip


@pytest.mark.parametrize(("shape", "weight", "stride"), WRONG, ids=str)
def test_operands_that_do_not_fit_are_refused(shape: tuple[int, ...], weight: tuple[int, ...], stride: int) -> None:
    with pytest.raises(UsageError, match="multiples of 16 channels"):
        convolve(torch.rand(shape), torch.rand(weight), stride)


def test_other_types_and_batches_are_refused() -> None:
    x, weights, grad = operands(2, 16, 32, 5, 6)
    with pytest.raises(UsageError, match="float64"):
        convolve(x.double(), weights.double())
    with pytest.raises(UsageError, match="convolve_weights"):
        convolve_weights(x, grad[:1])
    with pytest.raises(UsageError, match="stride 2"):
        convolve_weights(x, grad, 2)
    for size in ((5, 7), (10, 6)):
        with pytest.raises(UsageError, match="convolve_input"):
            convolve_input(grad, weights, *size)


def test_channels_that_do_not_match_get_pytorchs_error() -> None:
    layer = Conv2d(32, 64, 3, padding=1, bias=False)
    for channels in (16, 64):
        with pytest.raises(RuntimeError, match="channels"):
            layer(last(torch.randn(8, channels, 16, 16)))


@pytest.mark.slow
def test_operators_are_sound() -> None:
    x, weight, grad = operands(2, 16, 32, 5, 6)
    small = last(grad[..., ::2, ::2])
    calls = [
        (convolve, (x, weight)),
        (convolve, (x, weight, 2)),
        (convolve_input, (grad, weight, 5, 6)),
        (convolve_input, (small, weight, 5, 6, 2)),
        (convolve_weights, (x, grad)),
        (convolve_weights, (x, small, 2)),
    ]
    for op, arguments in calls:
        leaves = tuple(a.requires_grad_() if isinstance(a, Tensor) else a for a in arguments)
        opcheck(op, leaves, test_utils=CHECKS)
        with torch._subclasses.FakeTensorMode() as mode:
            fake = op(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments))
        assert (fake.shape, fake.stride()) == ((y := op(*arguments)).shape, y.stride())
    compiled = torch.compile(convolve, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, weight), convolve(x, weight))


def test_operations_are_counted_as_those_of_the_direct_convolution() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    import spikeback.models.macs  # noqa: F401  (its formulas)

    x, weight, _ = (y.requires_grad_() for y in operands(2, 16, 32, 8, 8))
    for stride, outputs in ((1, 64), (2, 16)):
        ours = lambda a, b, s=stride: convolve(a, b, s)
        direct = lambda a, b, s=stride: conv2d(a, b, padding=1, stride=s)
        for conv in (ours, direct):
            with FlopCounterMode(display=False) as counter:
                conv(x, weight).sum().backward()
            assert counter.get_total_flops() == 3 * 2 * (2 * outputs) * (9 * 16 * 32)


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        @staticmethod
        def spikeback_convolve(*_: Any) -> bool:
            return False

    monkeypatch.setattr(native, "KERNELS", Full)
    with pytest.raises(MemoryError, match="no memory left"):
        convolve(*operands(1, 16, 16, 4, 4)[:2])


def calls_of(monkeypatch: pytest.MonkeyPatch, layer: nn.Conv2d, x: Tensor) -> int:
    """How often the layer goes through `convolve`; its output must be that of PyTorch's anyway."""
    calls: list[Any] = []
    kernel = native.run_convolution
    monkeypatch.setattr(native, "run_convolution", lambda *a: (calls.append(a), kernel(*a))[1])
    y = layer(x)
    if not torch.is_autocast_enabled("cpu"):
        expected = nn.Conv2d._conv_forward(layer, x.double(), layer.double().weight, layer.bias)
        layer.float()
        assert_close(y, expected.detach(), 5e-6)
    return len(calls)


def test_layers_take_it_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = Conv2d(32, 64, 3, padding=1, bias=False), last(torch.randn(8, 32, 16, 16))
    assert calls_of(monkeypatch, layer, x) == 1
    assert calls_of(monkeypatch, layer.to(memory_format=torch.channels_last), x) == 1
    assert calls_of(monkeypatch, Conv2d(32, 64, 3, padding=1), x) == 1  # with a bias, as `fold` makes it
    halving = Conv2d(64, 64, 3, padding=1, stride=2)
    assert calls_of(monkeypatch, halving, last(torch.randn(8, 64, 15, 16))) == 1
    with plain():
        assert calls_of(monkeypatch, layer, x) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert calls_of(monkeypatch, layer, x) == 0


OTHERS: dict[str, dict[str, Any]] = {
    "stride 3": {"stride": 3}, "two strides": {"stride": (1, 2)}, "5x5": {"kernel_size": 5},
    "no padding": {"padding": 0}, "dilation": {"dilation": 2}, "groups": {"groups": 2},
    "reflection": {"padding_mode": "reflect"}, "17 channels": {"out_channels": 17}, "40 channels": {"out_channels": 40},
    "few channels": {"out_channels": 16},
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_other_geometries_stay_with_pytorch(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    common = {"in_channels": 32, "out_channels": 64, "kernel_size": 3, "padding": 1, "bias": False}
    layer = Conv2d(**common | OTHERS[what])
    assert calls_of(monkeypatch, layer, last(torch.randn(8, 32, 16, 16))) == 0


def test_other_inputs_stay_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Conv2d(32, 64, 3, padding=1, bias=False)
    assert calls_of(monkeypatch, layer, torch.randn(8, 32, 16, 16)) == 0  # contiguous: would be converted
    assert calls_of(monkeypatch, layer, last(torch.randn(100, 32, 3, 16))) == 0  # less than a tile
    assert calls_of(monkeypatch, layer, last(torch.randn(3, 32, 12, 12))) == 0  # few tiles: not worth it
    assert calls_of(monkeypatch, layer, last(torch.randn(4, 32, 12, 12))) == 1
    halving = Conv2d(64, 64, 3, padding=1, stride=2)
    assert calls_of(monkeypatch, halving, last(torch.randn(8, 64, 6, 16))) == 0  # outputs count
    assert calls_of(monkeypatch, Conv2d(32, 64, 3, padding=1, stride=2), last(torch.randn(8, 32, 16, 16))) == 0
    assert not convolution.is_faster(layer.double(), last(torch.randn(8, 32, 16, 16).double()))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # PyTorch's own, of its forward mode
def test_what_it_cannot_do_pytorchs_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are exported may run elsewhere; forward mode and vmap run inside `plain()`."""
    layer, x = Conv2d(32, 64, 3, padding=1, bias=False), last(torch.randn(8, 32, 16, 16))
    assert calls_of(monkeypatch, layer, x) == 1
    graph = str(torch.export.export(layer, (x,)).graph)
    assert "aten.conv2d" in graph
    assert "spikeback" not in graph
    with plain():
        value, slope = torch.func.jvp(layer, (x,), (x,))[:2]
        many = torch.func.vmap(layer)(torch.stack((x, 2 * x)))
    assert_close(slope.detach(), value.detach().double(), 5e-6)
    assert_close(many[1].detach(), 2 * value.detach().double(), 5e-6)
