import hashlib
import struct

import pytest
import torch

from spikeback.data.split import balanced_order, hold_out, split_hash

LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100, generator=torch.Generator().manual_seed(3))]


def test_split_is_disjoint_complete_and_sorted() -> None:
    train, held_out = hold_out(LABELS, 0.2)
    assert torch.equal(torch.cat([train, held_out]).sort().values, torch.arange(100))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(held_out, held_out.sort().values)


def test_split_takes_the_same_share_of_every_class() -> None:
    _, held_out = hold_out(LABELS, 0.2)
    assert LABELS[held_out].bincount().tolist() == [12, 6, 2]


def test_split_is_decided_by_the_seed() -> None:
    assert torch.equal(hold_out(LABELS, 0.2, seed=5)[1], hold_out(LABELS, 0.2, seed=5)[1])
    assert not torch.equal(hold_out(LABELS, 0.2, seed=5)[1], hold_out(LABELS, 0.2, seed=6)[1])


def test_split_is_the_same_on_every_machine() -> None:
    assert split_hash(hold_out(torch.arange(40) % 4, 0.3)[1]) == (
        "08580e9e5efa5f2e89601fd492b96b257616a31b1a0bab72419739a1f53255a9"
    )


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, [0, 0, 0]), (0.01, [1, 1, 1]), (0.999, [59, 29, 9])])
def test_small_fractions_hold_out_one_and_large_ones_leave_one(fraction: float, expected: list[int]) -> None:
    assert LABELS[hold_out(LABELS, fraction)[1]].bincount(minlength=3).tolist() == expected


def test_a_single_image_is_never_held_out() -> None:
    train, held_out = hold_out(torch.tensor([0, 1, 1]), 0.9)
    assert 0 in train
    assert len(held_out) == 1


def test_split_hash_is_sha256_of_little_endian_int64() -> None:
    assert split_hash(torch.tensor([1, 258])) == hashlib.sha256(struct.pack("<2q", 1, 258)).hexdigest()


def test_balanced_order_deals_out_class_by_class() -> None:
    assert balanced_order(torch.tensor([2, 0, 0, 1, 0, 2])).tolist() == [1, 3, 0, 2, 5, 4]


def test_balanced_order_of_nothing_is_nothing() -> None:
    assert balanced_order(torch.tensor([], dtype=torch.int64)).tolist() == []
