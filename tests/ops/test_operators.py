"""The native operations as `torch.library` operators: fake kernels, autograd, tracing."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import spikeback as sb
from spikeback.ops import library, native, packing
from spikeback.ops.lif import code, operator

from .cases import channels_last, dyadic

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiled kernels")

FORMS: dict[str, Any] = {"contiguous": torch.Tensor.contiguous, "channels-last": channels_last}
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")
C = 5


def affine() -> tuple[Tensor, ...]:
    """Weight, bias and statistics: mean and 1 / sqrt(variance)."""
    return torch.rand(C) + 0.5, dyadic(C), torch.stack((dyadic(C), torch.rand(C) + 0.5))


def samples(form: str, dtype: torch.dtype = torch.float32) -> dict[str, tuple[Any, ...]]:
    """Arguments of norm_lif: every set of operands that the blocks use."""
    x, residual = (FORMS[form](dyadic(3, 2, C, 4, 3)).to(dtype) for _ in range(2))
    one, state, gain = x[:1], FORMS[form](dyadic(1, 2, C, 4, 3))[0], torch.tensor(0.75)
    none = [None] * 3
    kind = code(sb.surrogate.Triangle(1.0))
    assert kind is not None
    numbers = (gain, [0.5, 0.5, *kind, False], 3)
    return {
        "alone": (x, *numbers, *none, None, *none, None, "running", True),
        "state": (x, *numbers, *none, None, *none, state, "running", True),
        "static": (one, *numbers, *none, None, *none, None, "running", True),
        "residual": (x, *numbers, *none, residual, *none, None, "running", False),
        "norm": (x, *numbers, *affine(), None, *none, None, "batch", False),
        "static norm": (one, *numbers, *affine(), None, *none, None, "batch", False),
        "norm, residual": (x, *numbers, *affine(), residual, *none, None, "batch", False),
        "two norms": (x, *numbers, *affine(), residual, *affine(), None, "batch", False),
        "two norms, state": (x, *numbers, *affine(), residual, *affine(), state, "running", True),
    }


WITHOUT = (1, 6, 10)  # a gradient: gain and statistics


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", samples("contiguous"))
def test_norm_lif_is_a_sound_operator(what: str, form: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        arguments = samples(form, dtype)[what]
        opcheck(operator.norm_lif, arguments, test_utils=CHECKS)
        leaves = [a.requires_grad_() if isinstance(a, Tensor) and i not in WITHOUT else a
                  for i, a in enumerate(arguments)]  # fmt: skip
        opcheck(operator.norm_lif, tuple(leaves), test_utils=CHECKS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", samples("contiguous"))
def test_norm_lif_backward_is_a_sound_operator(what: str, form: str) -> None:
    *arguments, keep_membrane = samples(form)[what]
    steps, shape = arguments[3], arguments[0].shape[1:]
    membrane = dyadic(*shape) if keep_membrane else None
    for grad, grad_membrane in ((FORMS[form](dyadic(steps, *shape)), membrane), (None, membrane)):
        opcheck(operator.norm_lif_backward, (grad, grad_membrane, *arguments), test_utils=CHECKS)


@pytest.mark.parametrize("form", FORMS)
def test_fake_results_have_shape_type_and_layout_of_the_real_ones(form: str) -> None:
    """`opcheck` overlooks strides."""
    for what, arguments in samples(form).items():
        *all_but_last, _ = arguments
        grad = FORMS[form](dyadic(3, *arguments[0].shape[1:]))
        for op, given in ((operator.norm_lif, arguments), (operator.norm_lif_backward, (grad, None, *all_but_last))):
            real = op(*given)
            with torch._subclasses.FakeTensorMode() as mode:
                fake = op(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in given))
            for r, f in zip(real, fake, strict=True):
                assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride()), what


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_pack_and_unpack_are_sound_operators(dtype: torch.dtype) -> None:
    for form in FORMS.values():
        opcheck(operator.moments, (form(dyadic(3, 2, C, 4, 3)).to(dtype),), test_utils=CHECKS)
    bits = torch.randint(256, (7,), dtype=torch.uint8)
    opcheck(packing.pack, ((torch.rand(56) > 0.5).to(dtype),), test_utils=CHECKS)
    opcheck(packing.unpack, (bits, dtype), test_utils=CHECKS)


@pytest.mark.parametrize("surrogate", [sb.surrogate.Triangle(1.0), sb.surrogate.Tanh(3.0)], ids=repr)
@pytest.mark.slow
def test_compiled_function_gives_the_same_in_one_graph(surrogate: sb.surrogate.Triangle) -> None:
    def step(x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        spikes, u = sb.lif(2 * x, 0.5, 0.5, surrogate, state=state, gain=0.75)
        return spikes.mean((-2, -1)), u

    for form in FORMS.values():
        x, state = form(dyadic(3, 2, C, 4, 4)).requires_grad_(), dyadic(2, C, 4, 4).requires_grad_()
        results = []
        for f in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
            rates, u = f(x, state)
            results.append((rates, u, *torch.autograd.grad(rates.square().sum() + u.sum(), (x, state))))
        for expected, result in zip(*results, strict=True):
            assert torch.equal(result, expected)


FINGERPRINT = """
import hashlib, torch, spikeback as sb
from spikeback.ops import native
torch.manual_seed(0)
digest = hashlib.sha256()
for surrogate in (sb.surrogate.Triangle(1.0), sb.surrogate.Rectangle(1.1), sb.surrogate.ATan(1.3)):
    for shape in ((5, 2, 17, 9, 7), (3, 2, 64, 8, 8), (4, 1001)):
        x = (torch.randint(-600, 600, shape) / 300).requires_grad_()  # randn depends on the processor
        spikes, u = sb.lif(x, 0.3, 0.5, surrogate, backend="cpu")
        (spikes * (torch.randint(-600, 600, shape) / 300)).sum().backward()
        for y in (spikes, u, x.grad):
            digest.update(y.detach().numpy().tobytes())
print(native.KERNELS._name, digest.hexdigest())
"""


@pytest.mark.slow
def test_every_variant_of_the_kernels_gives_the_same_bits() -> None:
    """The one for any processor, and that of this processor."""
    seen = {}
    for level in ("default", torch.backends.cpu.get_cpu_capability().lower()):
        environment = os.environ | {"ATEN_CPU_CAPABILITY": level}
        done = subprocess.run([sys.executable, "-c", FINGERPRINT], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        name, digest = done.stdout.split()
        seen[name] = digest
    assert any("default" in name for name in seen)
    assert len(set(seen.values())) == 1, seen


def test_numbers_of_the_norm_need_not_be_dense() -> None:
    """The kernels of a GPU read them from one address on."""
    x, *arguments = samples("contiguous")["norm"]
    dense = operator.norm_lif(x, *arguments)[0]
    for i in range(3, 6):
        arguments[i] = torch.stack((arguments[i], torch.full_like(arguments[i], 9.0)), -1)[..., 0]
    assert torch.equal(operator.norm_lif(x, *arguments)[0], dense)
    handed_on = operator._affine(*arguments[3:6])
    assert handed_on is not None
    assert all(numbers.is_contiguous() for numbers in handed_on)


def test_gradient_is_named_after_its_operator() -> None:
    x, *arguments = samples("contiguous")["alone"]
    spikes, _ = operator.norm_lif(x.requires_grad_(), *arguments)
    assert type(spikes.grad_fn).__name__ == "norm_lifBackward"


def test_an_operator_says_what_it_changed() -> None:
    """As every in-place operation does: autograd refuses what was saved before."""

    @library.define(mutates=("total",))
    def add_to_total_for_a_test(x: Tensor, total: Tensor | None) -> Tensor:
        if total is not None:
            total.numpy()[...] += float(x.sum())  # unseen by autograd, as a kernel is
        return x.clone()

    total = torch.zeros(())
    weight = torch.ones((), requires_grad=True)
    product = weight * total
    with torch.no_grad():
        add_to_total_for_a_test(torch.ones(3), total)
    add_to_total_for_a_test(torch.ones(3), None)
    assert (total, total._version) == (3, 1)
    with pytest.raises(RuntimeError, match="inplace operation"):
        product.backward()
