"""The built pages as files: links, anchors, assets, alternative texts, numbers, search."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from implicitreg import ledger, runbook

THEME_PAGES = ("search.html", "genindex.html", "py-modindex.html")


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.assets: list[str] = []
        self.images: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if a.get("id"):
            self.ids.append(a["id"])
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
        if tag in ("script", "img", "source", "iframe", "video") and a.get("src"):
            self.assets.append(a["src"])
        if tag == "link" and a.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.assets.append(a["href"])
        if a.get("role") == "img":  # a frame: its words stand around its pictures
            self.images.append(("frame", a.get("aria-label", "")))
        if tag == "img" and not (a.get("alt") == "" and a.get("src", "").startswith("data:image/svg+xml")):
            self.images.append((a.get("src", ""), a.get("alt") or ""))


@pytest.fixture(scope="session")
def parsed(html, pages):
    return {p: Page((html / p).read_text("utf8")) for p in pages}


def test_links_and_anchors_resolve(html, parsed):
    dead = []
    for name, page in parsed.items():
        for href in page.links:
            u = urlsplit(href)
            if u.scheme or href.startswith("//"):
                continue
            target = ((html / name).parent / unquote(u.path)).resolve() if u.path else (html / name).resolve()
            key = target.relative_to(html).as_posix()
            if not target.exists():
                dead.append(f"{name}: {href}")
            elif u.fragment and key in parsed and name not in THEME_PAGES:
                dead += [f"{name}: anchor {href}"] * (unquote(u.fragment) not in parsed[key].ids)
    assert not dead


def test_assets_are_local_and_there(html, parsed):
    wrong = []
    for name, page in parsed.items():
        for source in page.assets:
            u = urlsplit(source)
            if u.scheme in ("http", "https") or source.startswith("//"):
                wrong.append(f"{name}: {source} comes from the network")
            elif u.scheme != "data" and not ((html / name).parent / unquote(u.path)).exists():
                wrong.append(f"{name}: {source} is missing")
    assert not wrong


def test_images_say_what_they_show(parsed):
    for name, page in parsed.items():
        for source, alt in page.images if name not in THEME_PAGES else []:
            assert len(alt) > 20, f"{name}: {source[-50:]} has the alternative text {alt!r}"
            assert "_images/" not in alt
            assert " | " not in alt, f"{name}: {source[-50:]} has the texts of several panels: {alt!r}"


class Words(HTMLParser):
    """The text of paragraphs and items, without code and formulas."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.left_out, self.found = 0, []
        self.feed(re.sub(r"\\\(.*?\\\)|\\\[.*?\\\]", "", text, flags=re.S))

    def handle_starttag(self, tag, _):
        self.left_out += tag in ("pre", "code", "script", "style", "title")

    def handle_endtag(self, tag):
        self.left_out -= tag in ("pre", "code", "script", "style", "title")

    def handle_data(self, data):
        self.found += [data] * (not self.left_out)


def stray(text):
    """The places where an asterisk is left of an emphasis that is none."""
    words = "".join(Words(text).found)
    return [words[max(0, m.start() - 40) : m.end() + 40] for m in re.finditer(r"\*", words)]


def test_no_asterisk_is_left_of_an_emphasis(html):
    chapters = [path.relative_to(runbook.ROOT).with_suffix(".html") for path in runbook.chapters()]
    assert {name.name: found for name in chapters if (found := stray((html / name).read_text("utf8")))} == {}


def test_control_a_stray_asterisk_is_seen():
    assert stray("<p>So <em>this</em>. * The rest at least* that, <code>2 * 3</code>, \\(a*b\\)</p>") == [
        "So this. * The rest at least* that, , ", "So this. * The rest at least* that, , ",
    ]  # fmt: skip


def test_ids_are_unique(parsed):
    for name, page in parsed.items():
        if name not in THEME_PAGES:
            assert len(page.ids) == len(set(page.ids)), (
                f"{name}: {sorted({i for i in page.ids if page.ids.count(i) > 1})}"
            )


def test_theorems_equations_figures_exercises_are_numbered_by_the_place_in_the_contents(html):
    for number, notebook in enumerate(runbook.chapters(), 1):
        path = html / notebook.relative_to(runbook.ROOT).with_suffix(".html")
        text = path.read_text("utf8")
        for pattern in (
            rf"<h1>{number} · ",
            rf"(Theorem|Proposition) {number}\.1",
            rf"\\tag\{{{number}\.1\}}",
            rf"Figure {number}\.1",
            rf"Exercise {number}\.1",
        ):
            assert re.search(pattern, text), f"{path.name}: nothing matches {pattern}"


def test_the_ledgers_page_has_every_claim_and_a_section_a_chapter(html):
    text = (html / "book/appendix/claims.html").read_text("utf8")
    for claim in ledger.claims():
        assert claim.id in text
    for chapter in runbook.chapters():
        page = (html / chapter.relative_to(runbook.ROOT).with_suffix(".html")).read_text("utf8")
        (anchor,) = set(re.findall(r'href="[^"]*claims\.html#(claims-[\w-]+)"', page))
        assert f'id="{anchor}"' in text


def test_previous_and_next_lead_through_the_book(html):
    text = (html / "book/1-flow/01_min_norm.html").read_text("utf8")
    assert 'class="right-next"' in text
    assert 'class="left-prev"' in text


def test_search_knows_the_book(html):
    index = (html / "searchindex.js").read_text("utf8")
    assert "kaczmarz" in index
    assert "minimum-norm interpolator" in index.lower()


def test_no_machine_path_on_any_page(html, pages):
    for p in pages:
        assert not re.search(r"/(home|root|Users|tmp|work)/", (html / p).read_text("utf8")), p


def test_api_page_has_every_public_function(html):
    import importlib
    import inspect

    text = (html / "book/appendix/api.html").read_text("utf8")
    modules = re.findall(r'id="module-(implicitreg[\w.]*)"', text)
    assert len(modules) >= 10
    for name in modules:
        module = importlib.import_module(name)
        for function in getattr(module, "__all__", vars(module)):
            value = getattr(module, function)
            ours = getattr(value, "__module__", None) == name and callable(value) and not function.startswith("_")
            if ours and inspect.isroutine(value):
                assert f'id="{name}.{function}"' in text, f"{name}.{function} is missing or has no docstring"
