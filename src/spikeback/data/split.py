"""Which images are set aside, and in which order a few are picked: fixed by the labels and a seed alone."""

import hashlib

import numpy as np
import torch
from torch import Tensor

HELD_OUT = 0.1  # of every class, where nothing is said


def hold_out(labels: Tensor, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Set a fraction of every class aside.

    Returns (train, held out): sorted, disjoint indices, int64, that together are all of `labels`, int64 (N,). Of every
    class round(fraction * its images) are held out, at least one where `fraction` > 0 and always one fewer than all.
    """
    rng = np.random.default_rng(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(max(round(fraction * len(members)), fraction > 0), len(members) - 1)
        held_out[members[torch.from_numpy(rng.permutation(len(members))[:count])]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


def split_hash(indices: Tensor) -> str:
    """sha256 (hex) of the indices as little-endian int64, in their order."""
    return hashlib.sha256(indices.numpy().astype("<i8").data).hexdigest()


def balanced_order(labels: Tensor) -> Tensor:
    """All indices, int64 (N,), dealt out in rounds: the first image of every class, then the second of each, ..."""
    rank = torch.empty_like(labels)
    for label in labels.unique():
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    return torch.from_numpy(np.lexsort((labels.numpy(), rank.numpy())))
