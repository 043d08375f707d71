"""How much of the gradient each block should pass on, by theory: the gain ||dL/d input|| / ||dL/d output||.

Mean field: the gradient at a neuron is taken to be independent of its membrane, and convolution weights of each other
(Poole et al., NeurIPS 2016; Schoenholz et al., "Deep Information Propagation", ICLR 2017), so powers multiply within a
branch and add up where branches meet (block dynamical isometry: Chen et al., "A Comprehensive and Modularized
Statistical Framework for Gradient Norm Equality in Deep Neural Networks", IEEE TPAMI 2020; for spiking networks with
tdBN Zheng et al., AAAI 2021). Time is kept: not a power but a covariance K over the time steps, for each channel, is
carried from the last block to the first.

- Neurons (`jacobian`): K' = E[J^T K J] over measured membranes, exact in time, reset included.
- Norm: K'_c = (gamma_c / sigma_c)^2 K_c, sigma the measured deviation, of each step where a norm is called for each.
  The gradient through its mean and variance is left out.
- Convolution: K'_i = sum_o A_oi K_o, A_oi the squared weights, each counted for the share of outputs whose tap lies
  inside the image: among 2x2 pixels a 3x3 kernel has 4 of its 9 taps. Weights of zero mean that do not know the
  gradient leave no trace of its correlations in space. A stride needs nothing: powers are sums over neurons.
- Average pooling over separate windows of n: exactly 1 / n, whatever the correlations. Max pooling: 1.

At the top the gradient is alike at all time steps, because the loss reads the mean over time, and in all channels.

How near it comes: within 10 percent for every block of untrained ResNet-18 and 34 (three surrogates, thresholds 0.5 and
1, T = 2 and 4) and of their ReLU twins. Mostly it is 3 percent below, because gradients are weaker at the borders and
less of them is lost there than theory has it. Where neurons fire rarely, gradients are larger at active places, and
theory falls further below: by up to 18 percent in SpikingJelly's ResNet-18 of LIF nodes (4 percent of them fire), up to
36 where its norms see one step at a time. In training the gradient comes to know the weights, and theory falls short in
the last block first: by 35 to 45 percent there after 150 steps of ResNet-18. Branches of a `ShortcutNet` are not in it.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import Neuron, neuron_of, spiking_layers
from spikeback.doctor.measure.case import Case
from spikeback.doctor.theory.backward import AVERAGE_POOLS, BATCH_NORMS, CONVOLUTIONS, Record, Seen, UnknownModule, Way
from spikeback.doctor.theory.jacobian import ENTRIES, NEURONS
from spikeback.foreign import RESETS, Layout, Layouts, first, loose_tensors, reset_state
from spikeback.foreign.undisturbed import undisturbed
from spikeback.nn.fuse import by_batch

RELU = Neuron(0.0, 0.0, 1.0, "none", False, lambda current, spikes: current.float(), lambda u: (u > 0).float())


def predict(net: nn.Module, record: Record, blocks: Sequence[str]) -> dict[str, float | None]:
    """The gain of each block, sqrt(tr K_input / tr K_output).

    Args:
        net: the network that was observed; weights, gammas and derivatives are those of now.
        record: of `observe`.
        blocks: modules by name, in network order. Known are our residual blocks and layers of a VGG, residual blocks
            with SpikingJelly's names (conv1, bn1, sn1, conv2, bn2, sn2, downsample), and `nn.Sequential` of such, of
            convolutions, linear layers, batch norms, poolings and known neurons. Any other has None, and K begins
            anew in the block before it, as it does where channels do not match or a block passes nothing on.
    """
    way = Way(net, record)
    gains: dict[str, float | None] = {}
    K: Tensor | None = None
    for name in reversed(blocks):
        block = net.get_submodule(name)
        try:
            top = way.top(block)
            above = top if K is None or K.shape != top.shape or not _trace(K) > 0 else K / _trace(K)
            K = way.back(block, above)
            gains[name] = math.sqrt(max(_trace(K) / _trace(above), 0.0))
        except UnknownModule:
            gains[name], K = None, None
    return {name: gains[name] for name in blocks}


def observe(
    net: nn.Module, x: Tensor, neurons: Mapping[str, Neuron | None] | None = None, layouts: Layouts | None = None
) -> Record:
    """One forward pass of `net` on `x` in training mode, without gradients; the net is as before afterwards.

    Args:
        net: any network; its hidden neuron state is reset first.
        x: a batch of its inputs. Norms see all of it; of each spiking layer at most `NEURONS` neurons are kept.
        neurons: spiking layers by name; None: those that `neuron_of` knows. For a `relu_twin`: `RELU` for each.
        layouts: where the layers' outputs have their time and samples; None: time first, as in our networks.
    """
    known = {name: neuron_of(m) for name, m in spiking_layers(net).items()} if neurons is None else dict(neurons)
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in known}
    variances: dict[str, list[Tensor]] = {}
    record = Record()
    with undisturbed(net), torch.no_grad(), ExitStack() as hooks:
        net.train()
        for name, module in net.named_modules():
            hook: Any = None
            if name in calls:
                layout = layouts.outputs.get(name, Layout()) if layouts else Layout()
                hook = partial(_keep_neurons, calls[name], layout, layouts.batch if layouts else 0)
            elif isinstance(module, BATCH_NORMS):
                hook = partial(_keep_variance, variances.setdefault(name, []))
            elif isinstance(module, CONVOLUTIONS + AVERAGE_POOLS):
                hook = partial(_keep_size, record.sizes, name)
            if hook is not None:
                hooks.callback(module.register_forward_hook(hook).remove)
        reset_state(net)
        net(x)
    for name, neuron in known.items():
        if neuron is not None and neuron.leak is not None and _consistent(calls[name]):
            record.layers[name] = _seen(calls[name], neuron)
    record.deviations.update({name: torch.stack(v).sqrt() for name, v in variances.items() if v})
    return record


def relu_twin(net: nn.Module, layers: Iterable[str]) -> nn.Module:
    """A copy of the network with a ReLU for every spiking layer, under the same names."""
    # Hidden state may hang in an autograd graph, which deepcopy refuses.
    memo: dict[int, Any] = {id(t): t.detach().clone() for m in net.modules() for t in loose_tensors(m)}
    memo |= {id(net.get_submodule(name)): Rectifier() for name in layers}
    return copy.deepcopy(net, memo)


class Stateless(AttributeError):
    """A network asked the ReLU in a neuron's place for what only a neuron has."""


class Rectifier(nn.ReLU):
    """ReLU in a neuron's place: told to forget, it has nothing to."""

    def __getattr__(self, name: str) -> Any:
        if name in RESETS:
            return lambda *args, **kwargs: None
        raise Stateless(f"the ReLU twin has no {name!r}")


def plain_layers(case: Case) -> bool:
    """Whether every spiking layer takes one tensor and puts out one of its shape, so that ReLU can stand in for it.

    Neurons that hand their state around (norse's, snnTorch's) do not, nor do those with weights of their own.
    """
    plain: list[bool] = []

    def heard(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        alone = len(args) == 1 and not kwargs and isinstance(output, Tensor)
        plain.append(alone and args[0].shape == output.shape)

    with undisturbed(case.net), torch.no_grad(), ExitStack() as hooks:
        for layer in case.layers.values():
            hooks.callback(layer.register_forward_hook(heard, with_kwargs=True).remove)
        case.logits()
    return all(plain)


def _trace(K: Tensor) -> float:
    return K.double().diagonal(dim1=-2, dim2=-1).sum().item()


def _keep_neurons(
    calls: list[tuple[Tensor, Tensor]], layout: Layout, batch: int, _module: nn.Module, args: Any, output: Any
) -> None:
    current, spikes = (layout.time_first(first(z), batch) for z in (args[0], output))
    calls.append((_sample(current), _sample(spikes)))


def _sample(z: Tensor) -> Tensor:
    """Some neurons of every channel at a fixed stride: (T, B, C, H, W) -> (T, N, C, 1, 1), (T, B, C) -> (T, N, C)."""
    flat = z.movedim(2, -1).flatten(1, -2)  # (T, B*H*W, C)
    count = max(1, min(NEURONS, ENTRIES // len(z) ** 2) // flat.shape[2])
    stride = max(1, flat.shape[1] // count)
    while math.gcd(stride, math.prod(z.shape[3:])) > 1:  # or it would see the same columns of every image
        stride += 1
    return flat[:, ::stride].reshape(len(z), -1, *z.shape[2:3], *[1] * (z.ndim - 3))


def _consistent(calls: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether calls are one over all time steps, or one for each."""
    shapes = {current.shape for current, _ in calls}
    return len(calls) == 1 or (len(shapes) == 1 and next(iter(shapes))[0] == 1)


def _seen(calls: list[tuple[Tensor, Tensor]], neuron: Neuron) -> Seen:
    current, spikes = (torch.cat(z).float() for z in zip(*calls, strict=True))
    u = neuron.membrane(current, spikes)  # with H = W = 1, for parameters by channel
    return Seen(current.flatten(2), spikes.flatten(2), u.flatten(2), neuron)


def _keep_variance(variances: list[Tensor], norm: Any, args: Any, _output: Any) -> None:
    if by_batch(norm):
        z = first(args[0]).float()
        space = {nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
        known = next((n for kind, n in space.items() if isinstance(norm, kind)), None)
        over_time = getattr(norm, "step_mode", "s") == "m"  # SpikingJelly's for all time steps, (T, B, C, ...)
        axis = z.ndim - 1 - known if known is not None else 2 if over_time else 1
        variance = z.movedim(axis, 0).flatten(1).var(1, correction=0)
    else:
        variance = norm.running_var.float()
    variances.append(variance + norm.eps)


def _keep_size(sizes: dict[str, tuple[int, ...]], name: str, module: Any, args: Any, _output: Any) -> None:
    axes = zip(CONVOLUTIONS + AVERAGE_POOLS, (1, 2, 3, 1, 2, 3), strict=True)
    space = next(n for kind, n in axes if isinstance(module, kind))
    sizes[name] = tuple(first(args[0]).shape[-space:])
