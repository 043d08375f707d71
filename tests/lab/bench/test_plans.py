import inspect
from collections.abc import Callable
from pathlib import Path

from spikeback.lab.bench.command import ALONE
from spikeback.lab.bench.plans import PEERS, Plan
from spikeback.lab.bench.worker import find

MakePlan = Callable[..., Plan]


def test_every_arm_can_be_called_as_planned(bench: str, plan: MakePlan) -> None:
    for arm in plan(bench).arms:
        assert isinstance(arm.options, dict)
        signature = inspect.signature(find(arm.factory))
        signature.bind(**arm.options)
        signature.bind(**arm.options | (arm.small or {}))


def test_what_is_compared_is_there_under_one_name(bench: str, plan: MakePlan) -> None:
    for bf16 in (False, True):
        for peers in (None, Path("python")):
            made = plan(bench, bf16, peers)
            names = [arm.name for arm in made.arms]
            assert len(set(names)) == len(names)
            assert {name for comparison in made.comparisons for name in comparison.names} <= set(names)
            assert made.comparisons


def test_what_is_compared_runs_in_one_race(bench: str, plan: MakePlan) -> None:
    made = plan(bench)
    races = [{arm.name for arm in arms} for arms in made.races()]
    assert sorted(name for names in races for name in names) == sorted(arm.name for arm in made.arms)
    for comparison in made.comparisons:
        assert sum(set(comparison.names) <= names for names in races) == 1


def test_what_is_left_out_is_said(bench: str, plan: MakePlan) -> None:
    whole, little = plan(bench), plan(bench, bf16=False, peers=None)
    assert [note for note in whole.notes if note.startswith("no ")] == []
    assert "no bf16 arms: this processor does not compute in bfloat16" in little.notes
    assert not [arm for arm in little.arms if "bf16" in arm.name or arm.python or arm.name.startswith(PEERS)]
    assert any(note.startswith("no peers") for note in little.notes) is (bench not in ALONE)


def test_a_floor_an_ann_and_all_peers_are_beside_a_step(plan: MakePlan) -> None:
    made = plan("step")
    arms = {arm.name: arm for arm in made.arms}
    for precision in ("float32", "bf16"):
        ours, ann = arms[f"ours {precision}"].options, arms[f"ann {precision}"].options
        assert ann["batch"] == ours["time_steps"] * ours["batch"]
        floor, direct = (arms[f"{kind} {precision}"].options for kind in ("floor", "direct floor"))
        assert floor["precision"] == precision
        assert direct == floor | {"within": "spikeback.nn:plain"}
        assert {f"{peer} best {precision}" for peer in PEERS} <= set(arms)
    stock = arms["spikingjelly stock"]
    assert (stock.allocator, stock.options["layout"], "precision" in stock.options) == ("stock", "contiguous", False)


def test_branches_are_compared_with_none_in_the_same_network(plan: MakePlan) -> None:
    made = plan("branches", bf16=False)
    arms = {arm.name: arm.options for arm in made.arms}
    assert len(arms) == 2 * 3
    for comparison in made.comparisons:
        of, to = (arms[name] for name in comparison.names)
        assert to["net"].endswith(":ours")
        assert of["net"].endswith(":shortcut")
        assert of["arguments"] == to["arguments"] | {"taps": of["arguments"]["taps"]}
    keys = [comparison.key for comparison in made.comparisons]
    assert keys.count("seconds") == keys.count("peak_bytes") == 2 * 2


def test_on_a_gpu_there_are_compiled_arms_and_none_of_the_processors_convolutions(plan: MakePlan) -> None:
    made = plan("step", device="cuda")
    names = {arm.name: arm for arm in made.arms}
    for name in ("ours, compiled bf16", "spikingjelly compiled float32"):
        assert names[name].options["compiled"] == "reduce-overhead"
        assert names[name].options["layout"] == "channels_last"
    assert not any("direct" in name for name in names)
    assert not any(hasattr(c, "most") and (c.most or c.least) for c in made.on_gpu().comparisons)  # pyright: ignore
    assert {name for comparison in made.comparisons for name in comparison.names} <= names.keys()
