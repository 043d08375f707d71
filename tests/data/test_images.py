from dataclasses import replace

import torch
from torchvision.transforms.v2 import functional as F

from spikeback.data.images import Images, ImageSet, channel_statistics, fit, normalise


def test_hash_sees_every_part(image_set: ImageSet) -> None:
    train, test = image_set.train, image_set.test
    images, labels = train.images.clone(), test.labels.clone()
    images[-1, -1, -1, -1] += 1
    labels[0] += 1
    others = [
        replace(image_set, classes=("a", "b", "d")),
        replace(image_set, train=Images(images, train.labels)),
        replace(image_set, test=Images(test.images, labels)),
        replace(image_set, train=Images(train.images.reshape(100, 2, 5, 6), train.labels)),
    ]
    assert len({each.hash() for each in [image_set, *others]}) == 5


def test_hash_is_of_content_not_of_name_or_layout(image_set: ImageSet) -> None:
    images = image_set.train.images.to(memory_format=torch.channels_last)
    same = replace(image_set, name="other", provenance="other", train=Images(images, image_set.train.labels))
    assert same.hash() == image_set.hash()


def test_fit_leaves_the_right_size_alone() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8)
    assert fit(images, 8, 6) is images


def test_fit_is_resize_of_the_shorter_side_then_centre_crop() -> None:
    image = torch.randint(0, 256, (3, 40, 20), dtype=torch.uint8)
    expected = F.center_crop(F.resize(image, [10], antialias=True), [10, 10])
    assert torch.equal(fit(image, 10, 10), expected)


def test_fit_covers_any_shape() -> None:
    for height, width in ((1, 9), (9, 1), (7, 31), (50, 3)):
        image = torch.full((1, height, width), 200, dtype=torch.uint8)
        assert torch.equal(fit(image, 8, 5), torch.full((1, 8, 5), 200, dtype=torch.uint8))


def test_channel_statistics_are_mean_and_deviation(image_set: ImageSet) -> None:
    images = image_set.train.images
    mean, std = channel_statistics(images)
    exact = images.double() / 255
    torch.testing.assert_close(mean, exact.mean((0, 2, 3)).float(), rtol=1e-7, atol=0)
    torch.testing.assert_close(std, exact.std((0, 2, 3), correction=0).float(), rtol=1e-7, atol=0)


def test_normalised_images_have_mean_zero_and_variance_one(image_set: ImageSet) -> None:
    images = image_set.train.images
    x = normalise(images, *channel_statistics(images)).double()
    assert x.mean((0, 2, 3)).abs().max() < 1e-6
    assert (x.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


def test_a_constant_channel_becomes_zero() -> None:
    images = torch.full((4, 1, 3, 3), 77, dtype=torch.uint8)
    x = normalise(images, *channel_statistics(images))
    assert torch.equal(x, torch.zeros(4, 1, 3, 3))
