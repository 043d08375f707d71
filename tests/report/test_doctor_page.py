import math
import re
from html.parser import HTMLParser

import pytest

from spikeback.report.doctor import write_diagnosis
from spikeback.report.pages.page import readable


class _Text(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(source)
        self.text = " ".join(self.text.replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(diagnosis, tmp_path_factory):
    return write_diagnosis(diagnosis(8), tmp_path_factory.mktemp("page") / "doctor.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_says_verdict_remedies_and_numbers_in_this_order(page):
    text = _Text(page).text
    said = (
        "Vanishing, by surrogate height: too low, 6 × 10⁻⁴ is left.",
        "3 of 8 blocks get more than 1 %",
        "calibrate: heights that fit.",
        "sb.calibrate(net, x) # a < b",
        "What was measured",
        "layer0",
        "Layers and weights",
        "layer7.conv.weight",
    )
    places = [text.index(sentence) for sentence in said]
    assert places == sorted(places)
    assert all(word in text for word in ("7.8 × 10⁻³", "gain, theory", "0.60", "40%", "<1%", "−2e4", "surrogate, mean"))


def test_nothing_is_fetched_and_no_script_runs(page):
    for tag, attributes in _Text(page).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "img"}
        assert not any(name.startswith("on") for name in attributes)
        assert all((attributes.get(name) or "#").startswith("#") for name in ("src", "href", "xlink:href"))
    assert "http" not in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_the_figure_follows_light_and_dark(page):
    assert "#22262b" not in page.split("</style>")[1]
    assert "currentColor" in page


@pytest.mark.slow
def test_names_and_remedies_cannot_become_markup(diagnosis, tmp_path):
    facts = diagnosis(3) | {"net": "<script>alert(1)</script>"}
    facts["blocks"][0]["name"] = facts["layers"][0]["name"] = facts["weights"][0]["name"] = "<b>$x$"
    facts["verdict"] |= {"cause": "<i>height</i>", "remedies": [dict.fromkeys(("title", "why", "code"), "<u>x</u>")]}
    page = write_diagnosis(facts, tmp_path / "doctor.html").read_text(encoding="utf-8")
    assert not re.search("<script|<b>[$]|<i>|<u>", page)
    assert "&lt;script&gt;" in page


@pytest.mark.slow
def test_a_bare_diagnosis_has_dashes_or_no_column(diagnosis, tmp_path):
    keys = ("kind", "gain", "predicted", "relu", "fidelity", "unrelated", "coherence", "descent", "participation")
    facts = diagnosis(3, **dict.fromkeys(keys)) | {"layers": [], "weights": []}
    facts["blocks"][0]["gain"], facts["blocks"][0]["gradient"] = 0.5, math.nan
    facts["verdict"] |= {"cause": "nothing is wrong.", "kind": "healthy", "remedies": []}
    page = write_diagnosis(facts, tmp_path / "doctor.html").read_text(encoding="utf-8")
    assert "None" not in page
    assert "nan" not in _Text(page).text
    assert "Healthy: nothing is wrong." in _Text(page).text
    assert "What to do" not in page
    assert "fidelity</" not in page


def test_readable_numbers_leave_names_alone():
    assert readable("left with 6.0e-04 of layer1e, 1e3 times") == "left with 6 × 10⁻⁴ of layer1e, 1 × 10³ times"
