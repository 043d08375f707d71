"""What README and docs say in words is what the committed results say; their tables: test_tables_in_docs.py."""

import json
import re
from pathlib import Path
from typing import Any

from spikeback.report import headline
from spikeback.report.tables import scientific

ROOT = Path(__file__).parents[1]


def test_readme_shows_the_committed_demo() -> None:
    results = json.loads((ROOT / "results/demo/results.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert headline(results) in readme
    exploding = json.loads((ROOT / "results/demo-exploding/results.json").read_text())
    assert f'"{headline(exploding)}"' in readme


def test_files_that_readme_and_docs_point_to_exist() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} points to {target}"


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
    assert ", ".join(f"{gain:.2f}" for gain in facts["relu"][:3]) in page
    critical = {line["threshold"]: line["critical"] for line in facts["phases"]}
    assert f"The gain is 1 at h = {critical[0.5]:.3f}" in page


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
