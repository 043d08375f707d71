"""What one gradient does not tell: is the forward pass faithful, is the gradient a signal, does a step go down?"""

import math
from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import Tensor

from spikeback.doctor.measure.case import Case
from spikeback.doctor.measure.draws import Draws, SharedDraws
from spikeback.errors import UsageError
from spikeback.foreign import Layout, first
from spikeback.foreign.outputs import part_of
from spikeback.foreign.randomness import same_draws, unseen
from spikeback.foreign.undisturbed import listening
from spikeback.shortcut.adapt import Unrolled

STEP = 1e-3  # length of the descent test's step, relative to the block's weights
DIRECTIONS = 64  # samples at most whose directions are counted

Figures = dict[str, dict[str, float | None]]  # by block


def fidelity(case: Case, noise: float) -> Figures:
    """By block, how alike its spikes are for x and for x + `noise` * std(x) * normal noise.

    What the network draws at random (dropout, a Poisson encoder) is the same for both.

    Returns:
        `fidelity`: the correlation of the spikes between the two; `unrelated`: between each sample and the next;
        `participation`: how many directions the samples' firing rates span (`participation`).
    """
    if not case.x.is_floating_point():
        return {name: dict.fromkeys(("fidelity", "unrelated", "participation")) for name in case.blocks}
    noisy = case.x + noise * case.x.std() * torch.randn_like(case.x)
    with torch.no_grad():
        if not case.layouts.doubles:
            return _compare(case, [case.x, noisy])
        both = [case.beside(noisy)]  # in one pass: batch norm treats both halves the same
        before = unseen(case.net)
        with Draws() as draws:
            figures = _compare(case, both)
        if unseen(case.net) != before:  # halves of a batch cannot share these draws
            return _compare(case, [case.x, noisy])
        if not draws.any:
            return figures
        with Draws() as single:
            logits = case.logits()
        with SharedDraws(single.shapes, case.batch, *_merged(case, logits)):
            return _compare(case, both)


def _merged(case: Case, logits: Tensor) -> tuple[int, bool]:
    """How many time steps a network merges with the samples that it draws for, and whether the samples come first."""
    steps = case.x.shape[0] if case.layouts.entry.axes == "T B" else len(logits) if logits.ndim == 3 else 1
    steps = 1 if any(isinstance(module, Unrolled) for module in case.net.modules()) else steps
    return steps, any(layout.axes in ("BT", "B T") for layout in case.layouts.outputs.values())


def _compare(case: Case, inputs: list[Tensor]) -> Figures:
    """How alike two batches are by block, in one pass side by side or in a pass for each with the same draws."""
    found = {name: Likeness(case.batch, case.layout(name)) for name in case.blocks}
    calls: dict[str, list[list[Tensor]]] = {name: [] for name in case.blocks}
    for x in inputs:
        with ExitStack() as hooks:
            if len(inputs) > 1:
                hooks.enter_context(same_draws(case.net))
            for name, likeness in found.items():
                calls[name].append([])
                heard = lambda _, out, of=calls[name][-1]: of.append(first(out))
                module = case.net.get_submodule(name)
                hooks.enter_context(listening(module, likeness.add if len(inputs) == 1 else heard))
            case.logits(x)
    for name, likeness in found.items():
        for clean, noisy in zip(*calls[name], strict=True) if len(inputs) > 1 else ():
            likeness.compare(*(likeness.layout.time_first(z, case.batch).float() for z in (clean, noisy)))
    return {name: likeness.figures() for name, likeness in found.items()}


class Likeness:
    """Compares the halves of a batch in what a module puts out, call by call; nothing but sums and rates is kept."""

    def __init__(self, batch: int, layout: Layout) -> None:
        self.batch, self.layout, self.related, self.unrelated = batch, layout, Moments(), Moments()
        self.rates: Tensor | float = 0.0

    def add(self, _input: object, output: object) -> None:
        z = self.layout.time_first(first(output), 2 * self.batch).float()
        self.compare(*z.split(self.batch, 1))

    def compare(self, clean: Tensor, noisy: Tensor) -> None:
        """Count in what one call put out for each, (T, B, ...)."""
        self.related.add(clean, noisy)
        self.unrelated.add(clean, clean.roll(1, 1))
        self.rates = self.rates + clean[:, :DIRECTIONS].sum(0).flatten(1)

    def figures(self) -> dict[str, float | None]:
        return {
            "fidelity": self.related.correlation(),
            "unrelated": self.unrelated.correlation() if self.batch > 1 else None,
            "participation": participation(torch.as_tensor(self.rates)),
        }


class Moments:
    """Running sums of two tensors, and their correlation."""

    def __init__(self) -> None:
        self.count, self.sums = 0, torch.zeros(5, dtype=torch.float64)

    def add(self, a: Tensor, b: Tensor) -> None:
        a, b = a.flatten(), b.flatten()
        self.count += len(a)
        self.sums += torch.stack([a.sum(), b.sum(), a @ a, b @ b, a @ b]).cpu()

    def correlation(self) -> float | None:
        """None where one of them is constant."""
        a, b, aa, bb, ab = (self.sums / max(self.count, 1)).tolist()
        spread = (aa - a * a) * (bb - b * b)
        return (ab - a * b) / math.sqrt(spread) if spread > 1e-14 else None


def participation(rates: Tensor) -> float | None:
    """(sum l)^2 / sum l^2 over the eigenvalues l of the covariance of samples (B, D), at most B - 1; None for 1 sample.

    It is 1 if all samples lie on a line, and the number of directions if these are used alike.
    """
    centred = rates.double() - rates.double().mean(0)
    gram = centred @ centred.T  # it has the same eigenvalues, and only B of them
    total = gram.trace().square().item()
    return total / gram.square().sum().item() if total > 0 else None


def coherence(case: Case, chunks: int) -> Figures:
    """By block, the share of its weights' gradient that is the same in every part of the batch, 1 to about 0.

    The batch is cut into K `chunks` with gradients g_k; batch norm sees the whole batch every time. With
    s = ||mean g||^2 / mean ||g||^2 the share is (K s - 1) / (K - 1), unbiased, so slightly negative for pure noise.

    Raises:
        UsageError: fewer than 8 chunks, or more than samples.
    """
    if not 8 <= chunks <= case.batch:
        raise UsageError(
            f"chunks must lie between 8 and the number of samples, {case.batch}, not {chunks}; or leave 'coherence' "
            "out of passes"
        )
    weights = weights_by_block(case)
    parameters = [p for ps in weights.values() for p in ps.values()]
    if not parameters:
        return {name: {"coherence": None} for name in weights}
    sums, squares = [torch.zeros_like(p) for p in parameters], torch.zeros(len(parameters), dtype=torch.float64)
    samples = torch.arange(case.batch - case.batch % chunks, device=case.y.device).chunk(chunks)  # of the same size
    with torch.enable_grad():
        output = case.output()
        logits = case.logits_in(output)
        case.check(logits)
        for part in samples:
            loss = case.judge(part_of(output, part, logits.shape[:-1]), case.y[part])
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for i, grad in enumerate(grads):
                if grad is not None:
                    sums[i] += grad
                    squares[i] += grad.double().square().sum().item()
    means = [(total / chunks).double().square().sum().item() for total in sums]
    found, i = {}, 0
    for name, ps in weights.items():
        mean, mean_square = sum(means[i : i + len(ps)]), squares[i : i + len(ps)].sum().item() / chunks
        found[name] = {"coherence": (chunks * mean / mean_square - 1) / (chunks - 1) if mean_square > 0 else None}
        i += len(ps)
    return found


def descent(case: Case, gradients: Mapping[str, Tensor]) -> Figures:
    """By block, the measured change of the loss over the predicted one, after a small step of its weights.

    The step goes against the block's gradient, `STEP` times as long as its weights; predicted is - step * ||gradient||,
    which is right (ratio 1) where the loss is smooth on that scale. The weights are put back bit for bit.
    """
    before, found = _loss(case), dict[str, dict[str, float | None]]()
    for name, ps in weights_by_block(case).items():
        known = {key: p for key, p in ps.items() if key in gradients}
        size = math.sqrt(sum(p.detach().double().square().sum().item() for p in known.values()))
        slope = math.sqrt(sum(gradients[key].double().square().sum().item() for key in known))
        length = STEP * size
        if length * slope > 0 and math.isfinite(slope):
            kept = {key: p.detach().clone() for key, p in known.items()}
            try:  # through .data: a graph that the owner may hold does not notice
                for key, p in known.items():
                    p.data.sub_(gradients[key], alpha=length / slope)
                found[name] = {"descent": (_loss(case) - before) / (-length * slope)}
            finally:
                for key, p in known.items():
                    p.data.copy_(kept[key])
    return {name: found.get(name, {"descent": None}) for name in case.blocks}


def _loss(case: Case) -> float:
    """The loss, always with the same random numbers."""
    with same_draws(case.net), torch.no_grad():
        return case.judge(case.output(), case.y).item()


def weights_by_block(case: Case) -> dict[str, dict[str, Tensor]]:
    """The weights (parameters of two dimensions and more) inside each block, by dotted name."""
    return {
        block: {
            f"{block}.{name}": p
            for name, p in case.net.get_submodule(block).named_parameters()
            if p.requires_grad and p.ndim > 1
        }
        for block in case.blocks
    }
