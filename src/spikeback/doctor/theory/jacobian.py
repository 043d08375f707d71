"""A spiking layer backwards, exact in time: what the gradient's covariance over time becomes on its way through."""

import torch
from torch import Tensor

from spikeback.doctor.adapters.neurons import Neuron

NEURONS = 20_000  # a mean over so many has an error below one percent
ENTRIES = 20_000_000  # of all Jacobians together: many time steps are averaged over fewer neurons


def jacobians(u: Tensor, s: Tensor, neuron: Neuron) -> Tensor:
    """J[t, i] = ds_t / dc_i of every neuron, as back-propagation computes it: (T, ...) -> (..., T, T).

    With u_{t+1} = leak * post(u_t) + scale * c_{t+1} and d_t = g'(u_t),

        J[t, i] = d_t * scale * prod_{i <= k < t} leak * dpost_k/du_k   for i <= t, else 0,

    where dpost/du is 1 - s - u d (hard reset), 1 - V_th d (soft) or 1 (none), without the term in d where the reset is
    detached.

    Args:
        u: membranes just before firing, (T, ...).
        s: the spikes they gave, (T, ...).
        neuron: a layer with a known `leak`.
    """
    assert neuron.leak is not None
    d = neuron.derivative(u)
    through = torch.zeros_like(d) if neuron.detach_reset else d
    passed = {"hard": 1 - s - u * through, "soft": 1 - neuron.threshold * through, "none": torch.ones_like(d)}
    carry = neuron.leak * passed[neuron.reset]
    rows, row = [], torch.zeros_like(d)  # row: du_t / dc_i, (T: i, ...)
    for t in range(len(u)):
        row = row.clone() if t == 0 else row * carry[t - 1]
        row[t] = neuron.scale
        rows.append(d[t] * row)
    return torch.stack(rows).movedim((0, 1), (-2, -1))


def time_map(u: Tensor, s: Tensor, neuron: Neuron, most: int = NEURONS) -> Tensor:
    """M[i, j, t, s] = E[J[t, i] J[s, j]] over the neurons, (T, ...) -> (T, T, T, T).

    If the gradient dL/ds of a neuron does not depend on its membrane, a covariance K over time of dL/ds becomes
    K'[i, j] = sum_ts M[i, j, t, s] K[t, s] of dL/dc. At most so many neurons count, at a fixed stride.
    """
    steps = len(u)
    u, s = u.flatten(1), s.flatten(1)
    count = max(1, min(most, ENTRIES // steps**2))
    stride = -(-u.shape[1] // count)
    J = jacobians(u[:, ::stride], s[:, ::stride], neuron).flatten(1)  # (N, T*T)
    return (J.T @ J / len(J)).unflatten(0, (steps, steps)).unflatten(2, (steps, steps)).permute(1, 3, 0, 2)


def back_in_time(K: Tensor, u: Tensor, s: Tensor, neuron: Neuron) -> Tensor:
    """`time_map` applied channel by channel: K (C, T, T) of dL/ds, u and s (T, N, C) -> (C, T, T) of dL/dc."""
    J = jacobians(u, s, neuron)  # (N, C, T, T)
    return (J.mT @ K @ J).mean(0)
