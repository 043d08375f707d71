"""What README shows was measured: it is what the committed results say, word for word."""

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

from spikeback.report import headline, markdown
from spikeback.report.tables import plus_minus, scientific

ROOT = Path(__file__).parents[1]


def test_readme_shows_the_committed_demo() -> None:
    results = json.loads((ROOT / "results/demo/results.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert markdown(results).strip() in readme
    assert headline(results) in readme
    exploding = json.loads((ROOT / "results/demo-exploding/results.json").read_text())
    assert f'"{headline(exploding)}"' in readme


def test_readme_shows_what_is_supported_of_other_frameworks() -> None:
    columns = json.loads((ROOT / "results/peers/supported.json").read_text())
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for label in next(iter(columns.values())):
        cells = ["{} of {}".format(*column[label]) for column in columns.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    assert "\n".join(lines) in (ROOT / "README.md").read_text()


def test_files_that_readme_and_docs_point_to_exist() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} points to {target}"


def test_shares_of_waiting_are_those_measured() -> None:
    page = (ROOT / "docs/data.md").read_text()
    for path in ROOT.glob("results/bench/data-*.json"):
        share = json.loads(path.read_text())["share"]
        assert f"| {100 * share:.1f} % | [{path.name}]" in page


DOCTOR = ROOT / "results/doctor"


def doctor_page() -> str:
    return " ".join((ROOT / "docs/doctor.md").read_text().split())


def test_theory_on_the_page_is_that_of_the_file() -> None:
    facts = json.loads((DOCTOR / "theory.json").read_text())
    found, page = facts["agreement"], doctor_page()
    assert (
        f"{found['blocks']:.0f} blocks: median {found['median']:.2f}, {found['lowest']:.2f} to {found['highest']:.2f}; "
        f"{found['within_factor_2']:.0%} within a factor of 2"
    ) in page
    for row in facts["identity_blocks"]:
        assert f"| `{row['surrogate']}` | {row['threshold']:g} | {row['gain']:.3f} | {row['critical']:.3f} |" in page
    assert ", ".join(f"{gain:.2f}" for gain in facts["relu"][:3]) in page
    critical = {line["threshold"]: line["critical"] for line in facts["phases"]}
    assert f"The gain is 1 at h = {critical[0.5]:.3f}" in page


def calibrate_rows(sweep: dict[str, Any]) -> list[str]:
    """A line of the page's table for each regime and kind of calibration."""
    found = {(row["cell"], row["method"]): plus_minus(row["last_mean"], row["last_std"]) for row in sweep["rows"]}
    arms = [(optimiser, method) for optimiser in ("sgd", "adam") for method in ("vanilla", "evolutionary")]
    return [
        f"| {regime} | {kind} | " + " | ".join(found[f"{regime}-{kind}-{o}", method] for o, method in arms) + " |"
        for regime in sweep["study"]["vary"]["regime"]
        for kind in sweep["study"]["vary"]["train.calibrate"]
    ]


def test_study_of_calibration_on_the_page_is_that_of_the_file() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    for line in calibrate_rows(json.loads((DOCTOR / "calibrate/sweep.json").read_text())):
        assert line in page


def depth_rows(folder: Path) -> list[str]:
    """A line for each depth and method: first over last gradient before training and after each epoch, over seeds."""
    lines = []
    for cell in json.loads((folder / "sweep.json").read_text())["cells"]:
        trials = json.loads((folder / cell["results"]).read_text())["trials"]
        for method in dict.fromkeys(trial["method"] for trial in trials):
            rows = [t["gradients"]["norm"] for t in trials if t["method"] == method]  # (seeds, probes, blocks)
            ratios = [[norms[0] / norms[-1] for norms in probes] for probes in zip(*rows, strict=True)]
            means = [math.exp(statistics.fmean(map(math.log, r))) for r in ratios]
            cells = [
                f"{scientific(mean)} ({scientific(min(r))} to {scientific(max(r))})"
                for mean, r in zip(means, ratios, strict=True)
            ]
            lines.append(f"| {cell['name']} | {method} | {' | '.join(cells)} |")
    return lines


def test_depth_on_the_page_is_that_of_the_files() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    for line in depth_rows(DOCTOR / "depth"):
        assert line in page


def diagnosis_sentence(facts: dict[str, Any]) -> str:
    """What the page says of spikes and ReLU in one network."""
    rows = facts["blocks"]
    span = lambda key: f"{min(row[key] for row in rows):.2f} to {max(row[key] for row in rows):.2f}"
    last = rows[-1]
    left = scientific(rows[0]["gradient"] / last["gradient"])
    return (
        f"blocks pass on {span('gain')} times their gradient, with ReLU {span('relu')} times; the first is left with "
        f"{left} of the last one's. After the last block 1 % of noise leaves a correlation "
        f"of {last['fidelity']:.2f}, where unrelated inputs have {last['unrelated']:.2f}; with ReLU it leaves "
        f"{last['relu_fidelity']:.2f}."
    )


def test_diagnosis_on_the_page_is_that_of_the_file() -> None:
    assert diagnosis_sentence(json.loads((DOCTOR / "resnet34/diagnosis.json").read_text())) in doctor_page()


def test_cost_on_the_page_is_that_of_the_file() -> None:
    cost = json.loads((DOCTOR / "cost/diagnosis.json").read_text())["cost"]
    assert f"The recorded pass takes {cost:.2f} times as long" in doctor_page()


def test_index_lists_every_page() -> None:
    listed = re.findall(r"^\| \[.*?\]\((.*?)\)", (ROOT / "docs/README.md").read_text(), re.M)
    assert sorted([*listed, "README.md"]) == sorted(path.name for path in ROOT.glob("docs/*.md"))
