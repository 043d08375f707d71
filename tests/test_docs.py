"""What README shows was measured: it is what the committed results say, word for word."""

import json
import re
from pathlib import Path

from spikeback.report import headline, markdown

ROOT = Path(__file__).parents[1]


def test_readme_shows_the_committed_demo() -> None:
    results = json.loads((ROOT / "docs/results/demo/results.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert markdown(results).strip() in readme
    assert headline(results) in readme
    exploding = json.loads((ROOT / "docs/results/demo-exploding/results.json").read_text())
    assert f'"{headline(exploding)}"' in readme


def test_files_that_readme_and_docs_point_to_exist() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} points to {target}"


def test_shares_of_waiting_are_those_measured() -> None:
    page = (ROOT / "docs/data.md").read_text()
    for path in ROOT.glob("docs/results/bench/data-*.json"):
        share = json.loads(path.read_text())["share"]
        assert f"| {100 * share:.1f} % | [{path.name}]" in page
