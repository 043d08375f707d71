"""The paper's tables beside ours: what stands where, what is pooled, what is said to differ."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeback.cli.options import packaged_recipe
from spikeback.errors import UsageError
from spikeback.lab.paper.blocks import blocks, terms
from spikeback.lab.paper.formats import markdown, page
from spikeback.lab.paper.measured import Pool, differences, pool, protocol
from spikeback.lab.paper.rows import captions, references, rows
from spikeback.lab.paper.tables import measured, own_recipes, table_facts

Results = dict[str, Any]
Make = Callable[..., Results]
R18T2 = "cifar100/resnet18-t2"


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, Any]]:
    return {name: protocol(packaged_recipe(name).as_dict()) for name in own_recipes([1, 2, 3, 4])}


@pytest.fixture
def facts(known: dict[str, dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """facts(results, ...): the tables with these results, found in a, b, ..."""
    return lambda *found: table_facts(pools(*found), known)


def pools(*found: Results) -> list[Pool]:
    return pool({Path(f"{name}/results.json"): results for name, results in zip("abcdef", found, strict=False)})


def beside(facts: dict[str, Any], table: int) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows of a table that have something of ours, by (dataset, method, network, T, whether another reading)."""
    keys = ("dataset", "method", "network", "time_steps")
    listed = facts["tables"][table - 1]["rows"]
    return {(*(r[k] for k in keys), r["reading"] is not None): r["ours"] for r in listed if r["ours"]}


def test_every_row_is_of_one_table_and_every_reference_is_cited() -> None:
    assert [row.table for row in rows()] == sorted(row.table for row in rows())
    assert list(captions()) == [1, 2, 3, 4]
    assert {row.citation for row in rows()} - {None} == set(references())
    numbers = [work.number for work in references().values()]
    assert numbers == sorted(set(numbers))


def test_both_readings_follow_the_row_they_read_otherwise() -> None:
    """Tables 1 and 2 exchange two figures of CIFAR-100 (facts of the paper); each names what to trust."""
    cifar100 = [r for r in rows() if r.dataset == "CIFAR-100" and r.citation is None and r.network == "ResNet18"]
    swapped = {(r.table, r.method, r.time_steps, r.accuracy) for r in cifar100 if r.reading}
    short, evolved = "Shortcut Back-propagation", "Evolutionary Training"
    assert swapped == {(2, evolved, 2, 74.02), (2, short, 4, 74.78)}  # as in Table 1
    assert all("trusted" in r.reading for r in cifar100 if r.reading)
    for before, row in zip(rows(), rows()[1:], strict=False):
        assert row.reading is None or (before.reading is None and before.dataset == row.dataset)


def test_a_recipe_stands_for_every_own_row() -> None:
    assert own_recipes([1]) == {
        f"cifar100/resnet{depth}-t{t}": ["vanilla", "shortcut", "evolutionary"] for depth in (18, 34) for t in (2, 4)
    }
    assert own_recipes([4]) == {"cifar10-dvs/resnet18-t10": ["shortcut", "evolutionary"]}


def test_a_run_of_the_rows_recipe_is_the_same_protocol(facts: Any, row_results: Make) -> None:
    found = facts(row_results(R18T2, {"vanilla": [0.70, 0.72]}))
    (key, (line,)), = beside(found, 1).items()  # fmt: skip
    assert key == ("CIFAR-100", "Vanilla Training", "ResNet18", 2, False)
    assert (line["same_protocol"], line["differs"], line["seeds"]) == (True, [], [0, 1])
    assert (line["last_mean"], line["best_mean"]) == pytest.approx((0.71, 0.72))
    assert line["last_std"] == pytest.approx(0.01 * 2**0.5)  # sample standard deviation
    assert measured(found)
    assert not beside(found, 2)  # Table 2 has no vanilla row
    assert not any(table["unlisted"] + table["small"] for table in found["tables"])


def test_a_result_stands_in_every_table_that_has_its_row(facts: Any, row_results: Make) -> None:
    found = facts(row_results(R18T2, {"evolutionary": [0.74]}))
    key = ("CIFAR-100", "Evolutionary Training", "ResNet18", 2, False)
    assert set(beside(found, 1)) == set(beside(found, 2)) == {key}
    assert beside(found, 1)[key][0]["last_std"] is None  # one seed has no spread


def test_what_differs_is_named_with_the_recipes_value(facts: Any, row_results: Make) -> None:
    changed = {"train.epochs": 5, "model.width": 16, "data.batch_size": 64, "data.auto_augment": False}
    changed |= {"train.best_on": "test", "model.surrogate": "Triangle(gamma=1.0)", "train.precision": "bf16-mixed"}
    found = facts(row_results(R18T2, {"evolutionary": [0.5]}, **changed))
    (line,) = next(iter(beside(found, 1).values()))
    assert not line["same_protocol"]
    assert sorted(line["differs"]) == [
        "AutoAugment off (on)",
        "batch 64 (128)",
        "best chosen on test (held-out)",
        "epochs 5 (400)",
        "precision bf16-mixed (32-true)",
        "surrogate Triangle(gamma=1.0) (Tanh(k=3.0, normalised=True))",
        "width 16 (64)",
    ]


def test_how_it_was_computed_is_no_protocol(facts: Any, row_results: Make) -> None:
    """Nor are an option written out that has the default's effect, and branches where there are none."""
    changed = {"train.threads": 3, "train.doctor": 5, "data.root": "there", "data.flip": None, "model.width": 64}
    changed |= {"train.precision": "auto", "data.size": 32}  # computed in 32-true
    (line,) = next(iter(beside(facts(row_results(R18T2, {"shortcut": [0.5]}, **changed)), 1).values()))
    assert line["same_protocol"]
    taps = {"branches.taps": "block"}
    found = facts(row_results(R18T2, {"vanilla": [0.5], "shortcut": [0.5]}, **taps))
    assert [line["differs"] for (line,) in beside(found, 1).values()] == [[], ["taps block (stage)"]]


def test_machines_pool_and_the_same_trial_counts_once(facts: Any, row_results: Make) -> None:
    here = row_results(R18T2, {"vanilla": [0.70, 0.72]}, **{"data.root": "here"})
    there = row_results(R18T2, {"vanilla": [0.70, 0.72, 0.74]}, **{"data.root": "there", "train.threads": 8})
    there["trials"][1]["seconds_per_step"] = 9.0  # another machine's
    (line,) = next(iter(beside(facts(here, there), 1).values()))
    assert line["seeds"] == [0, 1, 2]
    assert line["last_mean"] == pytest.approx(0.72)
    assert line["files"] == ["a/results.json", "b/results.json"]


def test_one_seed_with_two_ends_is_an_error_that_names_both_files(row_results: Make) -> None:
    here = row_results(R18T2, {"vanilla": [0.70]})
    there = copy.deepcopy(here)
    there["trials"][0]["last_accuracy"] = 0.71
    with pytest.raises(UsageError, match=r"a/results\.json and b/results\.json both hold vanilla, seed 0"):
        pools(here, there)
    there["dataset"]["hash"] = "other samples"
    assert len(pools(here, there)) == 2


def test_runs_beside_one_row_can_be_told_apart(facts: Any, row_results: Make) -> None:
    plain = row_results(R18T2, {"vanilla": [0.70]})
    other = row_results(R18T2, {"vanilla": [0.60]}, **{"model.surrogate": "ATan(alpha=2.0)"})
    samples = copy.deepcopy(plain)
    samples["dataset"]["hash"] = "abcdef0123"
    block = blocks(facts(other, plain, samples))[0]
    cells = [row[-1] for row in block.rows if row[-1]]
    assert [cell.split()[0] for cell in cells] == ["same", "same", "other"]
    assert len(set(cells)) == 3
    assert [note.rpartition("; ")[2] for note in block.notes[:2]] == ["b/results.json", "c/results.json"]
    assert "surrogate ATan(alpha=2.0) (Tanh" in block.notes[2]


def test_another_dataset_is_in_small_below_table_1(facts: Any, row_results: Make) -> None:
    small = {"data.name": "embedded", "train.epochs": 2}
    one = row_results(R18T2, {"vanilla": [0.1], "evolutionary": [0.2]}, title="Depth: 18", **small)
    two = row_results("cifar100/resnet34-t2", {"vanilla": [0.3]}, title="Depth: 34", **small, **{"train.lr": 0.5})
    found = facts(one, two)
    assert not measured(found)
    assert [table["table"] for table in found["tables"] if table["small"]] == [1]
    block = blocks(found)[1]
    assert "in small, not comparable: embedded. Depth" in block.title
    assert "In all: epochs 2 (400)." in block.lead
    assert [(row[0], row[1], row[-1]) for row in block.rows] == [
        ("vanilla", "ResNet18", "18"),
        ("evolutionary", "ResNet18", "18"),
        ("vanilla", "ResNet34", "34 (1)"),
    ]
    assert block.notes == ["lr 0.5 (0.1)"]


def test_simulated_events_are_in_small_below_table_4(facts: Any, row_results: Make) -> None:
    simulated = {"data.name": "simulated-dvs", "model.width": 8}
    found = facts(row_results("cifar10-dvs/resnet18-t10", {"vanilla": [0.1], "evolutionary": [0.2]}, **simulated))
    assert [table["table"] for table in found["tables"] if table["small"]] == [4]
    assert "width 8 (64)" in found["tables"][3]["small"][0]["differs"]


def test_a_method_that_the_paper_did_not_train_there_is_listed_below(facts: Any, row_results: Make) -> None:
    found = facts(row_results("cifar10/resnet18-t4", {"vanilla": [0.9], "shortcut": [0.94], "evolutionary": [0.95]}))
    assert [line["method"] for line in found["tables"][1]["unlisted"]] == ["vanilla"]
    shortcut, evolved = ("Shortcut Back-propagation", True), ("Evolutionary Training", False)
    assert [(method, reading) for _, method, _, _, reading in beside(found, 2)] == [shortcut, evolved]


def test_what_has_no_place_is_shown_last(facts: Any, row_results: Make) -> None:
    found = facts(
        row_results(R18T2, {"vanilla": [0.1]}, **{"model.name": "spiking_resnet20_he"}),
        row_results(R18T2, {"Evolutionary(start=0.5)": [0.1]}),
        row_results(R18T2, {"vanilla": [0.1]}, **{"model.time_steps": 3}),
    )
    assert not any(table["small"] or table["unlisted"] for table in found["tables"])
    assert not measured(found)
    assert [(line["network"], line["time_steps"], line["method"]) for line in found["elsewhere"]] == [
        ("ResNet18", 2, "Evolutionary(start=0.5)"),
        ("ResNet18", 3, "vanilla"),
        ("spiking_resnet20_he", 2, "vanilla"),
    ]
    assert not any(line["same_protocol"] for line in found["elsewhere"])
    assert "Of no table" in blocks(found)[-1].title
    assert len(blocks(found)[-1].rows) == 3


def test_options_an_earlier_version_did_not_know_are_at_their_defaults(row_results: Make) -> None:
    results = row_results(R18T2, {"vanilla": [0.1]})
    for option in ("optimizer", "calibrate", "packed_spikes"):
        del results["config"]["train"][option]
    assert differences(pools(results)[0], protocol(packaged_recipe(R18T2).as_dict())) == {}


def test_every_figure_is_in_markdown_and_page_as_printed(facts: Any, row_results: Make) -> None:
    found = facts(row_results(R18T2, {"vanilla": [0.7]}, title="<b>mine | yours</b>", **{"train.epochs": 5}))
    words = (blocks(found), terms(found), found["references"])
    text, html = markdown(*words), page(*words)
    for row in rows():
        spread = "" if row.std is None else f" ± {row.std:.2f}"
        assert f"| {row.network} | {row.time_steps} | {row.accuracy:.2f}{spread} |" in text
        assert f"{row.accuracy:.2f}" in html
    for work in references().values():
        assert f"[{work.number}] {work.text}" in text
        assert f"[{work.number}]" in html
    assert "95.40" in text
    assert "82.00 ± 0.10" in text
    assert "<b>mine" not in html
    assert "&lt;b&gt;mine | yours" in html
    assert "<script" not in html
