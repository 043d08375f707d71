"""Search for shapes of layers at which PyTorch's kernels of oneDNN write beyond their memory, or compute wrong numbers.

    python -m spikeback.lab.bench.onednn                                # PyTorch's convolution on this processor
    python -m spikeback.lab.bench.onednn --isa AVX512_CORE_BF16 AVX2    # as on processors of these kinds
    python -m spikeback.lab.bench.onednn --layer ours                   # spikeback.nn.Conv2d: nothing is found

Every layer runs once forwards and backwards in a child process, so that a crash is counted and not suffered. The child
checks every block of memory when it is freed (glibc's MALLOC_CHECK_). Images, weights and gradients are small whole
numbers; results are compared with those of float64, which oneDNN has no part in. docs/onednn.md says what is known.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from ctypes import CDLL
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

CHECKER = "libc_malloc_debug.so.0"  # from version 2.34 of glibc on MALLOC_CHECK_ is a library of its own
SECONDS = 10  # after which a layer counts as hanging
TOGETHER = 50  # layers that a child runs, one after the other
LAYERS = ("pytorch", "ours", "linear", "conv1d")
OK, WRONG, ERROR = "ok", "wrong", "error"


@dataclass(frozen=True)
class Case:
    """One layer and its input."""

    layer: str = "pytorch"
    channels: int = 8
    out_channels: int = 16
    kernel: int = 1
    stride: int = 2
    padding: int = 0
    groups: int = 1
    batch: int = 3
    size: int = 16
    layout: str = "channels_last"
    threads: int = 2
    precision: str = "bf16"


def crashes(cases: Sequence[Case], isa: str | None = None, progress: bool = False) -> list[str]:
    """What became of each case: "ok", "wrong" (numbers), "error" (an exception), or the signal that ended its process.

    `isa` limits the instructions that oneDNN uses, by its names (AVX2, AVX512_CORE, AVX512_CORE_BF16, ...); more than
    the processor has cannot be tried. SIGALRM stands for a layer that did not end.

    Raises:
        RuntimeError: the processes cannot be started at all.
    """
    environment = os.environ | {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    environment |= {"LD_PRELOAD": CHECKER} if checks_memory() else {}
    environment |= {"ONEDNN_MAX_CPU_ISA": isa} if isa else {}
    environment |= {"OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-m", __spec__.name, "--child"]
    lines = "".join(json.dumps(asdict(case)) + "\n" for case in cases)
    stderr = None if progress else subprocess.PIPE
    done = subprocess.run(words, env=environment, input=lines, stdout=subprocess.PIPE, stderr=stderr, text=True)
    found = done.stdout.split()
    if len(found) != len(cases):
        raise RuntimeError(f"the search ended after {len(found)} of {len(cases)} layers: {(done.stderr or '')[-500:]}")
    return found


def checks_memory() -> bool:
    """Whether this system can check every block of memory that is freed; without it only crashes and numbers tell."""
    try:
        return bool(CDLL(CHECKER))
    except OSError:
        return False


def run(case: Case) -> bool:
    """One pass forwards and backwards. Whether output and gradients are those of float64."""
    import torch

    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    layer, exact = _layer(case), _layer(replace(case, layer="pytorch") if case.layer == "ours" else case).double()
    with torch.no_grad():
        for p, q in zip(layer.parameters(), exact.parameters(), strict=True):
            q.copy_(p.copy_(torch.randint(-1, 2, p.shape)))
    x = _input(case)
    with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
        y = layer(x)
    grad = torch.randint(-1, 2, y.shape).to(y.dtype)
    found = (y, *torch.autograd.grad((y * grad).sum(), (x, *layer.parameters())))
    torch.set_num_threads(1)
    z = x.detach().double().contiguous().requires_grad_()
    y = exact(z)
    expected = (y, *torch.autograd.grad((y * grad.double()).sum(), (z, *exact.parameters())))
    # whole numbers: sums are exact in float32, and rounded once, by a 256th at most, in bfloat16
    within = 2**-8 if case.precision == "bf16" else 0
    return all(torch.allclose(a.double(), b, rtol=within, atol=0) for a, b in zip(found, expected, strict=True))


def _layer(case: Case) -> Any:
    from torch import channels_last, nn

    from spikeback.nn.conv import Conv2d

    if case.layer == "linear":
        return nn.Linear(case.channels, case.out_channels, bias=False)
    kind = {"pytorch": nn.Conv2d, "ours": Conv2d, "conv1d": nn.Conv1d}[case.layer]
    shape = (case.channels, case.out_channels, case.kernel, case.stride, case.padding)
    layer = kind(*shape, groups=case.groups, bias=False)
    return layer.to(memory_format=channels_last) if case.layout == "channels_last" and kind is not nn.Conv1d else layer


def _input(case: Case) -> Any:
    """0/1 spikes, with the channels last in memory or as they come."""
    import torch

    pixels = (case.size**2,) if case.layer in ("linear", "conv1d") else (case.size, case.size)
    x = torch.randint(2, (case.batch, *pixels, case.channels)).float()
    if case.layer != "linear":
        x = x.movedim(-1, 1)
        x = x.contiguous() if case.layout == "contiguous" else x
    return x.requires_grad_()


def _serve() -> None:
    """The process with the heap's checks: reads cases, runs them in forks of itself, prints what became of them.

    A fork runs many. If it dies, each of them has one of its own, so that the right one is blamed.
    """
    run(Case("linear", threads=1))  # forks have then what PyTorch imports late; one thread, since forks lose all others
    cases = [Case(**json.loads(line)) for line in sys.stdin]
    for first in range(0, len(cases), TOGETHER):
        group = cases[first : first + TOGETHER]
        answers = _fork(group)
        if answers[-1] not in (OK, WRONG):
            alone = [_fork([case])[0] for case in group]
            if set(alone) == {OK}:
                alone[len(answers) - 1] = answers[-1]
            answers = alone
        print(*answers, flush=True)
        print(f"\r{first + len(group)} of {len(cases)} layers ", end="", file=sys.stderr, flush=True)


def _fork(cases: Sequence[Case]) -> list[str]:
    """What became of cases in a child, up to the one it died of."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for case in cases:
                signal.alarm(SECONDS)
                os.write(writing, b"y" if run(case) else b"n")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answers = [OK if letter == ord("y") else WRONG for letter in pipe.read()]
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        answers.append(ERROR)
    if os.WIFSIGNALED(status):
        answers.append(signal.Signals(os.WTERMSIG(status)).name)
    return answers


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    axes = product(options.threads, options.precision, options.sizes, options.strides, options.channels, options.batch)
    for threads, precision, size, stride, channels, batch in axes:
        for outputs in options.outputs or sorted({2 * channels, 2 * channels + 1}):
            if channels % options.groups == outputs % options.groups == 0:
                yield Case(
                    options.layer, channels, outputs, options.kernel, stride, options.padding, options.groups, batch,
                    size, options.layout, threads, precision,
                )  # fmt: skip


def _whole(text: str) -> list[int]:
    """ "1-3" -> [1, 2, 3]."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _show(isa: str | None, cases: Sequence[Case], found: Sequence[str]) -> None:
    """A table: for each number of channels that is not right everywhere, how many cases became what."""
    by: dict[tuple[Any, ...], Counter[str]] = {}
    for case, answer in zip(cases, found, strict=True):
        key = (case.precision, case.threads, case.stride, case.size, case.channels)
        by.setdefault(key, Counter())[answer] += 1
    bad = {key: count for key, count in by.items() if set(count) != {OK}}
    wrong = sum(answer != OK for answer in found)
    print(f"\noneDNN limited to {isa or 'nothing'}: {wrong} of {len(cases)} layers crash or are wrong", flush=True)
    if bad:
        print("precision threads stride size channels  what became of how many")
    for (precision, *numbers), count in bad.items():
        print(
            f"{precision:9}"
            + "{:8}{:7}{:5}{:9}".format(*numbers)
            + "  "
            + ", ".join(f"{k} {n}" for k, n in count.items())
        )


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--isa", nargs="+", default=[None], help="oneDNN's names of instruction sets; default: no limit"
    )
    parser.add_argument("--layer", choices=LAYERS, default="pytorch", help="whose layer (default: pytorch's Conv2d)")
    axes = {"channels": "1-64", "batch": "1-9", "outputs": None, "sizes": "16 32", "strides": "2", "threads": "1-2"}
    for name, default in axes.items():
        given = [_whole(word) for word in default.split()] if default else []
        parser.add_argument(
            f"--{name}",
            nargs="+",
            type=_whole,
            default=given,
            help=f"numbers, or 1-64 (default: {default or 'twice the channels, and one more'})",
        )
    for name in ("kernel", "padding", "groups"):
        parser.add_argument(
            f"--{name}", type=int, default=getattr(Case, name), help="of the convolutions (default: %(default)s)"
        )
    parser.add_argument("--precision", nargs="+", choices=("float32", "bf16"), default=["float32", "bf16"])
    parser.add_argument("--layout", choices=("channels_last", "contiguous"), default="channels_last")
    options = parser.parse_args(words)
    for name in axes:
        setattr(options, name, [number for numbers in getattr(options, name) for number in numbers])
    if not sys.platform.startswith("linux"):
        parser.error("the search forks processes with checked memory: it needs Linux")
    if not checks_memory():
        print(f"without {CHECKER}, which is not here: writes beyond a block are seen only if they crash")
    cases = list(_cases(options))
    bad = 0
    for isa in options.isa:
        found = crashes(cases, isa, progress=True)
        _show(isa, cases, found)
        bad += sum(answer != OK for answer in found)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(_serve() if sys.argv[1:] == ["--child"] else main())
