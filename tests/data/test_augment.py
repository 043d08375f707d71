import torch
from torchvision.transforms.v2 import functional as F

from spikeback.data.augment import AugmentedDataset, EpochSampler, PictureDataset, crop_and_flip, draw
from spikeback.data.pictures import PictureSet, channel_statistics, normalise


def test_crop_and_flip_is_torchvisions_picture_by_picture() -> None:
    images = torch.randint(0, 256, (64, 3, 7, 5), dtype=torch.uint8)
    shift, flip = torch.randint(0, 5, (2, 64)), torch.rand(64) < 0.5
    result = crop_and_flip(images, shift, flip, 2)
    for image, top, left, mirrored, got in zip(images, *shift.tolist(), flip.tolist(), result, strict=True):
        expected = F.crop(F.pad(image, [2]), top, left, 7, 5)
        assert torch.equal(got, F.horizontal_flip(expected) if mirrored else expected)


def test_the_middle_crop_without_flip_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 3, 7, 5), dtype=torch.uint8)
    still = crop_and_flip(images, torch.full((2, 4), 2), torch.zeros(4, dtype=torch.bool), 2)
    assert torch.equal(still, images)


def test_shifts_and_mirrors_are_even() -> None:
    shift, mirror = draw(0, 0, 90_000, 4)
    for axis in shift:
        counts = axis.bincount()
        assert len(counts) == 9  # 0 to 8, all of them
        assert (counts - 10_000).abs().max() < 500  # five standard deviations
    assert abs(int(mirror.sum()) - 45_000) < 750


def test_draws_depend_on_seed_and_epoch() -> None:
    draws = [draw(seed, epoch, 1000, 4)[0] for seed in (0, 1) for epoch in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_each_epoch_visits_every_picture_once_in_its_own_order() -> None:
    sampler = EpochSampler(50, seed=0)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert keys == list(sampler)
        assert {e for e, _ in keys} == {epoch}
        orders.append([index for _, index in keys])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert [index for _, index in EpochSampler(50, seed=1)] != orders[0]


def datasets(picture_set: PictureSet, padding: int, flip: bool) -> tuple[PictureDataset, AugmentedDataset]:
    train, indices = picture_set.train, torch.arange(10, 60)
    mean, std = channel_statistics(train.images)
    plain = PictureDataset(train, indices, mean, std)
    return plain, AugmentedDataset(train, indices, mean, std, seed=3, padding=padding, flip=flip)


def test_a_picture_is_augmented_alike_in_any_company(picture_set: PictureSet) -> None:
    _, augmented = datasets(picture_set, 2, True)
    x, y = augmented.__getitems__([(4, i) for i in range(50)])
    for chosen in ([7], [7, 3], [49, 7, 0]):
        some_x, some_y = augmented.__getitems__([(4, i) for i in chosen])
        assert torch.equal(some_x, x[chosen])
        assert torch.equal(some_y, y[chosen])


def test_augmentation_differs_from_epoch_to_epoch(picture_set: PictureSet) -> None:
    _, augmented = datasets(picture_set, 2, True)
    first, second = (augmented.__getitems__([(epoch, i) for i in range(50)])[0] for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_augmentation_switched_off_leaves_the_plain_picture(picture_set: PictureSet) -> None:
    plain, augmented = datasets(picture_set, 0, False)
    x, y = augmented.__getitems__([(0, i) for i in range(50)])
    assert torch.equal(x, plain.__getitems__(list(range(50)))[0])
    train = picture_set.train
    assert torch.equal(x, normalise(train.images, *channel_statistics(train.images))[10:60])
    assert torch.equal(y, train.labels[10:60])


def test_flip_alone_mirrors_some_and_shifts_none(picture_set: PictureSet) -> None:
    plain, augmented = datasets(picture_set, 0, True)
    x = plain.__getitems__(list(range(50)))[0]
    got = augmented.__getitems__([(0, i) for i in range(50)])[0]
    mirrored = draw(3, 0, 50, 0)[1]
    assert 0 < int(mirrored.sum()) < 50
    assert torch.equal(got[mirrored], x[mirrored].flip(-1))
    assert torch.equal(got[~mirrored], x[~mirrored])
