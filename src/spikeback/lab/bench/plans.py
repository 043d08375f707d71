"""Which arms each bench has, which of them are compared, and what is expected of the comparison."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from spikeback.lab.bench.neurons import TENSORS, copy_size
from spikeback.lab.bench.numbers import Ratio, Slope
from spikeback.lab.bench.race import Arm

PEERS = ("spikingjelly", "snntorch", "norse")
SURROGATES = ("Triangle(gamma=1.0)", "Rectangle(a=1.0)", "Tanh(k=3.0)", "Sigmoid(alpha=4.0)", "ATan(alpha=2.0)")
NETS = "spikeback.lab.bench.nets"
NEURONS = "spikeback.lab.bench.neurons"
CONVOLUTION = "spikeback.lab.bench.convolutions:both_ways"
DEPTHS = (18, 34)  # ResNets whose branches are measured
# a miniature of any of these networks; PyTorch's convolutions of fewer channels can crash (docs/onednn.md)
SMALL = {"width": 16, "time_steps": 1, "batch": 1, "size": 16}
PLAIN, PACKED = "spikeback.nn:plain", "spikeback:packed_spikes"


@dataclass
class Plan:
    """The arms of a bench, what is compared, and what must be said about it.

    `axis` is what the arms' `at` counts, where they are points on lines. `apart` runs the arms of each `at` in a race
    of their own: a waiting arm holds half a gigabyte, and all at once need not fit.
    """

    title: str
    arms: list[Arm]
    comparisons: list[Ratio | Slope]
    notes: list[str] = field(default_factory=list)
    axis: str | None = None
    apart: bool = False

    def on_gpu(self) -> "Plan":
        """Without what is expected of ratios, which is said of processors."""
        found = [replace(c, most=None, least=None) if isinstance(c, Ratio) else c for c in self.comparisons]
        return replace(self, comparisons=found)

    def races(self) -> list[list[Arm]]:
        """The arms that take turns with each other."""
        if not self.apart:
            return [self.arms]
        return [[arm for arm in self.arms if arm.at == at] for at in dict.fromkeys(arm.at for arm in self.arms)]


@dataclass(frozen=True)
class Machine:
    """What the arms can use here: `bf16` if the device computes in it, the `peers`' interpreter, the `device`."""

    bf16: bool
    peers: Path | None
    device: str = "cpu"

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("float32", "bf16") if self.bf16 else ("float32",)

    def notes(self) -> list[str]:
        """What was left out."""
        none = "no bf16 arms: this processor does not compute in bfloat16"
        alone = "no peers: make their environment with `make benchmarks/.venv/ready`, or name one with --peers PYTHON"
        return ([] if self.bf16 else [none]) + ([] if self.peers else [alone])

    def peer_arms(self, act: str, options: dict[str, Any], peers: Sequence[str] = PEERS, **place: Any) -> list[Arm]:
        """Each peer as its users run it, and in its best setting in each precision."""
        arms = []
        for peer in peers if self.peers else ():
            net = {"net": f"peers.{peer}_net:Net"} | options
            stock = net | {"layout": "contiguous"}
            arms.append(net_arm(f"{peer} stock", act, stock, allocator="stock", python=self.peers, **place))
            for p in self.precisions:
                best = net | {"layout": "faster", "precision": p}
                arms.append(net_arm(f"{peer} best {p}", act, best, python=self.peers, **place))
                if self.device == "cuda" and act == "train" and peer == PEERS[0]:  # it supports torch.compile
                    arms.append(compiled(arms[-1], f"{peer} compiled {p}"))
        return arms


def compiled(arm: Arm, line: str) -> Arm:
    """The arm through torch.compile, its kernels in CUDA graphs, channels last."""
    options = arm.options | {"layout": "channels_last", "compiled": "reduce-overhead"}
    return replace(arm, name=line + arm.name.removeprefix(arm.line or ""), line=line, options=options)


def net_arm(line: str, act: str, options: dict[str, Any], where: str = "", **more: Any) -> Arm:
    """An arm of `spikeback.lab.bench.steps`; `where` on its line goes into the name."""
    return Arm(line + where, f"spikeback.lab.bench.steps:{act}", options, SMALL, line=line, **more)


def step(machine: Machine, width: int, time_steps: int, batch: int, size: int, classes: int) -> Plan:
    """A full training step: ours, its floor, its twins, and the peers."""
    shape = {"width": width, "time_steps": time_steps, "batch": batch, "size": size, "classes": classes}
    arms, comparisons = [], []
    for p in machine.precisions:
        options = {"precision": p} | shape
        ours, on_cpu = options | {"net": f"{NETS}:ours"}, machine.device == "cpu"
        arms += [
            net_arm(f"ours {p}", "train", ours),
            net_arm(f"floor {p}", "floor", options),
            *([net_arm(f"direct floor {p}", "floor", options | {"within": PLAIN})] if on_cpu else []),
            net_arm(f"ann {p}", "train", options | {"net": f"{NETS}:ann", "batch": time_steps * batch}),
            net_arm(f"plain {p}", "train", ours | {"within": PLAIN}),
            net_arm(f"shortcut {p}", "train", options | {"net": f"{NETS}:shortcut"}),
        ]
        if not on_cpu:
            arms.append(compiled(net_arm(f"ours {p}", "train", ours), f"ours, compiled {p}"))
            comparisons.append(Ratio(f"ours / ours, compiled, {p}", f"ours {p}", f"ours, compiled {p}"))
            if machine.peers:
                title = f"{PEERS[0]} / ours, both compiled, {p}"
                comparisons.append(Ratio(title, f"{PEERS[0]} compiled {p}", f"ours, compiled {p}"))
        comparisons += [
            Ratio(f"ours / floor, {p}", f"ours {p}", f"floor {p}", most=1.25),
            *([Ratio(f"ours / direct floor, {p}", f"ours {p}", f"direct floor {p}", most=1.25)] if on_cpu else []),
            Ratio(f"ours / ann, {p}", f"ours {p}", f"ann {p}", most=1.0),
            Ratio(f"with three branches / without, {p}", f"shortcut {p}", f"ours {p}", most=1.03),
            Ratio(f"plain composition / ours, {p}", f"plain {p}", f"ours {p}"),
        ]
    arms += machine.peer_arms("train", shape)
    comparisons += [r for peer in PEERS for r in _against(machine, peer)] if machine.peers else []
    title = f"Training step, spiking ResNet-18, {_shape(shape)}"
    return Plan(title, arms, comparisons, machine.notes())


def _against(machine: Machine, peer: str) -> list[Ratio]:
    best = machine.precisions[-1]  # what `spikeback fit` takes here
    return [
        Ratio(f"{peer} / ours, as users run them", f"{peer} stock", f"ours {best}", least=4.0),
        Ratio(f"{peer} / ours, best against best", f"{peer} best {best}", f"ours {best}", least=1.8),
        Ratio(f"{peer} / ours, float32", f"{peer} best float32", "ours float32", least=1.4),
    ]


def lif(machine: Machine, time_steps: int, batch: int, channels: int, size: int) -> Plan:
    """LIF alone, forward and backward, against the reference, SpikingJelly's operator and the copying of memory."""
    shape = [time_steps, batch, channels, size, size]

    def arm(name: str, neuron: str, arguments: dict[str, str], dtype: str = "float32", python: Path | None = None):
        options = {"neuron": neuron, "arguments": arguments, "shape": shape, "dtype": dtype}
        return Arm(name, f"{NEURONS}:both_ways", options, python=python)

    dtypes = {"float32": "float32", "bf16": "bfloat16"}
    arms, comparisons = [], []
    for p in machine.precisions:
        for surrogate in SURROGATES:
            name = f"ours {_kind(surrogate)} {p}"
            arms.append(arm(name, f"{NEURONS}:ours", {"surrogate": surrogate}, dtypes[p]))
            size = math.prod(shape) * getattr(torch, dtypes[p]).itemsize
            comparisons.append(_bandwidth(name, size, copy_size(machine.device)))
    triangle = {"surrogate": SURROGATES[0]}
    arms.append(arm("reference Triangle", f"{NEURONS}:ours", triangle | {"backend": "reference"}))
    arms.append(arm("compiled Triangle", f"{NEURONS}:compiled", triangle))
    for slow in ("reference", "compiled"):
        comparisons.append(Ratio(f"{slow} / ours, Triangle", f"{slow} Triangle", "ours Triangle float32"))
    if machine.peers and machine.device == "cpu":
        arms.append(arm("numba Triangle", "peers.numba_lif:neuron_alone", {}, python=machine.peers))
        comparisons.append(Ratio("numba / ours, Triangle", "numba Triangle", "ours Triangle float32"))
    for theirs, kind in (("PiecewiseQuadratic", "Triangle"), ("Sigmoid", "Sigmoid")) if machine.peers else ():
        name, neuron = f"spikingjelly {theirs}", "peers.spikingjelly_net:neuron_alone"
        arms.append(arm(name, neuron, {"surrogate_name": theirs}, python=machine.peers))
        comparisons.append(Ratio(f"{name} / ours {kind}, float32", name, f"ours {kind} float32", least=8.0))
    arms.append(Arm("copy", f"{NEURONS}:copy", {"size": copy_size(machine.device)}))
    return Plan(f"LIF forward and backward, {tuple(shape)}", arms, comparisons, machine.notes())


def _bandwidth(name: str, tensor: int, copied: int) -> Ratio:
    """Bytes that must move a second over those of the copy, which reads and writes; `tensor` and `copied` in bytes."""
    least = 0.7 if "Triangle" in name or "Rectangle" in name else None
    scale = TENSORS * tensor / (2 * copied)
    return Ratio(f"{name}: share of the copy's bandwidth", "copy", name, scale=scale, least=least)


def convolution(machine: Machine, width: int, time_steps: int, batch: int, size: int) -> Plan:
    """The 3x3 convolutions of the four stages of ResNet-18, forward and backward, ours against PyTorch's."""
    arms, comparisons = [], []
    for stage in range(4):
        channels, side = width << stage, size >> stage
        place = f", {channels} channels, {side} x {side}"
        options = {"images": time_steps * batch, "channels": channels, "size": side}
        for name, direct in (("ours", False), ("direct", True)):
            more = {"line": name, "at": channels}
            arms.append(Arm(name + place, CONVOLUTION, options | {"direct": direct}, **more))
        comparisons.append(Ratio(f"direct / ours{place}", f"direct{place}", f"ours{place}"))
    title = f"3x3 convolutions of spikes, forward and backward, {time_steps * batch} images, float32"
    notes = replace(machine, peers=Path()).notes()  # peers have no part in it
    return Plan(title, arms, comparisons, notes, apart=True)


def memory(machine: Machine, width: int, time_steps: list[int], batch: int, size: int, classes: int) -> Plan:
    """Peak memory and time of a training step against T: ours, with packed spikes, SpikingJelly."""
    shape = {"width": width, "batch": batch, "size": size, "classes": classes}
    arms, comparisons = [], []
    for t in time_steps:
        place = {"where": f", T = {t}", "at": t}
        for p in machine.precisions:
            ours = {"net": f"{NETS}:ours", "precision": p, "time_steps": t} | shape
            arms.append(net_arm(f"ours {p}", "train", ours, **place))
            arms.append(net_arm(f"packed {p}", "train", ours | {"within": PACKED}, **place))
        arms += machine.peer_arms("train", shape | {"time_steps": t}, PEERS[:1], **place)
        for p, at in ((p, place["where"]) for p in machine.precisions):
            for name, most in (("ours", 0.5), ("packed", 0.35)) if machine.peers else ():
                for rival in (f"spikingjelly {how}{at}" for how in ("stock", f"best {p}")):
                    title, of = f"memory, {name} {p} / {rival}", f"{name} {p}{at}"
                    comparisons.append(Ratio(title, of, rival, "peak_bytes", most=most))
            comparisons.append(Ratio(f"time, packed / ours, {p}{at}", f"packed {p}{at}", f"ours {p}{at}"))
    return Plan(f"Memory of a training step, {_shape(shape)}", arms, comparisons, machine.notes(), "T", apart=True)


def inference(machine: Machine, width: int, time_steps: int, batch: list[int], size: int, classes: int) -> Plan:
    """A forward in eval mode: latency at batch 1, throughput at batch 32."""
    arms, comparisons = [], []
    best = machine.precisions[-1]
    kinds = {"stripped": {}, "folded": {"fold": True}, "plain": {"within": PLAIN}}
    for b in batch:
        shape = {"width": width, "time_steps": time_steps, "batch": b, "size": size, "classes": classes}
        place = {"where": (at := f", batch {b}"), "at": b}
        for p in machine.precisions:
            net = {"net": f"{NETS}:stripped", "precision": p} | shape
            arms += [net_arm(f"{kind} {p}", "infer", net | more, **place) for kind, more in kinds.items()]
        arms += machine.peer_arms("infer", shape, **place)
        others = ["plain composition", *(f"{peer} {how}" for peer in PEERS for how in ("stock", f"best {best}"))]
        for other in others if machine.peers else others[:1]:
            arm = f"plain {best}" if other == others[0] else other
            comparisons.append(Ratio(f"{other} / stripped {best}{at}", arm + at, f"stripped {best}{at}"))
        comparisons.append(Ratio(f"folded / stripped {best}{at}", f"folded {best}{at}", f"stripped {best}{at}"))
    title = f"Inference, spiking ResNet-18, width {width}, T = {time_steps}, images {size} x {size}"
    return Plan(title, arms, comparisons, machine.notes(), apart=True)


def scaling(machine: Machine, width: int, time_steps: list[int], batch: list[int], size: int, classes: int) -> Plan:
    """A training step of ours against T, and against the batch; the other one stays at the middle of its list."""
    fixed = {"time_steps": time_steps[len(time_steps) // 2], "batch": batch[len(batch) // 2]}
    p = machine.precisions[-1]
    common = {"net": f"{NETS}:ours", "width": width, "size": size, "classes": classes, "precision": p} | fixed
    arms, comparisons = [], []
    for axis, key, values in (("T", "time_steps", time_steps), ("batch", "batch", batch)):
        points = [net_arm(axis, "train", common | {key: v}, f" = {v}", at=v) for v in values]
        arms += points
        names = tuple(arm.name for arm in points)
        comparisons += [Slope(f"exponent over {axis}", names, tuple(values))] if len(set(values)) > 1 else []
    if {4, 16} <= set(time_steps):
        comparisons.append(Ratio("T = 16 / T = 4", "T = 16", "T = 4", most=4.2))
    note = f"over T at batch {fixed['batch']}, over the batch at T = {fixed['time_steps']}, {p}"
    notes = [note, *replace(machine, peers=Path()).notes()]  # peers have no part in it
    return Plan(f"Scaling of a training step, width {width}, {size} x {size}", arms, comparisons, notes, "T or batch")


def branches(machine: Machine, width: int, time_steps: int, batch: int, size: int, classes: int) -> Plan:
    """What branches cost: a training step of two depths without them, with one a stage, with one a residual block."""
    shape = {"width": width, "time_steps": time_steps, "batch": batch, "size": size, "classes": classes}
    arms, comparisons = [], []
    for depth in DEPTHS:
        place, name = {"where": f", ResNet-{depth}", "at": depth}, {"name": f"spiking_resnet{depth}"}
        for p in machine.precisions:
            plain = {"net": f"{NETS}:ours", "precision": p, "arguments": name} | shape
            arms.append(net_arm(f"no branches {p}", "train", plain, **place))
            for taps, most in (("stage", 1.03), ("block", None)):
                more = {"net": f"{NETS}:shortcut", "arguments": name | {"taps": taps}}
                arms.append(net_arm(f"by {taps} {p}", "train", plain | more, **place))
                of, to = f"by {taps} {p}{place['where']}", f"no branches {p}{place['where']}"
                comparisons.append(Ratio(f"time, {of} / none", of, to, most=most))
                comparisons.append(Ratio(f"memory, {of} / none", of, to, "peak_bytes"))
    notes = replace(machine, peers=Path()).notes()  # peers have no part in it
    return Plan(f"Training step with branches, {_shape(shape)}, K = {classes}", arms, comparisons, notes, apart=True)


def _kind(surrogate: str) -> str:
    return surrogate.partition("(")[0]


def _shape(shape: dict[str, int]) -> str:
    words = {"width": "width {}", "time_steps": "T = {}", "batch": "batch {}", "size": "images {0} x {0}"}
    return ", ".join(text.format(shape[key]) for key, text in words.items() if key in shape)
