"""What a reader's browser finds: light and dark, wide and on a phone."""

import json
from pathlib import Path

import pytest

WIDE = Path(__file__).with_name("wide_displays.json")
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

AMISS = {
    "console": "an error in the console",
    "failed": "a request that failed",
    "foreign": "a request that leaves the site",
    "mathErrors": "a formula that MathJax refused",
    "rawMath": "a formula that was not rendered",
    "rawRoles": "a role that was not rendered",
    "shut": "a fold that does not open",
    "axeLight": "a serious accessibility fault, light",
    "axeDark": "too little contrast, dark",
    "cut": "something wider than a phone that does not scroll",
    "unreachable": "something that scrolls and cannot be reached by keyboard",
    "hiddenNumbers": "a formula's number that is cut off, or on the formula",
    "strays": "a comma that begins a line after a short formula",
    "ligatures": "code with ligatures",
    "unprinted": "a fold that stays shut on paper",
}


@pytest.mark.parametrize("key", AMISS)
def test_nothing_amiss(browsed, key):
    assert not [f"{v['page']}: {AMISS[key]}: {v[key]}" for v in browsed["visits"] if v[key]]


def test_phone_pages_do_not_scroll_sideways(browsed):
    assert not [f"{v['page']}: {v['overflow']} px" for v in browsed["visits"] if v["overflow"] > 0]


def test_every_formula_is_rendered(browsed):
    for v in browsed["visits"]:
        assert v["formulas"] >= v["sources"], v["page"]
    assert sum(v["formulas"] for v in browsed["visits"]) > 200


def test_dark_follows_the_system_and_the_choice_is_remembered(browsed):
    assert browsed["theme"] == {"followed": "dark", "remembered": "light"}


def test_an_arrow_key_shows_another_frame_with_scripts_and_without(browsed):
    moving = [v for v in browsed["visits"] if v["hasFrames"]]
    assert moving
    for v in moving:
        for before, after, count in v["frames"].values():
            assert after == [(before[0] + 2) % count], v["page"]


def test_panels_stand_side_by_side_and_stack_on_a_phone(browsed):
    cells = [pair for v in browsed["visits"] for pair in zip(v["panelsWide"], v["panelsPhone"], strict=True)]
    assert cells
    for wide, phone in cells:
        assert len(wide) >= 2
        assert wide[0][0] < wide[1][0], "not side by side"
        assert len({left for left, _, _ in phone}) == 1, "not stacked"
        assert sorted(top for _, top, _ in phone) == [top for _, top, _ in phone]


def test_figures_sit_on_the_paper_of_the_page(browsed):
    for v in browsed["visits"]:
        assert set(v["paperLight"]) <= {"false multiply false", "true multiply false"}, v["page"]
        assert set(v["paperDark"]) <= {"false screen true", "true normal false"}, v["page"]


def test_no_more_displays_are_wider_than_a_phone_than_are_listed(browsed):
    """Outside proofs formulas break at their relation signs; those that do not yet are listed, and no more."""
    listed = json.loads(WIDE.read_text("utf8"))
    for v in browsed["visits"]:
        new = set(v["wide"]) - set(listed.get(v["page"], []))
        assert not new, f"{v['page']}: wider than 390 px: {sorted(new)}"
