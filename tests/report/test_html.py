import re
from html.parser import HTMLParser

import pytest

from spikeback import files
from spikeback.errors import UsageError
from spikeback.report import headline, write_report
from spikeback.report.pages.page import duration


class _Page(HTMLParser):
    """Collects the tags, attributes and visible text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(build, tmp_path_factory):
    return write_report(build(), tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_nothing_is_fetched_and_no_script_runs(page):
    for tag, attributes in _Page(page).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "img"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "action"}:
                assert (value or "").startswith("#")
    assert "@import" not in page
    assert "http" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*[\"']?([^)]*)", page))


def test_every_reference_inside_the_page_has_one_target(page):
    ids = [attributes["id"] for _, attributes in _Page(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_the_page_says_what_the_numbers_say(page, results):
    text = " ".join(_Page(page).text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert headline(results) in text
    assert "Did the branches help?" in text
    for said in ("1,334,922", "75.3 ± 3.1", "7.7 × 10⁻⁴", "Regime: vanishing", "Shortcut is trained on the sum"):
        assert said in text
    for made in (results["command"], "surrogate: Triangle(gamma=1.0)", "9 min 12 s", "2.14.1", "3a" * 32, "7f" * 32):
        assert made in text
    order = [
        text.index(title) for title in ("Accuracy", "Where the gradient goes", "Weight of", "Best and last", "How")
    ]
    assert order == sorted(order)


@pytest.mark.slow
def test_a_method_and_a_title_cannot_become_markup(build, tmp_path):
    results = build({"vanilla": [0.1], "<b>$x$</b>": [0.2]})
    results["title"] = "<script>alert(1)</script>"
    page = write_report(results, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>$x$" not in page
    assert "&lt;b&gt;$x$&lt;/b&gt;" in page
    assert "<script" not in page


@pytest.mark.slow
def test_missing_values_are_dashes(results, tmp_path):
    for trial in results["trials"]:
        trial |= dict.fromkeys(
            ("gradient_ratio", "gradient_ratio_start", "firing_rate", "last_sum_accuracy", "best_epoch")
        )
        trial["seconds_per_step"] = trial["gradients"] = None
    results["regime"] = None
    page = write_report(results, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "None" not in page
    assert "<td>–<td>–<td>–" in page


@pytest.mark.slow
def test_the_same_results_make_the_same_page(page, results, tmp_path):
    assert write_report(results, tmp_path / "again.html").read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_a_failing_write_leaves_the_old_page(results, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def refuse(descriptor):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(UsageError, match=r"report\.html: Permission denied"):
        write_report(results, path)
    assert path.read_text() == "old"


def test_results_without_trials_write_nothing(results, tmp_path):
    with pytest.raises(UsageError, match="no finished trial"):
        write_report({**results, "trials": []}, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_durations_read_as_a_person_says_them():
    assert [duration(value) for value in (42.4, 552.4, 11_100)] == ["42 s", "9 min 12 s", "3 h 5 min"]
