"""What the numbers say, in sentences: computed from the results alone, "no" as plainly as "yes"."""

import math
from typing import Any, NamedTuple

from spikeback.report.tables import Results, by_method, check, count, finite, percent, scientific, summarise

ENOUGH = 50  # images whose accuracy moves by less than 10 points by chance alone (one standard error)


class Note(NamedTuple):
    """A short remark; `code` is what to type, or empty."""

    title: str
    text: str
    code: str = ""


def headline(results: Results) -> str:
    """Did the branches help? One sentence that begins with its answer and a colon.

    Judged by the main branch alone after the last epoch (nothing is chosen there): "Yes" only if the worst seed of the
    evolutionary method (without one, of the first method that is not vanilla) beats vanilla's best seed by more than
    the test images' own counting error; "No" likewise the other way round.

    Raises:
        UsageError: another schema, or no finished trial.
    """
    if no_result := diverged(results):
        return f"{no_result}Lower --train.lr, with another --out."
    ours, vanilla = _compared(results)
    chance = f"all after the last epoch; chance is {percent(1 / len(results['dataset']['classes']))} %"
    if ours is None or vanilla is None:
        reached = [f"{row['method']} reached {percent(row['last_mean'])} %" for row in summarise(results)]
        return f"Nothing to compare: {', '.join(reached)}; {chance}."
    return f"{_verdict(ours, vanilla, results['dataset']['test'])}; {chance}."


def verdict(results: Results) -> str:
    """The headline, and on lines of their own whether training was still rising, and the untrained network's regime."""
    regime = results.get("regime")
    lines = [headline(results), still_rising(results)]
    lines.append(f"Regime of the untrained network: {regime['kind']}." if regime else "")
    return "\n".join(filter(None, lines))


def still_rising(results: Results) -> str:
    """Whether more epochs would help, and what to do; empty where too few were trained to say. ENOUGH images tell it.

    Judged by the held-out accuracy, the mean of the last tenth of the epochs (at least three, at most half of them)
    against the mean of as many before: a trial was rising if that is more than the standard error of the difference of
    two accuracies that are counted on so many images.
    """
    images = results["dataset"]["held_out"] or results["dataset"]["test"]  # the authors' rule holds nothing out
    rising, gains, window, epochs = [], [], 0, 0
    for trial in results["trials"]:
        curve = finite((trial.get("history") or {}).get("held_out_accuracy", []))
        if len(curve) < 2:
            continue
        epochs, window = len(curve), max(len(curve) // 10, min(3, len(curve) // 2))
        last, before = (sum(part) / window for part in (curve[-window:], curve[-2 * window : -window]))
        gains.append(last - before)
        if last - before > counting_error(last, before, images) / 1.96:
            rising.append(f"{trial['method']} seed {trial['seed']}")
    if not gains:
        return ""
    span = f"in the last {count(window)} of {count(epochs)} epochs the held-out accuracy was"
    if (images or 0) < ENOUGH:
        return f"Still rising or not: {images} images are too few to tell; from {ENOUGH} on it is said."
    best = percent(abs(max(gains)))
    side = "below" if max(gains) < 0 and float(best) else "above"
    gain = f"{best} points {side} that of the {count(window)} before"
    if not rising:
        most = "at most " if side == "above" else "at least " if len(gains) > 1 else ""
        return f"No longer rising: {span} {most}{gain}."
    who = "all" if len(rising) == len(gains) else ", ".join(rising)
    advice = f"Train longer: --train.epochs {2 * epochs} with another --out"
    return f"Still rising ({who}): {span} up to {gain}. {advice}."


def diverged(results: Results) -> str:
    """Which trials ended at an absurd loss, as earlier versions let them: more than ten times that of guessing.

    That of every branch counts as well, as if losses were summed.
    """
    found = []
    for trial in results["trials"]:
        history, branches = trial.get("history") or {}, len((trial.get("gradients") or {}).get("blocks", ()))
        losses, weights = finite(history.get("train_loss", [])), finite(history.get("weight", []))
        guess = math.log(len(results["dataset"]["classes"])) * (1 + (weights[-1] if weights else 0.0) * branches)
        if losses and losses[-1] > 10 * guess:
            found.append(f"{trial['method']} seed {trial['seed']} (loss {scientific(losses[-1])})")
    return f"Diverged, so no result: {', '.join(found)}. " if found else ""


def _compared(results: Results) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The rows of the method with branches and of vanilla that answer the question; None where there is none."""
    rows = [row for row in summarise(results) if row["last_mean"] is not None]
    kinds = {method: _kind(trials[0]) for method, trials in by_method(results).items()}
    others = [row for row in rows if kinds[row["method"]] != "vanilla"]
    first = lambda kind: next((row for row in rows if kinds[row["method"]] == kind), None)
    return first("evolutionary") or next(iter(others), None), first("vanilla")


def _verdict(ours: dict[str, Any], vanilla: dict[str, Any], images: int | None) -> str:
    us, them = ours["method"], vanilla["method"]
    low, high, mean = (percent(ours[f"last_{key}"]) for key in ("min", "max", "mean"))
    their_low, their_high, their_mean = (percent(vanilla[f"last_{key}"]) for key in ("min", "max", "mean"))
    if min(ours["seeds"], vanilla["seeds"]) < 2:
        return f"One seed only: {us} {mean} %, {them} {their_mean} %, and another seed may change that"
    ranges = f"{us} {low}–{high} %, {them} {their_low}–{their_high} %"
    ahead, behind = ours["last_min"] - vanilla["last_max"], vanilla["last_min"] - ours["last_max"]
    if max(ahead, behind) <= 0:
        return f"No clear difference: the seeds overlap, {ranges}"
    inner = (ours["last_min"], vanilla["last_max"]) if ahead > 0 else (ours["last_max"], vanilla["last_min"])
    if max(ahead, behind) <= counting_error(*inner, images):
        return f"No clear difference: {ranges}, closer than {count(images)} test images can tell apart"
    if ahead > 0:
        return f"Yes: the worst {us} seed ({low} %) beats the best {them} seed ({their_high} %)"
    return f"No: the best {us} seed ({high} %) stays below the worst {them} seed ({their_low} %)"


def counting_error(p: float, q: float, images: int | None) -> float:
    """Half width of the 95 % interval of p - q, two accuracies each counted on that many test images."""
    return 1.96 * math.sqrt((p * (1 - p) + q * (1 - q)) / images) if images else 0.0


def gradient_sentence(results: Results) -> str:
    """How much gradient reaches the first block while training, method by method; empty if it was not measured."""
    ours, vanilla = _compared(results)
    parts = []
    for row in summarise(results):
        if row["gradient_ratio"] is not None:
            parts.append(f"{row['method']} {scientific(row['gradient_ratio'])}")
            if ours and vanilla and row["method"] == ours["method"] and vanilla["gradient_ratio"]:
                parts[-1] += f" ({scientific(row['gradient_ratio'] / vanilla['gradient_ratio'])} times vanilla's)"
    return f"Gradient at the first block over the last, while training: {', '.join(parts)}." if parts else ""


def notes(results: Results) -> list[Note]:
    """Regime, what testing the shortcut on one summand costs, how "best" was chosen, what not to compare with.

    Raises:
        UsageError: another schema, or no finished trial.
    """
    check(results)
    found = (_regime(results), _shortcut(results), _best(results), _dataset(results))
    return [note for note in found if note is not None]


def _kind(trial: dict[str, Any]) -> str:
    """ "Evolutionary(start=0.5)" -> "evolutionary"."""
    return (trial.get("schedule") or trial["method"]).split("(")[0].lower()


def _regime(results: Results) -> Note | None:
    regime = results.get("regime")
    if not regime:
        return None
    measured = (
        f"|dL/d(first block)| / |dL/d(last block)| of the untrained vanilla network is {scientific(regime['ratio'])}, "
        f"with {regime['surrogate']} and threshold {regime['threshold']:g}."
    )
    title = f"Regime: {regime['kind']}"
    scales = [(trial.get("calibration") or {}).get("norm_scale") or 1.0 for trial in results["trials"]]
    if scales and max(scales) < 1:
        return Note(
            title,
            f"{measured} Its residual norms were started small (at {max(scales):.2g} of their weight at most), so "
            "that the forward pass keeps what it is shown; the size of the gradient says little about training then "
            "(docs/doctor.md). To start without, add",
            "--train.calibrate none",
        )
    if regime["kind"] == "exploding":
        return Note(
            title,
            f"{measured} In this regime branches did not take a ResNet-34 of width 8 off chance in the study on record "
            "(docs/evidence.md); residual norms that start small did. To try them, add",
            "--train.calibrate fidelity",
        )
    return Note(
        title,
        f"{measured} In the exploding regime (rectangle, tanh at their usual heights) branches did not take a "
        "ResNet-34 of width 8 off chance in the study on record (docs/evidence.md); to run the same comparison there, "
        "add",
        "--model.surrogate 'Rectangle(a=1.0)'",
    )


def _shortcut(results: Results) -> Note | None:
    trials = [t for t in results["trials"] if _kind(t) == "shortcut"]
    pairs = [(t["last_sum_accuracy"], t["last_accuracy"]) for t in trials]
    pairs = [pair for pair in pairs if len(finite(pair)) == 2]
    if not pairs:
        return None
    total, alone = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    measured = f"The sum reaches {percent(total)} %, the main branch alone {percent(alone)} %"
    gap = total - alone
    if abs(gap) <= counting_error(total, alone, results["dataset"]["test"]):
        verdict = "the mismatch costs nothing that the test images can show"
    elif gap > 0:
        verdict = f"the mismatch costs {percent(gap)} points"
    else:
        verdict = f"the mismatch costs nothing, the main branch is ahead by {percent(-gap)} points"
    return Note("Shortcut is trained on the sum and tested on one summand", f"{measured}: {verdict}.")


def _best(results: Results) -> Note:
    rules = {t["best_on"] for t in results["trials"]}
    held_out = f"{count(results['dataset']['held_out'])} held-out training images"
    if rules == {"held-out"}:
        text = f"The best epoch was chosen on {held_out}, never on the test images."
    elif rules == {"test"}:
        text = "The best epoch was chosen on the test images (the authors' rule), so “best” flatters; trust “last”."
    else:
        text = f"Trials differ: some chose the best epoch on {held_out}, some on the test images; compare “last”."
    return Note("Best and last", text)


def _dataset(results: Results) -> Note:
    data = results["dataset"]
    epochs = sorted(set(finite(t.get("epochs") for t in results["trials"])))
    budget = f", epochs: {' or '.join(map(count, epochs))}" if epochs else ""
    provenance = data["provenance"][:1].upper() + data["provenance"][1:].rstrip(". ")
    images = f"{count(data['train'])} training and {count(data['test'])} test images"
    text = f"{data['name']}: {images}{budget}. {provenance}."
    if "compar" not in provenance.lower():
        text += " Not comparable with published numbers."
    return Note("Data and scale", text)
