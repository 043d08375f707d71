"""Every measured figure in the prose of README and docs is in a file of results that its section links to, to the last
digit. Tables are made of these files (scripts/tables_in_docs.py).

A section is what stands under one heading; it has its own links, those of the headings above it, and those of the pages
it links to. Rules (`unmeasured`) tell names, settings, and counts up to 9. The few other figures that no file holds are
in numbers_in_docs.toml, by the words around them. `Evidence` has the figures of a file.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest

from .figures import PAPER, SCALES, SUPERSCRIPTS, evidence, prints

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXCEPTIONS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("numbers_in_docs.toml").read_text())

DIGITS = r"(?<![\w.\-])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])"
POWER = "10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+"
N = rf"(?:{DIGITS} [×·] {POWER}|(?<![\w.]){POWER}|{DIGITS})"
UNIT = r"\s?(?:%|points?\b|times\b|ms\b|s\b|minutes\b|hours\b|MB\b|GB\b|tests\b)"
GROUPS = re.compile(
    rf"(?P<pair>{N}\s±\s{N})"
    rf"|(?P<triple>{N}(?:\s\(|,\s){N}\s(?:-|–|to)\s{N})"
    rf"|(?<!from\s)(?P<range>{N}\s(?:-|–|to)\s{N}(?=\s?%|\spoints|\stimes))"
    rf"|(?P<single>{N}(?:\s(?:to|and|or)\s{N})*)"
)
SYMBOL = r"\b(?:[TKkaiCIBL]|V_th|lambda|gamma)(?: =)?"
NOUN = (
    r"\b(?:Eqs?\.|Tables?|Figures?|schema|Python|AEDAT|width|batch|batches\sof|threshold|quality|Cutout|seeds?|epochs?"
    r"|SGD|Adam|weight|ResNet-\d+\s(?:and|,))"
)
LAYERS = rf"(?:{DIGITS}(?:,|\sand|\sor)?\s)+layers\b"
SETTING = rf"{LAYERS}|(?:{SYMBOL}|{NOUN})\s{DIGITS}(?:\s(?:and|to|or)\s{DIGITS})*(?!{UNIT}|\s[±×])"
YEAR = r"(?<=[A-Za-z]\s)(?:19|20)\d\d\b(?!,)"


@dataclass(frozen=True)
class Paragraph:
    """With the files that it links to, else its section and those above it."""

    page: Path
    line: int
    text: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Number:
    """Numbers of the text that belong together (figures.Figure), with what stands around them."""

    at: int
    end: int
    how: str
    numbers: tuple[str, ...]
    units: tuple[str, ...]  # its own; without one of its own, also the one before it


def blank(pattern: str, text: str) -> str:
    """Matches become spaces: positions and lines stay."""
    return re.sub(pattern, lambda match: re.sub(r"[^\n]", " ", match.group()), text, flags=re.M | re.S)


@cache
def headings(page: Path) -> list[tuple[int, str, str]]:
    """Level, title and text (without code) of every section of a page; the first may have no title."""
    text = blank(r"^```.*?^```$|(?<=\n\n)(?: {4}[^\n]*\n)+|<!--.*?-->", page.read_text("utf-8"))
    parts = re.split(r"^(?=#{1,6} )", text, flags=re.M)
    heads = [re.match(r"(#+) (.*)", part) for part in parts]
    return [(len(h[1]) if h else 0, h[2] if h else "", part) for h, part in zip(heads, parts, strict=True)]


def anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def above(page: Path, title: str) -> str:
    """Text of a section and of those that it is part of."""
    heads: list[tuple[int, str, str]] = []
    for head in headings(page):
        heads = [*(other for other in heads if other[0] < head[0]), head]
        if anchor(head[1]) == anchor(title):
            break
    return "".join(text for _, _, text in heads)


@cache
def links(page: Path, text: str, follow: bool = True) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files of results that a text links to, and those that other pages it links to (or their sections) link to."""
    targets = [target.partition("#") for target in re.findall(r"\]\(([^):]+)\)", text)]
    paths = [(page.parent / path if path else page, at) for path, _, at in targets]
    direct = tuple(path.resolve() for path, _ in paths if path.suffix == ".json")
    pages = [(path, at) for path, at in paths if path.suffix == ".md" and path != page and follow and path.is_file()]
    texts = [(path, above(path, at) if at else path.read_text()) for path, at in pages]
    return direct, tuple(file for path, other in texts for file in links(path, other, follow=False)[0])


@cache
def paragraphs(page: Path) -> list[Paragraph]:
    found, line = [], 1
    for _, title, section in headings(page):
        direct, others = links(page, above(page, title))
        for text in re.split(r"(?<=\n\n)", section):
            near = links(page, text)
            paper = (PAPER,) if re.search("paper|published", section) else ()
            found.append(Paragraph(page, line, text, (near[0] + near[1] or direct or others) + paper))
            line += text.count("\n")
    return found


def unmeasured(paragraph: Paragraph, exceptions: Iterable[str]) -> str:
    """The text without tables and without numbers that are no measurement."""
    text = blank(r"^\|.*$", paragraph.text)
    for exception in exceptions:
        if exception.split()[0] in text:
            text = blank(r"\s+".join(map(re.escape, exception.split())), text)
    text = blank(r"(?<=\])\([^)\s]*\)|`[^`]*`", text)
    return blank(SETTING, blank(YEAR, text))


def measured(paragraph: Paragraph, exceptions: Iterable[str]) -> Iterator[Number]:
    text, before = unmeasured(paragraph, exceptions), ""
    for match in GROUPS.finditer(text):
        how, at = str(match.lastgroup), match.start()
        unit = re.match(UNIT, text[match.end() :])
        unit = unit.group().strip() if unit else ""
        numbers = tuple(re.findall(N, match.group()))
        if how == "single":  # of whole numbers those with a unit, and where results are reported those of two digits
            files = set(paragraph.files) - {PAPER}
            keep = [re.search(r"[.⁻]", number) or unit or (files and len(number) > 1) for number in numbers]
            numbers = tuple(number for number, kept in zip(numbers, keep, strict=True) if kept)
        if numbers:
            yield Number(at, match.end(), how, numbers, ("", before) if how == "single" and not unit else (unit,))
        before = unit or before


@cache
def missing(number: Number, files: tuple[Path, ...]) -> list[str]:
    """Those of the numbers that no file holds: any of them by itself, of those that belong together all or none."""
    scales = {"share": 100, "part": 1, "raw": 1} if number.how == "pair" else SCALES.get(number.units[0], SCALES[""])
    figures = [figure for file in files for figure in evidence(file) if figure.how == number.how]

    def printed(values: tuple[float, ...], kind: str, texts: tuple[str, ...]) -> bool:
        if number.how == "single" and not number.units[0] and texts[0].replace(",", "").isdigit() and kind != "count":
            return False  # a whole number without a unit counts something
        return all(prints(scales[kind] * value, text) for value, text in zip(values, texts, strict=True))

    some = [(text,) for text in number.numbers] if number.how == "single" else [number.numbers]
    wrong = [
        text
        for texts in some
        if not any(f.kind in scales and printed(f.values, f.kind, texts) for f in figures)
        for text in texts
    ]
    again = replace(number, numbers=tuple(wrong), units=number.units[1:])
    return missing(again, files) if wrong and again.units else wrong


def unsupported(paragraph: Paragraph, exceptions: Iterable[str]) -> list[str]:
    text, page = paragraph.text, paragraph.page.name
    return [
        f"{page}:{paragraph.line + text.count(chr(10), 0, number.at)}: {', '.join(wrong)} "
        f"in “{' '.join(text[max(0, number.at - 30) : number.end + 20].split())}”"
        for number in measured(paragraph, exceptions)
        if (wrong := missing(replace(number, at=0, end=0), paragraph.files))
    ]


def exceptions_of(page: Path) -> tuple[str, ...]:
    return tuple(EXCEPTIONS.get(str(page.relative_to(ROOT)), ()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_measured_figure_is_in_a_file_that_its_section_links_to(page: Path) -> None:
    wrong = [line for paragraph in paragraphs(page) for line in unsupported(paragraph, exceptions_of(page))]
    assert not wrong, "\n".join(["in no linked file of results:", *wrong])


def test_every_exception_stands_on_its_page() -> None:
    for page, exceptions in EXCEPTIONS.items():
        text = " ".join((ROOT / page).read_text().split())
        assert not [words for words in exceptions if text.count(words) != 1], f"stale, or not unique: {page}"


def mutants(paragraph: Paragraph) -> Iterator[tuple[str, Paragraph]]:
    """What was changed, and the paragraph with one number changed by a unit of its last digit, up or down."""
    text = paragraph.text
    for found in measured(paragraph, ()):
        for number in re.finditer(N, text[found.at : found.end]):
            if number.group() not in found.numbers:
                continue
            at, end = found.at + number.start(), found.at + number.end()
            for new in neighbours(number.group()):
                name = f"{paragraph.page.name}: {number.group()} -> {new} in {text[max(0, at - 40) : at + 30]!r}"
                yield name, replace(paragraph, text=text[:at] + new + text[end:])


def neighbours(number: str) -> Iterator[str]:
    """1.10 -> 1.11, 1.09; of a power of ten alone, the exponent."""
    if number[-1] in "⁻" + SUPERSCRIPTS and not re.search("[×·]", number):
        digit = SUPERSCRIPTS.index(number[-1])
        yield from (number[:-1] + SUPERSCRIPTS[other] for other in (digit - 1, (digit + 1) % 10))
        return
    digits, rest = re.fullmatch(r"([\d,.]+)(.*)", number).groups()  # pyright: ignore[reportOptionalMemberAccess]
    value = Decimal(digits.replace(",", ""))
    unit = Decimal((0, (1,), int(value.as_tuple().exponent)))
    for new in (value + unit, value - unit) if value else (value + unit,):
        yield f"{new:{',' if ',' in digits else ''}}" + rest


@pytest.mark.slow
def test_a_changed_digit_is_noticed() -> None:
    """In prose mostly: a figure of two digits, one up or down, can be another figure of the same file."""
    changed = [
        (name, bool(unsupported(mutant, exceptions_of(page))))
        for page in PAGES
        for paragraph in paragraphs(page)
        for name, mutant in mutants(paragraph)
    ]
    missed = [name for name, noticed in changed if not noticed]
    assert len(missed) <= 0.15 * len(changed), "\n".join([f"{len(missed)} of {len(changed)} go unnoticed:", *missed])
