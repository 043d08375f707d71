import pytest
import torch
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2 import functional as F

from spikeback.data.augment import (
    GREY,
    Augmentation,
    AugmentedDataset,
    BatchDataset,
    EpochSampler,
    auto_augment,
    crop_and_flip,
    cut_out,
    draw,
    draw_seeds,
    roll_and_flip,
)
from spikeback.data.images import Images, ImageSet, channel_statistics, normalise


def test_crop_and_flip_is_torchvisions_image_by_image() -> None:
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


def test_each_epoch_visits_every_image_once_in_its_own_order() -> None:
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


def datasets(image_set: ImageSet, padding: int, flip: bool) -> tuple[BatchDataset, AugmentedDataset]:
    train, indices = image_set.train, torch.arange(10, 60)
    mean, std = channel_statistics(train.images)
    plain = BatchDataset(train, indices, mean, std)
    return plain, AugmentedDataset(train, indices, mean, std, Augmentation(3, padding, flip))


def test_a_image_is_augmented_alike_in_any_company(image_set: ImageSet) -> None:
    _, augmented = datasets(image_set, 2, True)
    x, y = augmented.__getitems__([(4, i) for i in range(50)])
    for chosen in ([7], [7, 3], [49, 7, 0]):
        some_x, some_y = augmented.__getitems__([(4, i) for i in chosen])
        assert torch.equal(some_x, x[chosen])
        assert torch.equal(some_y, y[chosen])


def test_augmentation_differs_from_epoch_to_epoch(image_set: ImageSet) -> None:
    _, augmented = datasets(image_set, 2, True)
    first, second = (augmented.__getitems__([(epoch, i) for i in range(50)])[0] for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_augmentation_switched_off_leaves_the_plain_image(image_set: ImageSet) -> None:
    plain, augmented = datasets(image_set, 0, False)
    x, y = augmented.__getitems__([(0, i) for i in range(50)])
    assert torch.equal(x, plain.__getitems__(list(range(50)))[0])
    train = image_set.train
    assert torch.equal(x, normalise(train.images, *channel_statistics(train.images))[10:60])
    assert torch.equal(y, train.labels[10:60])


def test_flip_alone_mirrors_some_and_shifts_none(image_set: ImageSet) -> None:
    plain, augmented = datasets(image_set, 0, True)
    x = plain.__getitems__(list(range(50)))[0]
    got = augmented.__getitems__([(0, i) for i in range(50)])[0]
    mirrored = draw(3, 0, len(image_set.train), 0)[1][10:60]
    assert 0 < int(mirrored.sum()) < 50
    assert torch.equal(got[mirrored], x[mirrored].flip(-1))
    assert torch.equal(got[~mirrored], x[~mirrored])


@pytest.mark.parametrize("axis", [-1, -2])
def test_roll_and_flip_is_torchs_sample_by_sample(axis: int) -> None:
    frames = torch.randint(0, 256, (64, 3, 2, 7, 5), dtype=torch.uint8)
    shift, mirror = torch.randint(-5, 6, (2, 64)), torch.rand(64) < 0.5
    result = roll_and_flip(frames, shift, mirror, axis)
    for sample, down, right, mirrored, got in zip(frames, *shift.tolist(), mirror.tolist(), result, strict=True):
        expected = sample.roll((down, right), (-2, -1))
        assert torch.equal(got, expected.flip(axis) if mirrored else expected)


def test_auto_augment_is_torchvisions_under_each_images_seed() -> None:
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    seeds = draw_seeds(3, 0, 0, 40).tolist()
    got = auto_augment(images, seeds)
    policy = transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10, fill=GREY)
    for image, seed, each in zip(images, seeds, got, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(each, policy(image))
    assert sum(torch.equal(*pair) for pair in zip(images, got, strict=True)) < 20  # most are changed


def test_auto_augment_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    auto_augment(torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator()), [1, 2, 3])
    assert torch.equal(torch.get_rng_state(), before)


def test_cut_out_blackens_one_square_around_any_pixel() -> None:
    images = torch.full((9000, 1, 6, 5), 7, dtype=torch.uint8)
    holes = cut_out(images, draw_seeds(4, 0, 0, 9000), 4)[:, 0] == 0
    expected = {}
    for row in range(6):
        for column in range(5):
            hole = torch.zeros(6, 5, dtype=torch.bool)
            hole[max(row - 2, 0) : row + 2, max(column - 2, 0) : column + 2] = True  # as in the authors' code
            expected[hole.numpy().tobytes()] = expected.get(hole.numpy().tobytes(), 0) + 1
    seen = [hole.numpy().tobytes() for hole in holes]
    assert set(seen) == set(expected)
    for hole, ways in expected.items():
        assert abs(seen.count(hole) - 300 * ways) < 5 * (300 * ways) ** 0.5


@pytest.fixture
def train() -> Images:
    images = torch.randint(0, 256, (60, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Images(images, torch.arange(60) % 3)


def test_cut_out_comes_after_auto_augment_and_before_normalising(train: Images) -> None:
    indices = torch.arange(50)
    mean, std = channel_statistics(train.images)
    options = Augmentation(3, 2, True, policy=True, hole=4)
    x, _ = AugmentedDataset(train, indices, mean, std, options).__getitems__([(1, i) for i in range(50)])
    shift, mirror = draw(3, 1, 60, 2)
    policies, holes = draw_seeds(3, 3, 1, 60)[:50], draw_seeds(4, 3, 1, 60)[:50]
    images = auto_augment(crop_and_flip(train.images[:50], shift[:, :50], mirror[:50], 2), policies.tolist())
    assert torch.equal(x, normalise(cut_out(images, holes, 4), mean, std))


def test_a_image_is_augmented_alike_whatever_else_is_trained_on(train: Images) -> None:
    mean, std = channel_statistics(train.images)
    options = Augmentation(3, 2, True, policy=True, hole=4)
    few, all_of_them = (
        AugmentedDataset(train, i, mean, std, options) for i in (torch.arange(20, 40), torch.arange(60))
    )
    assert torch.equal(few.__getitems__([(1, 5)])[0], all_of_them.__getitems__([(1, 25)])[0])


def test_every_augmentation_is_alike_in_any_company(train: Images) -> None:
    mean, std = channel_statistics(train.images)
    options = Augmentation(3, 2, True, policy=True, hole=3)
    dataset = AugmentedDataset(train, torch.arange(10, 60), mean, std, options)
    x, _ = dataset.__getitems__([(4, i) for i in range(50)])
    assert torch.equal(dataset.__getitems__([(4, i) for i in (49, 7, 0)])[0], x[[49, 7, 0]])
    assert not torch.equal(dataset.__getitems__([(5, i) for i in range(50)])[0], x)
