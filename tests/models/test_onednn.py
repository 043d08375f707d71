"""PyTorch's weight gradient of a channels-last 1x1 convolution with a stride writes beyond its memory (docs/onednn.md).

Our networks avoid it. What could crash runs in processes of its own, oneDNN limited to the kernels of other processors:
AVX512_CORE_BF16 are those with bfloat16 and without AMX. On a processor that has less, it takes what there is.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import spikeback as sb
from spikeback.doctor.measure.onednn import exposed
from spikeback.lab.bench import onednn
from spikeback.lab.bench.nets import ResNet18
from spikeback.lab.bench.onednn import CHECKER, OK, Case, checks_memory, crashes
from spikeback.lab.bench.plans import SMALL
from spikeback.models.registry import list_models
from spikeback.nn import Conv2d

LAST = torch.channels_last
needs_checks = pytest.mark.skipif(not checks_memory(), reason=f"no {CHECKER}, glibc's checks of its heap")
STEPS = """
import sys, torch
import spikeback as sb
for name in ("spiking_resnet18", "spiking_resnet20"):
    for width in sys.argv[1:]:
        net = sb.create_model(name, num_classes=5, width=int(width), time_steps=1)
        model = sb.ShortcutNet(net.to(memory_format=torch.channels_last), "block")
        for x in (torch.randn(1, 3, 32, 32), torch.randn(3, 3, 32, 32), torch.randn(2, 1, 3, 32, 32)):
            for precision in (torch.float32, torch.bfloat16):
                print(name, width, *x.shape, precision, flush=True)
                with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
                    logits = model(x, 0.5)
                logits.float().square().sum().backward()
                model.zero_grad(set_to_none=True)
print("done")
"""


@needs_checks
@pytest.mark.slow
def test_training_steps_leave_the_heap_intact() -> None:
    """glibc aborts the process once it finds a block of memory damaged: the last network that was named did it."""
    environment = os.environ | {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165", "LD_PRELOAD": CHECKER,
                                "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive",
                                "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}  # fmt: skip
    words = [sys.executable, "-c", STEPS, "4", "8", "12"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "done"), done.stderr


def layers_of_ours() -> list[Case]:
    axes = product((7, 8, 15), (32, 64), (1, 2), ("float32", "bf16"))
    return [Case("ours", c, 2 * c, size=size, threads=n, precision=precision) for c, size, n, precision in axes]


def miniature_of_the_benches() -> list[Case]:
    """What the other frameworks' arms are asked for."""
    shapes = [(f * SMALL["width"], SMALL["size"] // f) for f in (1, 2, 4)]
    axes = product(shapes, ("float32", "bf16"))
    return [Case("pytorch", c, 2 * c, batch=1, size=size, precision=precision) for (c, size), precision in axes]


BAD = Case("pytorch", 7, 14, size=64, threads=1, precision="float32")


@pytest.fixture(scope="module")
def found() -> dict[Case, str]:
    """What the search finds, the bad one in the middle."""
    contiguous = [replace(case, layer="pytorch", layout="contiguous") for case in layers_of_ours()[::5]]
    cases = [*layers_of_ours(), BAD, *contiguous, *miniature_of_the_benches()]
    return dict(zip(cases, crashes(cases, "AVX512_CORE_BF16"), strict=True))


@needs_checks
@pytest.mark.slow
def test_no_layer_of_ours_and_no_miniature_of_the_benches_crashes(found: dict[Case, str]) -> None:
    assert {case: what for case, what in found.items() if case != BAD and what != OK} == {}


@needs_checks
def test_the_search_sees_what_is_avoided(found: dict[Case, str]) -> None:
    kind = torch.backends.cpu.get_cpu_capability()
    if not kind.startswith("AVX"):
        pytest.skip(f"{kind}: a processor without AVX2 has other kernels")
    if found[BAD] == OK:
        pytest.skip("PyTorch has mended its convolution, or its memory is not checked: ours need not avoid it here")
    assert found[BAD].startswith("SIG") or found[BAD] == onednn.WRONG


class Strided(TorchDispatchMode):
    """Counts convolutions, and refuses those 1x1 with a stride before they run."""

    convolutions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.convolutions += 1
            assert tuple(args[1].shape[2:]) != (1, 1) or set(args[3]) == {1}, "a 1x1 convolution with a stride"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", list_models())
def test_no_network_has_a_strided_1x1_convolution_of_pytorch(name: str) -> None:
    for stem in ("cifar", "imagenet") if "resnet" in name else ("cifar",):
        net = sb.create_model(name, num_classes=2, width=4, stem=stem, time_steps=1)
        with Strided() as seen, torch.no_grad():
            net.eval()(torch.randn(1, 3, 32, 32))
        assert seen.convolutions > 4


def cases() -> Iterator[tuple[Any, ...]]:
    shapes = [(3, 8, 8), (2, 7, 5), (2, 1, 9), (1, 1, 1), (0, 4, 4), (None, 6, 5)]
    kinds = [(torch.float32, False), (torch.float32, True), (torch.float64, False), (torch.bfloat16, False)]
    yield from product([(8, 16), (3, 5), (1, 2)], [2, (1, 3)], shapes, ["contiguous", "last", "slice"], kinds)


def test_a_strided_1x1_convolution_is_pytorchs() -> None:
    """Output, gradients, and how the output lies in memory; the numbers are small multiples of 1/4, so sums are exact.

    PyTorch's gradients are those in float64, which oneDNN has no part in.
    """
    for (channels, outputs), stride, (n, *size), layout, (dtype, autocast) in cases():
        last = layout != "contiguous"
        ours, theirs = (kind(channels, outputs, 1, stride).to(dtype) for kind in (Conv2d, nn.Conv2d))
        if n == 2:
            ours, theirs = (layer.to(memory_format=LAST) for layer in (ours, theirs))
        with torch.no_grad():
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                q.copy_(p.copy_(torch.randint(-4, 5, p.shape) / 4))
        x = torch.randint(-2, 3, (1 if n is None else n, channels + 2, *size)).to(dtype)
        x = x.contiguous(memory_format=LAST if last else torch.contiguous_format)
        x = x[:, :channels] if layout == "slice" else x[:, :channels].clone(memory_format=torch.preserve_format)
        x = (x[0] if n is None else x).detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y, expected = ours(x), theirs(x.detach())
        what = f"{channels} -> {outputs}, stride {stride}, {n} x {size}, {layout}, {dtype}, autocast {autocast}"
        assert torch.equal(y, expected), what
        assert y.dtype == expected.dtype, what
        lie = lambda t: [step for step, length in zip(t.stride(), t.shape, strict=True) if length > 1]
        assert y.numel() == 0 or lie(y) == lie(expected), what
        grads = torch.autograd.grad(y.sum(), (x, *ours.parameters()))
        z = x.detach().double().contiguous().requires_grad_()
        theirs.double()
        exact = torch.autograd.grad(theirs(z).sum(), (z, *theirs.parameters()))
        for a, b in zip(grads, exact, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=2**-8 if torch.bfloat16 in (dtype, y.dtype) else 0, atol=0)


def test_every_way_to_ask_for_one_is_taken_or_is_pytorchs() -> None:
    """Padding "valid" is none; padded and grouped ones, and inputs that do not fit, are left to PyTorch."""
    x = torch.randint(-2, 3, (2, 4, 6, 6)).float()
    taken: list[dict[str, Any]] = [{"padding": "valid"}, {"dilation": 2}, {"padding_mode": "reflect"}]
    for options in taken:
        layer = Conv2d(4, 6, 1, 2, **options)
        with Strided():
            y = layer(x)
        torch.testing.assert_close(y, _plain(layer)(x))
    left: list[dict[str, Any]] = [{"padding": 1}, {"groups": 2}, {"padding": 1, "padding_mode": "circular"}]
    for options in left:
        layer = Conv2d(4, 6, 1, 2, **options)
        assert torch.equal(layer(x), _plain(layer)(x))
    for wrong in (torch.randn(2, 3, 6, 6), torch.randn(4, 6), torch.randn(1, 2, 4, 6, 6)):
        with pytest.raises(RuntimeError, match=r"expected input|Expected 3D"):
            Conv2d(4, 6, 1, 2)(wrong)


def _plain(layer: Any) -> nn.Conv2d:
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    plain = nn.Conv2d(*shape, layer.dilation, layer.groups, padding_mode=layer.padding_mode)
    plain.load_state_dict(layer.state_dict())
    return plain


@pytest.mark.slow
def test_it_has_second_derivatives_and_can_be_traced() -> None:
    layer = Conv2d(2, 3, 1, 2).double()
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64).contiguous(memory_format=LAST).requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (x,))
    size = {0: torch.export.Dim.AUTO, 2: torch.export.Dim("h", min=4, max=64), 3: torch.export.Dim("w", min=4, max=64)}
    block = nn.Sequential(Sum(nn.Conv2d(2, 3, 3, 2, 1), Conv2d(2, 3, 1, 2)))
    exported = torch.export.export(block, (torch.randn(4, 2, 12, 8),), dynamic_shapes=({**size},)).module()
    for x in (torch.randn(3, 2, 7, 6), torch.randn(5, 2, 8, 9)):
        torch.testing.assert_close(exported(x), block(x))


class Sum(nn.Module):
    """Of two layers, as a block adds its shortcut: their heights and widths must be the same expression."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x) + self.layers[1](x)


class Foreign(nn.Module):
    """A user's network: PyTorch's convolutions, our neuron."""

    def __init__(self, conv: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 3, padding=1), conv(4, 8, 1, 2)
        self.lif1, self.lif2, self.fc = sb.LIF(), sb.LIF(), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lif1(4 * self.stem(x)[None])
        return self.fc(self.lif2(4 * self.down(x[0])[None]).mean((-2, -1)))


def test_the_doctor_tells_of_such_layers_and_does_not_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(8, 3, 8, 8).contiguous(memory_format=LAST), torch.arange(8) % 2
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    net = Foreign()
    with Strided() as seen:
        found = sb.diagnose(net, x, y, passes=[])
    assert seen.convolutions > 0
    assert found.facts["notes"][0].startswith("down: a 1x1 convolution with a stride")
    assert "down: a 1x1 convolution" in str(found)
    assert "_conv_forward" not in vars(net.down)
    healed = sb.diagnose(Foreign(sb.nn.Conv2d), x, y, passes=[])
    assert not healed.facts["notes"]
    assert "1x1 convolution" not in str(healed)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "SVE256")
    assert exposed(net) == {}


def test_the_miniature_of_the_benches_has_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    assert exposed(ResNet18(SMALL["width"], 10)) == {}
    assert len(exposed(ResNet18(8, 10))) == 1


def test_the_search_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Case] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(onednn, "crashes", lambda cases, isa, progress: asked.extend(cases) or ["ok", "SIGSEGV"])
    words = "--layer ours --channels 4-5 --outputs 8 --batch 3 --sizes 8 --threads 1 --precision float32 --isa AVX2"
    assert onednn.main(words.split()) == 1
    assert asked == [Case("ours", c, 8, batch=3, size=8, threads=1, precision="float32") for c in (4, 5)]
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-3] == "oneDNN limited to AVX2: 1 of 2 layers crash or are wrong"
    assert lines[-1].split() == ["float32", "1", "2", "8", "5", "SIGSEGV", "1"]
