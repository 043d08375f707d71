"""Spikes kept as bits: the same gradients, less memory, and nothing left behind."""

import copy
import gc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import spikeback as sb
from spikeback.nn import plain
from spikeback.ops import native
from spikeback.ops import packing as module
from spikeback.ops.packing import pack, unpack

FLOATS = [torch.float32, torch.bfloat16]


@pytest.fixture(params=[True, False], ids=["kernels", "pytorch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled kernels, and as on a machine without a compiler."""
    if not request.param:
        monkeypatch.setattr(native, "available", lambda: False)
    elif not native.available():
        pytest.skip("no compiled kernels")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [0, 8, 24, 8 * 4099, 8 * 9000])
@pytest.mark.usefixtures("kernels")
def test_unpack_is_the_inverse_of_pack(size: int, dtype: torch.dtype) -> None:
    spikes = (torch.rand(size) < 0.3).to(dtype)
    bits = pack(spikes)
    assert (bits.dtype, bits.shape) == (torch.uint8, (size // 8,))
    assert torch.equal(unpack(bits, dtype), spikes)
    assert unpack(bits, dtype).dtype == dtype


@pytest.mark.usefixtures("kernels")
def test_the_first_spike_is_the_lowest_bit() -> None:
    assert pack(torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1])).tolist() == [1, 130]


def gradients(net: nn.Module, x: Tensor, packed: bool) -> list[Tensor]:
    with sb.packed_spikes() if packed else nullcontext():
        logits = net(x)
    logits.square().sum().backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    return [logits.detach(), *grads]


def assert_equal(results: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["spiking_resnet18", "spiking_resnet20", "spiking_resnet20_he", "spiking_vgg11"])
def test_gradients_are_the_same_to_the_bit(name: str, dtype: torch.dtype) -> None:
    net: Any = sb.create_model(name, num_classes=5, width=4, time_steps=2)
    for x in (torch.randn(2, 3, 32, 32), torch.randn(3, 4, 3, 32, 32)):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            results, expected = gradients(copy.deepcopy(net), x, True), gradients(copy.deepcopy(net), x, False)
        assert len(results) > 20
        assert_equal(results, expected)


@pytest.mark.usefixtures("kernels")
def test_gradients_are_the_same_on_the_reference_and_with_branches(make_net: Callable[..., Any]) -> None:
    model = sb.ShortcutNet(make_net(), "block")
    net = lambda x: model(x, 0.5)
    x = torch.randn(3, 3, 8, 8)
    for context in (plain, nullcontext):
        results = []
        for packed in (True, False):
            twin = copy.deepcopy(model)
            with context():
                results.append(gradients(Weighted(twin), x, packed))
        assert_equal(*results)
    assert net(x).shape == (2, 3, 5)


class Weighted(nn.Module):
    """A ShortcutNet at weight 1/2."""

    def __init__(self, model: sb.ShortcutNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, 0.5)


def kept_bytes(net: nn.Module, x: Tensor, packed: bool) -> int:
    """Bytes of all storages that the graph of a forward pass keeps, parameters aside."""
    storages: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in [*net.parameters(), *net.buffers()]}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, module.Packed):
            visit(value.bits)
        elif isinstance(value, tuple):
            for item in value:
                visit(item)

    packing = module.Packing()
    token = module._packing.set(packing) if packed else None

    def keep(tensor: Tensor) -> Any:
        kept = packing.keep(tensor) if packed else tensor
        visit(kept)
        return kept

    with saved_tensors_hooks(keep, module.Packing.give):
        logits = net(x)
    if token is not None:
        module._packing.reset(token)
    assert logits.requires_grad
    return sum(storages.values())


@pytest.mark.skipif(not native.available(), reason="blocks are not fused without kernels")
def test_what_the_graph_keeps_is_half_of_it() -> None:
    """A fused block keeps the convolution's output and the spikes: packed, the latter are a thirty-second of it."""
    net: Any = sb.create_model("spiking_vgg11", num_classes=5, width=8, time_steps=2)
    x = torch.randn(2, 4, 3, 32, 32)
    unpacked, packed = kept_bytes(net, x, False), kept_bytes(net, x, True)
    assert packed < 0.6 * unpacked


def test_memory_of_spikes_is_freed_when_the_graph_keeps_only_bits() -> None:
    weight = torch.ones(64, 1000, requires_grad=True)
    with sb.packed_spikes():
        spikes = sb.LIF()(torch.randn(2, 50, 1000))
        product = spikes @ weight.T
    saved = product.grad_fn
    storage = torch.multiprocessing.reductions.StorageWeakRef(spikes.untyped_storage())
    expected = spikes.clone()
    del spikes
    gc.collect()
    assert storage.expired()
    assert saved is not None
    product.sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[0], expected.sum((0, 1)))


def test_backward_twice_gives_the_same_again() -> None:
    net: Any = sb.create_model("spiking_resnet18", num_classes=5, width=4, time_steps=2)
    with sb.packed_spikes():
        loss = net(torch.randn(2, 3, 8, 8)).square().sum()
    first = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    gc.collect()
    assert_equal(list(torch.autograd.grad(loss, list(net.parameters()))), list(first))
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def weight_gradient(packed: bool, change: Callable[[Tensor], Any], size: int = 1000) -> Tensor:
    """dL/dw of (w * spikes).sum() for spikes that were changed after they fired."""
    torch.manual_seed(0)
    w = torch.ones(2, 4, size, requires_grad=True)
    with sb.packed_spikes() if packed else nullcontext():
        spikes = sb.LIF()(torch.randn(2, 4, size))
        given = change(spikes)
        (w * (spikes if given is None else given)).sum().backward()
    assert w.grad is not None
    return w.grad


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "not at all": lambda s: None,
    "times 2": lambda s: s.mul_(2),
    "through a view": lambda s: (s[0].add_(0.5), None)[1],
    "after a first use": lambda s: ((torch.ones((), requires_grad=True) * s).sum(), s.mul_(3))[1],
    "a slice": lambda s: s[:, 1:3].repeat(1, 2, 1),
    "a view of one step": lambda s: s[1:].expand(2, -1, -1),
    "transposed": lambda s: s.mT.contiguous().mT,
    "a view transposed": lambda s: s.transpose(0, 1).reshape(4, 2, -1).transpose(0, 1),
    "detached": lambda s: s.detach(),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("size", [1000, 3, 1])
def test_changed_and_viewed_spikes_give_the_same_gradients(what: str, size: int) -> None:
    assert torch.equal(weight_gradient(True, CHANGES[what], size), weight_gradient(False, CHANGES[what], size))


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1), (7,), (3, 0, 5), (2, 4, 3), (1, 9)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_number_of_spikes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, w = torch.randn(shape).to(dtype), torch.ones(shape, dtype=dtype, requires_grad=True)
    with sb.packed_spikes():
        spikes = sb.LIF()(x)
        loss = (w * spikes).sum()
    expected = spikes.clone()
    del spikes
    loss.backward()
    assert w.grad is not None
    assert torch.equal(w.grad, expected)


def test_spikes_of_a_float16_or_float64_net_are_left_alone() -> None:
    for dtype in (torch.float16, torch.float64):
        w = torch.ones(2, 40, dtype=dtype, requires_grad=True)
        with sb.packed_spikes():
            spikes = sb.LIF()(torch.randn(2, 40).to(dtype))
            (w * spikes).sum().backward()
        assert w.grad is not None
        assert torch.equal(w.grad, spikes)


def test_contexts_may_be_nested() -> None:
    net: Any = sb.create_model("spiking_resnet18", num_classes=5, width=4, time_steps=2)
    x = torch.randn(2, 3, 8, 8)
    expected = gradients(copy.deepcopy(net), x, False)
    with sb.packed_spikes():
        outer = sb.LIF()(torch.randn(2, 3, 8))
        inner = gradients(copy.deepcopy(net), x, True)
        again = gradients(copy.deepcopy(net), x, False)  # in the outer one only
        w = torch.ones(2, 3, 8, requires_grad=True)
        with sb.packed_spikes():
            loss = (w * outer).sum()
        loss.backward()
    assert_equal(inner, expected)
    assert_equal(again, expected)
    assert w.grad is not None
    assert torch.equal(w.grad, outer)


def test_an_exception_leaves_no_hook_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        with sb.packed_spikes():
            sb.LIF()(torch.randn(2, 3))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    packs: list[int] = []
    monkeypatch.setattr(module, "pack", lambda spikes: packs.append(1) or pack(spikes))
    w = torch.ones(2, 8, requires_grad=True)
    (w * sb.LIF()(torch.randn(2, 8))).sum().backward()
    assert not packs
    assert module._packing.get() is None
    with sb.packed_spikes():
        (w * sb.LIF()(torch.randn(2, 8))).sum().backward()
    assert packs


def test_a_training_loop_inside_does_not_grow() -> None:
    """Whoever wraps the whole loop keeps no bits of steps that are over."""
    w = torch.ones(2, 8, requires_grad=True)
    with sb.packed_spikes():
        for _ in range(5):
            (w * sb.LIF()(torch.randn(2, 8))).sum().backward()
        gc.collect()
        assert sum(type(o) is module.Packed for o in gc.get_objects()) <= 1
        packing = module._packing.get()
        assert packing is not None
        assert len(packing.known) <= 2
