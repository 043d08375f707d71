"""Networks broken on purpose: the verdict names what is wrong and why, and its first remedy helps."""

import re
from typing import Any

import pytest
from torch import nn

import spikeback as sb

from .broken import BROKEN, SOUND, Case, diagnosis_of, loss_after_training, net_of, treated
from .cases import assert_same, snapshot

pytestmark = pytest.mark.slow  # whoever comes first makes and diagnoses the networks

KINDS = {"healthy", "vanishing", "exploding", "dead", "saturated", "chaotic"}
cases = pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
every_case = pytest.mark.parametrize("case", [*BROKEN.values(), SOUND], ids=[*BROKEN, "sound"])


@cases
def test_kind_and_cause(case: Case) -> None:
    verdict = diagnosis_of(case).verdict
    assert verdict.kind in case.kinds, str(verdict)
    assert re.search(case.cause, verdict.cause, re.IGNORECASE), verdict.cause


def test_sound_net_is_healthy() -> None:
    diagnosis = diagnosis_of(SOUND)
    assert diagnosis.verdict.kind == "healthy", str(diagnosis.verdict)
    blocks = diagnosis.as_dict()["blocks"]
    assert diagnosis.verdict.effective_depth == len(blocks)
    assert {block["kind"] for block in blocks} == {"healthy"}


@every_case
def test_text_begins_with_the_kind(case: Case) -> None:
    diagnosis = diagnosis_of(case)
    verdict, found = diagnosis.verdict, diagnosis.as_dict()["verdict"]
    assert str(verdict).startswith(verdict.kind)
    assert (found["kind"], found["cause"]) == (verdict.kind, verdict.cause)
    assert found["effective_depth"] == verdict.effective_depth
    assert found["text"].startswith(verdict.kind)


@every_case
def test_every_block_has_a_kind(case: Case) -> None:
    diagnosis = diagnosis_of(case)
    kinds = [block["kind"] for block in diagnosis.as_dict()["blocks"]]
    assert set(kinds) <= KINDS
    assert diagnosis.verdict.kind in kinds


def test_a_dead_block_never_fires() -> None:
    """The whole of a net whose threshold nothing reaches is dead, and a dead block has no spike."""
    blocks = diagnosis_of(BROKEN["threshold too high"]).as_dict()["blocks"]
    assert {block["kind"] for block in blocks} == {"dead"}
    for case in BROKEN.values():
        dead = [block for block in diagnosis_of(case).as_dict()["blocks"] if block["kind"] == "dead"]
        assert all(block["rate"] < 0.01 for block in dead)


@every_case
def test_effective_depth_by_its_definition(case: Case) -> None:
    """Blocks, counted from the output, that still receive more than 1 % of the last one's gradient."""
    diagnosis = diagnosis_of(case)
    gradients = [block["gradient"] for block in diagnosis.as_dict()["blocks"]][::-1]
    enough = [g > 0.01 * gradients[0] for g in gradients]
    row = enough.index(False) if False in enough else len(enough)
    assert diagnosis.verdict.effective_depth in {row, sum(enough)}  # in a row, or in all: the same where it vanishes
    if diagnosis.verdict.kind == "vanishing":
        assert row < len(gradients)


@cases
def test_remedies_say_what_why_and_how(case: Case) -> None:
    diagnosis = diagnosis_of(case)
    remedies = diagnosis.verdict.remedies
    assert remedies
    for remedy, found in zip(remedies, diagnosis.as_dict()["verdict"]["remedies"], strict=True):
        assert {key: found[key] for key in ("title", "why", "code")} == {
            "title": remedy.title,
            "why": remedy.why,
            "code": remedy.code,
        }
        assert all(isinstance(text, str) and text.strip() for text in found.values())


def sick_over_last(net: nn.Module, case: Case, block: int) -> float:
    """Gradient of the block over the last one's, on images that neither verdict nor remedy has seen."""
    weight = 0.25 if isinstance(net, sb.ShortcutNet) else 0.0
    blocks: list[dict[str, Any]] = sb.diagnose(net, *case.data(4096, 128), weight=weight, passes=()).as_dict()["blocks"]
    return blocks[block]["gradient"] / blocks[-1]["gradient"]


def test_first_remedy_brings_a_vanished_gradient_back() -> None:
    case = BROKEN["surrogate too low"]
    kinds = [block["kind"] for block in diagnosis_of(case).as_dict()["blocks"]]
    sick = kinds.index("vanishing")
    net, remedy = treated(case)
    assert sick_over_last(net, case, sick) > 5 * sick_over_last(net_of(case), case, sick), remedy.title


@cases
def test_first_remedy_lowers_the_loss_after_some_steps(case: Case) -> None:
    net, remedy = treated(case)
    assert isinstance(net, nn.Module)
    rate = getattr(remedy, "lr", None) or 0.1
    assert loss_after_training(net, case, rate) < loss_after_training(net_of(case), case), remedy.title


@cases
def test_verdicts_leave_the_net_alone(case: Case) -> None:
    net = net_of(case)
    before = snapshot(net)
    diagnosis = sb.diagnose(net, *case.data(0, 64), passes=())
    str(diagnosis.verdict)
    assert_same(before, snapshot(net))
