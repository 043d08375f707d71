"""Memory that is kept from step to step: the heap's, and the pool of large tensors."""

import copy
import gc
import io
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

import spikeback as sb
from spikeback.ops import allocator, native
from spikeback.ops.allocator import LARGE, Pool, empty
from spikeback.ops.convolution import convolve

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator, Linux's mmap")
PAGE = os.sysconf("SC_PAGESIZE")
LIKE = torch.empty(0)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool, empty, in use."""
    pool = Pool()
    monkeypatch.setattr(allocator, "_pool", pool)
    return pool


def place(x: Tensor, pool: Pool) -> int:
    """Where a tensor begins in the pool; outside it is negative or beyond the end."""
    return x.data_ptr() - torch.frombuffer(pool.memory, dtype=torch.uint8).data_ptr()


def lies_in(x: Tensor, pool: Pool) -> bool:
    return 0 <= place(x, pool) < len(pool.memory)


def gaps(pool: Pool) -> list[tuple[int, int]]:
    gc.collect()
    pool.hand_back()
    return pool.gaps


def resident() -> int:
    """Megabytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE >> 20


@pytest.mark.slow
def test_blocks_come_from_the_lowest_gap_and_gaps_join(pool: Pool) -> None:
    a, b, c, d = (pool.take(size) for size in (3 * PAGE, PAGE - 1, 2 * PAGE, 1))
    end = len(pool.memory)
    assert gaps(pool) == [(7 * PAGE, end)]
    del b
    assert gaps(pool) == [(3 * PAGE, 4 * PAGE), (7 * PAGE, end)]
    e = pool.take(PAGE + 1)  # does not fit into it
    assert gaps(pool) == [(3 * PAGE, 4 * PAGE), (9 * PAGE, end)]
    del c
    assert gaps(pool) == [(3 * PAGE, 6 * PAGE), (9 * PAGE, end)]
    f = pool.take(PAGE)
    assert gaps(pool) == [(4 * PAGE, 6 * PAGE), (9 * PAGE, end)]
    del a, d, f
    assert gaps(pool) == [(0, 7 * PAGE), (9 * PAGE, end)]
    del e
    assert gaps(pool) == [(0, end)]


def test_blocks_in_use_are_never_given_twice(pool: Pool) -> None:
    random.seed(0)
    blocks: dict[int, memoryview] = {}
    for step in range(2000):
        if len(blocks) < 20 and random.random() < 0.6:
            block = pool.take(random.randint(1, 9 * PAGE))
            assert block is not None
            block[:] = bytes([step % 251]) * len(block)
            blocks[step] = block
        elif blocks:
            key = random.choice(list(blocks))
            block = blocks.pop(key)
            assert bytes(block) == bytes([key % 251]) * len(block)
        assert len(pool.gaps) <= 22
        assert all(end < start for (_, end), (start, _) in zip(pool.gaps, pool.gaps[1:], strict=False))
    blocks.clear()
    block = None
    assert gaps(pool) == [(0, len(pool.memory))]


def test_nobody_waits_for_the_lock_and_what_does_not_fit_lies_in_the_heap(pool: Pool) -> None:
    assert pool.take(len(pool.memory) + 1) is None
    with pool.lock:
        assert pool.take(1) is None
        x = empty((LARGE,), LIKE).fill_(1)
    assert not lies_in(x, pool)
    assert x.sum() == LARGE
    assert lies_in(empty((LARGE,), LIKE), pool)


@pytest.mark.slow
def test_only_large_tensors_of_the_cpu_lie_there(pool: Pool) -> None:
    large = LARGE // 4
    assert lies_in(empty((large,), LIKE), pool)
    assert lies_in(empty((2, large), LIKE, dtype=torch.bfloat16), pool)
    assert not lies_in(empty((large - 1,), LIKE), pool)
    assert not lies_in(empty((large,), LIKE, dtype=torch.bfloat16), pool)
    assert empty((4, large), torch.empty(0, device="meta")).device.type == "meta"
    with FakeTensorMode() as mode:
        assert type(empty((4, large), mode.from_tensor(LIKE))) is not Tensor
    x = empty((3, large), LIKE, dtype=torch.bfloat16)
    assert (x.shape, x.dtype, x.is_contiguous(), x.requires_grad) == ((3, large), torch.bfloat16, True, False)


def test_a_block_is_taken_as_long_as_a_view_of_it_lives(pool: Pool) -> None:
    x = empty((4, LARGE), LIKE).fill_(3)
    view = x[2:].T
    del x
    y = empty((4, LARGE), LIKE).fill_(5)
    assert view.eq(3).all()
    where = place(y, pool)
    del view, y
    gc.collect()
    z = empty((4, LARGE), LIKE)
    assert place(z, pool) == 0 != where


def test_tensors_of_the_pool_are_like_any_other(pool: Pool) -> None:
    x = empty((LARGE,), LIKE).normal_()
    expected = torch.tensor(x.tolist())
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    for other in (copy.deepcopy(x), x.clone(), torch.load(file), torch.from_numpy(x.numpy())):
        assert torch.equal(other, expected)
    layer = nn.Linear(4, 2)
    layer(x.view(-1, 4)).sum().backward()
    assert layer.weight.grad is not None
    x.requires_grad_()
    (x * x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * expected)
    with torch.inference_mode():
        assert empty((LARGE,), LIKE).is_inference()
    shared = x.detach().share_memory_()
    assert shared.is_shared()
    assert torch.equal(shared, expected)
    with pytest.raises(RuntimeError, match="not resizable"):
        empty((LARGE,), LIKE).resize_(2 * LARGE)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_another_process_made_by_fork_has_a_pool_of_its_own(pool: Pool) -> None:
    x = empty((LARGE,), LIKE).fill_(1)
    child = os.fork()
    if not child:
        good = False
        try:
            y = empty((LARGE,), LIKE).fill_(2)
            good = lies_in(y, pool) and bool(x.eq(1).all())
            x.fill_(3)
        finally:
            os._exit(not good)
    assert os.waitpid(child, 0)[1] == 0
    assert x.eq(1).all()


def test_threads_share_it(pool: Pool) -> None:
    wrong = []

    def work(value: int) -> None:
        for _ in range(50):
            x = empty((LARGE // 4,), LIKE).fill_(value)
            if not x.eq(value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert gaps(pool) == [(0, len(pool.memory))]


def test_hand_back_returns_the_memory_of_gaps_alone(pool: Pool) -> None:
    kept, gone = (empty((64 << 18,), LIKE).fill_(1) for _ in range(2))
    with_both = resident()
    del gone
    assert resident() > with_both - 32  # it stays with the process
    allocator.hand_back()
    assert resident() < with_both - 32
    assert kept.eq(1).all()


@pytest.mark.skipif(not native.available(), reason="no compiled kernels")
@pytest.mark.slow
def test_results_and_gradients_of_the_kernels_lie_there_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = sb.create_model("spiking_resnet18", num_classes=5, time_steps=2, width=32).to(
        memory_format=torch.channels_last
    )
    images = torch.randn(16, 3, 16, 16)

    def run() -> list[Tensor]:
        net.zero_grad()
        with sb.packed_spikes():
            logits = net(images)
        logits.square().sum().backward()
        return [logits.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]

    monkeypatch.setattr(allocator, "_pool", None)
    before = run()
    pool, takes = Pool(), []
    take = pool.take
    monkeypatch.setattr(pool, "take", lambda size: (takes.append(size), take(size))[1])
    monkeypatch.setattr(allocator, "_pool", pool)
    assert all(map(torch.equal, run(), before))
    assert len(takes) > 10
    assert gaps(pool) == [(0, len(pool.memory))]


PAGES = """
import torch
from pathlib import Path
import spikeback as sb
from spikeback.ops import allocator

def left(megabytes=64):
    \"\"\"Megabytes that stay with the process after a tensor of so many is gone.\"\"\"
    pages = lambda: int(Path("/proc/self/statm").read_text().split()[1])
    before = pages()
    torch.ones(megabytes << 18)
    return (pages() - before) >> 8

left()
stock = left()
assert allocator._pool is None
assert sb.tune_allocator() is True
print(stock, left(), allocator._pool is not None)
"""


def run_alone(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_tuned_allocator_keeps_its_pages_and_importing_does_not_tune() -> None:
    stock, tuned, pooled = run_alone(PAGES)
    assert int(stock) < 8
    assert int(tuned) > 56
    assert pooled == "True"


LIMITED = """
import resource
import torch
import spikeback as sb
from spikeback.ops import allocator

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), resource.RLIM_INFINITY))
assert sb.tune_allocator() is True
print(allocator._pool, allocator.empty((1 << 20,), torch.empty(0)).fill_(1).sum().item())
"""


@pytest.mark.slow
def test_where_addresses_are_limited_everything_lies_in_the_heap() -> None:
    assert run_alone(LIMITED) == ["None", str(float(1 << 20))]


@pytest.mark.parametrize("pooled", [True, False])
def test_tensors_are_nobodys_view_in_the_layout_that_was_asked_for(
    pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocator, "_pool", Pool() if pooled else None)
    shape = (2, 16, 32, 20, 24)
    for channels_last in (False, True):
        x = empty(shape, LIKE, channels_last)
        expected = torch.empty(2, 16, 20, 24, 32).permute(0, 1, 4, 2, 3) if channels_last else torch.empty(shape)
        assert (x.shape, x.stride(), x._is_view()) == (shape, expected.stride(), False)
    assert empty((0, 3, 2, 2), LIKE, True).stride() == torch.empty(0, 2, 2, 3).permute(0, 3, 1, 2).stride()


@pytest.mark.skipif(not native.CONVOLVES, reason="no compiled convolutions")
def test_autograd_adds_gradients_of_the_kernels_in_place(pool: Pool) -> None:
    torch.manual_seed(0)
    for images in (16, 256):  # in the heap, in the pool
        x, weight = torch.randn(images, 32, 8, 8, requires_grad=True), torch.randn(32, 32, 3, 3)
        leaf = x.contiguous(memory_format=torch.channels_last)
        y = convolve(leaf, weight)
        loss = leaf.relu().sum() + y.sum()  # the gradient through the latter comes first
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            loss.backward()
        called = [event.key for event in profiled.key_averages()]
        assert "aten::add_" in called
        assert "aten::add" not in called
        assert lies_in(y, pool) == (images == 256)
