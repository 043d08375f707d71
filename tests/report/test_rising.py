"""Whether training was still rising, and whether it was one at all."""

import math

import pytest

from spikeback.report.findings import headline, still_rising, verdict


def with_curves(build, *curves, images=400):
    results = build({"vanilla": [0.5] * len(curves)})
    results["dataset"]["held_out"] = images
    for trial, curve in zip(results["trials"], curves, strict=True):
        trial["history"]["held_out_accuracy"] = curve
    return results


def test_a_short_training_that_rises_to_its_end_is_told_with_what_to_do(build):
    results = with_curves(build, [0.10, 0.12, 0.15, 0.20])
    text = (
        "Still rising (all): in the last 2 of 4 epochs the held-out accuracy was up to 6.5 points above that of the 2 "
        "before. Train longer: --train.epochs 8 with another --out."
    )
    assert still_rising(results) == text
    assert text in verdict(results).splitlines()


def test_one_that_has_levelled_off_is_not(build):
    curve = [0.1 + 0.6 * (1 - math.exp(-epoch / 10)) for epoch in range(100)]
    assert still_rising(with_curves(build, curve)) == (
        "No longer rising: in the last 10 of 100 epochs the held-out accuracy was at most 0.0 points above that of the "
        "10 before."
    )


@pytest.mark.parametrize(("gain", "told"), [(0.033, "No longer"), (0.036, "Still")])
def test_the_rule_is_one_standard_error_of_the_difference(build, gain, told):
    error = math.sqrt((0.5 * 0.5 + (0.5 + gain) * (0.5 - gain)) / 400)
    assert (gain > error) == (told == "Still")
    assert still_rising(with_curves(build, [0.5] * 3 + [0.5 + gain] * 3)).startswith(told)


def test_those_that_rise_are_named(build):
    assert "Still rising (vanilla seed 1): " in still_rising(with_curves(build, [0.5] * 6, [0.2] * 3 + [0.4] * 3))


def test_without_held_out_images_those_of_the_test_count(build):
    results = with_curves(build, [0.5, 0.51], images=0)
    results["dataset"]["test"] = 100
    assert still_rising(results).startswith("No longer")


@pytest.mark.parametrize(("curves", "told"), [
    ([[0.6, 0.1]], "was 50.0 points below that of the 1 before."),
    ([[0.6, 0.1], [0.6, 0.4]], "was at least 20.0 points below that of the 1 before."),
    ([[0.6, 0.1], [0.6, 0.6]], "was at most 0.0 points above that of the 1 before."),
    ([[0.6, 0.5999999]], "was at most 0.0 points above that of the 1 before."),
])  # fmt: skip
def test_a_fall_is_told_without_a_sign(build, curves, told):
    text = still_rising(with_curves(build, *curves))
    assert text.startswith("No longer rising: ")
    assert text.endswith(told)


@pytest.mark.parametrize(("images", "judged"), [(1, False), (2, False), (49, False), (50, True)])
def test_few_images_tell_nothing(build, images, judged):
    for curve in ([0.0, 1.0], [1.0, 0.0], [0.5, 0.5]):
        text = still_rising(with_curves(build, curve, images=images))
        assert judged == ("points" in text)
        if not judged:
            assert text == f"Still rising or not: {images} images are too few to tell; from 50 on it is said."


def test_one_epoch_tells_nothing(build):
    assert still_rising(with_curves(build, [0.5])) == ""


def test_an_absurd_loss_is_no_result(build):
    results = with_curves(build, [0.1, 0.1], [0.1, 0.1])
    assert "no result" not in headline(results)
    results["trials"][1]["history"]["train_loss"][-1] = 4.8e26
    assert headline(results).startswith("Diverged, so no result: vanilla seed 1 (loss 4.8")
    assert "reached" not in headline(results)
