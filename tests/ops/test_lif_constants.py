"""Leak, threshold, gain and surrogate are constants: a gradient that nobody computes is an error, not silence."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import spikeback as sb
from spikeback.errors import UsageError
from spikeback.nn import plain
from spikeback.ops import native
from spikeback.ops.lif import BACKENDS
from spikeback.ops.lif.operator import norm_lif

TANH = sb.surrogate.Tanh(3.0)
CHOICES = [
    None,
    *(name for name in BACKENDS if name not in ("cpu", "triton") or (name == "cpu" and native.available())),
]
CHOICES += ["triton"] * torch.cuda.is_available()
QUICK = [name for name in CHOICES if name != "compiled"]  # which takes seconds to compile


def one() -> Tensor:
    return nn.Parameter(torch.tensor(0.25))


def several() -> Tensor:
    return torch.full((3,), 0.25)


LEARNT = {
    "a leak": lambda: {"tau": one()},
    "a leak that is computed": lambda: {"tau": one().sigmoid()},
    "a threshold": lambda: {"threshold": torch.tensor(0.5, requires_grad=True)},
    "leaks by channel": lambda: {"tau": several().requires_grad_()},
    "constant leaks by channel": lambda: {"tau": several()},
    "thresholds by channel": lambda: {"threshold": several()},
    "a leak in a list of one": lambda: {"tau": torch.tensor([0.25])},
    "a gain": lambda: {"gain": one()},
    "gains by channel": lambda: {"gain": several().requires_grad_()},
}


class Learnt(nn.Module):
    """A surrogate of one's own with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(1.0))

    def forward(self, u: Tensor, threshold: float) -> Tensor:
        return self.width / (1 + u.abs())


@pytest.mark.parametrize("backend", CHOICES)
@pytest.mark.parametrize("constants", LEARNT.values(), ids=LEARNT)
def test_every_backend_refuses_to_lose_a_gradient(constants: Callable[[], Any], backend: str | None) -> None:
    given: Any = {"tau": 0.25, "threshold": 0.5} | constants()
    (name,) = constants()
    with pytest.raises(UsageError, match=rf"lif: {name} (cannot be learnt|must be one number)"):
        sb.lif(torch.randn(2, 4, 3), surrogate=TANH, backend=backend, **given)


@pytest.mark.parametrize("way", [contextlib.nullcontext, plain], ids=["fast", "plain"])
@pytest.mark.parametrize("constants", LEARNT.values(), ids=LEARNT)
def test_so_does_the_layer_whenever_they_are_set(constants: Callable[[], Any], way: Any) -> None:
    ((name, value),) = constants().items()
    layer = sb.LIF()
    setattr(layer, name, value)
    with pytest.raises(UsageError, match=f"lif: {name} "), way():
        layer(torch.randn(2, 4, 3))
    if name != "gain":
        with pytest.raises(UsageError, match=f"lif: {name} "):
            sb.LIF(**{name: value})


@pytest.mark.parametrize("constants", LEARNT.values(), ids=LEARNT)
def test_so_does_a_network_whose_neurons_are_fused(
    constants: Callable[[], Any], make_net: Callable[..., Any], images: Tensor
) -> None:
    ((name, value),) = constants().items()
    net = make_net()
    setattr(next(m for m in net.modules() if isinstance(m, sb.LIF)), name, value)
    with pytest.raises(UsageError, match=f"lif: {name} "):
        net(images)


def test_a_layer_of_ones_own_that_computes_its_leak_is_refused() -> None:
    class Learning(sb.LIF):
        def forward(self, x: Tensor, *rest: Any) -> Any:
            self.tau: Any = torch.sigmoid(self.get_parameter("w"))
            return super().forward(x, *rest)

    layer = Learning()
    layer.register_parameter("w", nn.Parameter(torch.tensor(0.0)))
    with pytest.raises(UsageError, match="lif: tau cannot be learnt"):
        layer(torch.randn(2, 4, 3))


@pytest.mark.parametrize("backend", QUICK)
def test_a_tensor_that_is_a_number_is_taken_as_it(backend: str | None) -> None:
    x = torch.randn(4, 50)
    expected, _ = sb.lif(x, 0.25, 0.5, TANH, backend=backend)
    numbers: list[Callable[[float], Any]] = [torch.tensor, lambda value: nn.Parameter(torch.tensor(value)).detach()]
    for number in numbers:
        spikes, _ = sb.lif(x, number(0.25), number(0.5), TANH, backend=backend)
        assert torch.equal(spikes, expected)
        layer = sb.LIF(number(0.25), number(0.5), TANH)
        assert (layer.tau, layer.threshold, type(layer.tau)) == (0.25, 0.5, float)
        layer.tau = number(0.25)
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("wrong", [{"tau": 1.5}, {"threshold": -1.0}, {"threshold": torch.tensor(torch.nan)}])
def test_a_constant_set_later_is_checked_like_one_given(wrong: dict[str, Any]) -> None:
    layer = sb.LIF()
    for name, value in wrong.items():
        setattr(layer, name, value)
    with pytest.raises(UsageError, match=f"lif: {next(iter(wrong))} must "):
        layer(torch.randn(2, 4, 3))


def test_parameters_of_a_surrogate_are_numbers() -> None:
    with pytest.raises(UsageError, match="Tanh: k cannot be learnt"):
        sb.surrogate.Tanh(nn.Parameter(torch.tensor(3.0)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="Triangle: gamma must be one number"):
        sb.surrogate.Triangle(several())  # pyright: ignore[reportArgumentType]
    assert sb.surrogate.Tanh(torch.tensor(3.0)) == TANH  # pyright: ignore[reportArgumentType]
    for surrogate in (Learnt(), lambda: None):
        surrogate.scale = one()  # pyright: ignore[reportFunctionMemberAccess]
        with pytest.raises(UsageError, match="lif: surrogate cannot be learnt"):
            sb.lif(torch.randn(2, 4, 3), 0.25, 0.5, surrogate)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("backend", [name for name in QUICK if name in ("cpu", "triton")])
def test_forward_mode_is_refused_where_it_would_give_zero(backend: str | None) -> None:
    x = torch.randn(2, 4, 3)
    with forward_ad.dual_level():
        dual = torch._VF._make_dual(x, torch.ones_like(x), level=0)  # forward_ad.make_dual takes seconds to import
        with pytest.raises(NotImplementedError, match="forward-mode"):
            sb.lif(dual, 0.25, 0.5, TANH, backend=backend)
        assert sb.lif(x, 0.25, 0.5, TANH, backend=backend)[0].shape == x.shape  # carries no tangent


@pytest.mark.skipif(not native.available(), reason="no compiled kernels")
def test_an_operator_names_the_operand_that_it_has_no_gradient_for() -> None:
    x = torch.randn(2, 4, 3, requires_grad=True)
    spikes, _ = norm_lif(x, one(), [0.25, 0.5, 2, 3.0, False], 2)
    with pytest.raises(RuntimeError, match=r"norm_lif.* has no gradient for gain"):
        spikes.sum().backward()


@pytest.mark.parametrize("backend", QUICK)
@pytest.mark.parametrize("packed", [contextlib.nullcontext, sb.packed_spikes], ids=["", "packed"])
def test_the_gradient_of_the_state_is_there_in_every_backend(backend: str | None, packed: Any) -> None:
    x, state, weight = torch.randn(3, 8, 5), torch.rand(8, 5), torch.rand(5, 5)
    found = []
    for choice in ("reference", backend):
        leaf, by = state.clone().requires_grad_(), weight.clone().requires_grad_()
        with packed():
            spikes, after = sb.lif(x, 0.5, 0.5, TANH, state=leaf, backend=choice)
            loss = (spikes @ by).square().sum() + after.sum()
        loss.backward()
        assert leaf.grad is not None
        assert leaf.grad.count_nonzero() > 0
        found.append((leaf.grad, by.grad))
    torch.testing.assert_close(found[0], found[1])
