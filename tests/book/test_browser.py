"""What a reader's browser finds: light and dark, wide and on a phone."""

import pytest

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
