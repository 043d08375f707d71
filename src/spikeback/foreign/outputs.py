"""What a network returns, and which of its tensors are taken for the logits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikeback.foreign.state import first


def logits_of(output: Any) -> Tensor:
    """The logits among what a network returned.

    A list of (B, K), one a time step as SpikingJelly's non-spiking nodes return it, is stacked. Of several tensors it
    is the first, unless that holds only 0 and 1, spikes, and another of the very same shape does not: then it is that
    one, the membrane potential, as spikes of a readout may well be silent while the network learns. A network with one
    tensor is not looked into.
    """
    if _is_steps(output):
        return torch.stack(output)
    return _alike(output)[judged_of(output)] if isinstance(output, tuple | list) else first(output)


def judged_of(output: Any) -> int:
    """The place, in the tuple that a network returned, of the tensor that `logits_of` takes."""
    found = _alike(output)
    (place, spikes), *others = found.items()
    if others and _binary(spikes):
        for other, z in reversed(others):  # snnTorch's neurons put their membrane last
            if z.requires_grad >= spikes.requires_grad and not _binary(z):
                return other
    return place


def shapes_of(output: Any) -> list[tuple[int, ...]]:
    """The shape of every tensor that might be the logits."""
    return [tuple(z.shape) for z in _alike(output).values()]


def over_time(outputs: Sequence[Any]) -> Any:
    """What a network returned at each time step -> the tensors of the logits' shape over time, as a tuple."""
    steps = [[*_alike(output).values()] for output in outputs]
    return tuple(torch.stack(z) for z in zip(*steps, strict=False))


def part_of(output: Any, samples: Tensor, leading: Sequence[int]) -> Any:
    """Some samples of all that a network returned.

    Args:
        output: tensors in tuples, lists and dictionaries; one without samples is left whole.
        samples: which.
        leading: the axes of the logits before the classes, (T, B) or (B,).
    """
    if isinstance(output, Tensor):
        if tuple(output.shape[: len(leading)]) == tuple(leading):
            return output.index_select(len(leading) - 1, samples)
        return output.index_select(0, samples) if output.shape[:1] == tuple(leading[-1:]) else output
    if isinstance(output, dict):
        return {key: part_of(value, samples, leading) for key, value in output.items()}
    if not isinstance(output, tuple | list):
        return output
    parts = [part_of(value, samples, leading) for value in output]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def _is_steps(output: Any) -> bool:
    return type(output) is list and len(output) > 1 and all(isinstance(z, Tensor) and z.ndim == 2 for z in output)


def _alike(output: Any) -> dict[int, Tensor]:
    """The first tensor of an output, and those beside it of the same shape, by their place."""
    head = first(output)
    while isinstance(output, tuple | list) and isinstance(output[0], tuple | list):
        output = output[0]
    beside = output if isinstance(output, tuple | list) else [output]
    return {i: z for i, z in enumerate(beside) if isinstance(z, Tensor) and z.shape == head.shape}


def _binary(z: Tensor) -> bool:
    return bool(((z == 0) | (z == 1)).all())
