import pytest

from spikeback.report.findings import counting_error, gradient_sentence, headline, notes


def _note(results, title):
    return next(note for note in notes(results) if note.title.startswith(title))


def test_yes_only_if_the_worst_seed_beats_vanillas_best(build):
    text = headline(build({"vanilla": [0.10, 0.12], "evolutionary": [0.31, 0.25]}))
    assert text == (
        "Yes: the worst evolutionary seed (25.0 %) beats the best vanilla seed (12.0 %); all after the last epoch; "
        "chance is 10.0 %."
    )


def test_the_best_epochs_decide_nothing(build):
    results = build({"vanilla": [0.10, 0.12], "evolutionary": [0.31, 0.25]})
    for trial in results["trials"]:
        trial["best_accuracy"] = 0.9 if trial["method"] == "vanilla" else 0.35
    assert headline(results).startswith(
        "Yes: the worst evolutionary seed (25.0 %) beats the best vanilla seed (12.0 %)"
    )


def test_no_is_said_as_plainly(build):
    text = headline(build({"vanilla": [0.41, 0.38], "evolutionary": [0.20, 0.29]}))
    assert text == (
        "No: the best evolutionary seed (29.0 %) stays below the worst vanilla seed (38.0 %); all after the last "
        "epoch; chance is 10.0 %."
    )


def test_overlapping_seeds_are_no_clear_difference(build):
    text = headline(build({"vanilla": [0.20, 0.32], "evolutionary": [0.30, 0.50]}))
    assert text == (
        "No clear difference: the seeds overlap, evolutionary 30.0–50.0 %, vanilla 20.0–32.0 %; all after the last "
        "epoch; chance is 10.0 %."
    )


def test_a_gap_smaller_than_the_test_set_resolves_is_no_clear_difference(build):
    results = build({"vanilla": [0.100, 0.104], "evolutionary": [0.108, 0.110]})
    assert headline(results).startswith(
        "No clear difference: evolutionary 10.8–11.0 %, vanilla 10.0–10.4 %, closer than"
    )
    results["dataset"]["test"] = 1_000_000
    assert headline(results).startswith("Yes: ")


def test_counting_error_is_the_95_percent_interval_of_two_proportions():
    assert counting_error(0.5, 0.5, 100) == pytest.approx(1.96 * 0.5**0.5 / 10, rel=1e-15)


def test_one_seed_gets_no_verdict(build):
    text = headline(build({"vanilla": [0.10], "evolutionary": [0.80, 0.82]}))
    assert text.startswith("One seed only: evolutionary 81.0 %, vanilla 10.0 %")


@pytest.mark.parametrize("method", ["vanilla", "evolutionary"])
def test_a_single_method_is_nothing_to_compare(build, method):
    text = headline(build({method: [0.25, 0.27]}))
    assert text == f"Nothing to compare: {method} reached 26.0 %; all after the last epoch; chance is 10.0 %."


def test_the_evolutionary_method_is_judged_under_any_name_and_otherwise_the_first_with_branches(build):
    named = build({"vanilla": [0.1, 0.1], "shortcut": [0.1, 0.1], "Evolutionary(start=0.5)": [0.5, 0.5]})
    assert headline(named).startswith("Yes: the worst Evolutionary(start=0.5) seed (50.0 %)")
    without = build({"vanilla": [0.1, 0.1], "shortcut": [0.4, 0.4]})
    assert headline(without).startswith("Yes: the worst shortcut seed (40.0 %)")


def test_gradient_sentence_names_the_factor_over_vanilla(build):
    results = build({"vanilla": [0.1], "evolutionary": [0.5]})
    results["trials"][0]["gradient_ratio"], results["trials"][1]["gradient_ratio"] = 6e-4, 0.03
    assert "vanilla 6 × 10⁻⁴, evolutionary 0.03 (50 times vanilla's)." in gradient_sentence(results)
    results["trials"][0]["gradient_ratio"] = 0.0
    assert gradient_sentence(results).endswith("vanilla 0, evolutionary 0.03.")


def test_regime_is_named_with_its_numbers_and_the_option_for_the_other(results):
    note = _note(results, "Regime: vanishing")
    assert "6 × 10⁻⁴, with Triangle(gamma=1.0) and threshold 0.5" in note.text
    assert (
        "In the exploding regime (rectangle, tanh at their usual heights) branches did not take a ResNet-34 of width 8 "
        "off chance" in note.text
    )
    assert note.code == "--model.surrogate 'Rectangle(a=1.0)'"
    results["regime"] |= {"kind": "exploding", "surrogate": "Rectangle(a=1.0)", "ratio": 1.9e3}
    exploding = _note(results, "Regime: exploding")
    assert (
        "branches did not take a ResNet-34 of width 8 off chance in the study on record (docs/evidence.md)"
        in exploding.text
    )
    assert exploding.code == "--train.calibrate fidelity"
    for trial in results["trials"]:
        trial["calibration"] = {"norm_scale": 0.03}
    results["trials"][0]["calibration"]["norm_scale"] = 0.05
    small = _note(results, "Regime: exploding")
    assert "started small (at 0.05 of their weight at most)" in small.text
    assert small.code == "--train.calibrate none"
    results["regime"] = None
    assert not [note for note in notes(results) if note.title.startswith("Regime")]


@pytest.mark.parametrize(
    ("total", "verdict"),
    [
        (0.652, "The sum reaches 65.2 %, the main branch alone 20.0 %: the mismatch costs 45.2 points."),
        (0.201, "costs nothing that the test images can show."),
        (0.1, "costs nothing, the main branch is ahead by 10.0 points."),
    ],
)
def test_shortcut_note_says_what_testing_on_one_summand_costs(build, total, verdict):
    results = build({"vanilla": [0.1], "shortcut": [0.15, 0.25]})
    for trial in results["trials"]:
        trial["last_sum_accuracy"] = total
    assert _note(results, "Shortcut is trained on the sum").text.endswith(verdict)


def test_shortcut_note_is_absent_without_shortcut_trials(build):
    assert not [n for n in notes(build({"vanilla": [0.1], "evolutionary": [0.2]})) if n.title.startswith("Shortcut")]


def test_the_rule_for_best_is_named(results):
    assert "600 held-out training images, never on the test images" in _note(results, "Best").text
    for trial in results["trials"]:
        trial["best_on"] = "test"
    assert "on the test images (the authors' rule)" in _note(results, "Best").text
    results["trials"][0]["best_on"] = "held-out"
    assert "Trials differ" in _note(results, "Best").text


def test_the_data_say_what_they_must_not_be_compared_with(results):
    text = _note(results, "Data").text
    assert text.startswith("Fashion-MNIST, embedded subset: 5,400 training and 1,000 test images, epochs: 6. ")
    assert text.endswith("not comparable with results on the whole set.")
    results["dataset"]["provenance"] = "a folder of images."
    assert _note(results, "Data").text.endswith("A folder of images. Not comparable with published numbers.")
