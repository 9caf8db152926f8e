"""Each link, record and law that the documentation names exists."""

from __future__ import annotations

import collections
import pathlib
import re

import pytest

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGES.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "export").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    ROOT / "tests" / "README.md",
]


def unfenced(page: pathlib.Path) -> str:
    """Return the text of the page without its fenced blocks of code."""
    return re.sub(
        r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )


def prose(page: pathlib.Path) -> str:
    """Return the text of the page without any code."""
    return re.sub(r"`[^`]*`", "", unfenced(page))


def anchors(page: pathlib.Path) -> set[str]:
    """Return the anchors of the page's headings, as GitHub names them."""
    seen: collections.Counter[str] = collections.Counter()
    found = set()
    for title in re.findall(r"^#+ +(.+)$", unfenced(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(page: pathlib.Path) -> list[str]:
    """Return the targets of the page's links and images that are not web addresses."""
    pattern = r"\]\(([^)\s]+)\)|^ *\[[^\]]+\]: *(\S+)"
    targets = re.findall(pattern, prose(page), re.MULTILINE)
    targets = [inline or reference for inline, reference in targets]
    return [t for t in targets if not re.match(r"https?:|mailto:", t)]


def broken(page: pathlib.Path) -> list[str]:
    """Return the links of the page that lead nowhere."""
    wrong = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


def missing_records(page: pathlib.Path, root: pathlib.Path = ROOT) -> list[str]:
    """Return the records of the page's `numbers:` comments that are not there."""
    comments = re.findall(r"<!-- numbers: (.+?) -->", prose(page), re.DOTALL)
    records = [name.strip() for each in comments for name in each.split(",")]
    return [name for name in records if not any(root.glob(name))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_names_exists(page):
    assert broken(page) == []
    assert missing_records(page) == []


def test_every_page_of_docs_is_listed():
    index = ROOT / "docs" / "README.md"
    pages = {page.name for page in index.parent.glob("*.md")} - {index.name}
    assert pages <= set(links(index))


def test_every_test_is_on_the_map():
    folder = ROOT / "tests"
    listed = set(links(folder / "README.md"))
    assert {path.name for path in folder.glob("test_*.py")} <= listed


def test_cited_laws_are_written():
    written = re.findall(r"^## Law (\d+):", (ROOT / "docs/laws.md").read_text(), re.M)
    assert written == [str(number) for number in range(1, len(written) + 1)]
    sources = [p for d in ("tests", "keras_tickets") for p in (ROOT / d).rglob("*.py")]
    cited = {
        law for p in sources for law in re.findall(r"\b[Ll]aw (\d+)", p.read_text())
    }
    assert cited
    assert cited <= set(written)


def test_planted_faults_are_seen(tmp_path):
    (tmp_path / "other.md").write_text(
        "# A `code`, and more\n## Twice\n## Twice\n```\n# not a title\n```\n"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n"
        "[a](other.md#a-code-and-more) [b](#here) [c](other.md#twice-1)\n"
        "[d\ne](other.md)\n"
        "[f](https://example.org/none.md) `[g](none.md)` [h](./)\n"
        "```\n[i](none.md)\n```\n"
        "[j](none.md) [k](#none) [l](other.md#not-a-title) ![m](none.svg)\n"
        "[n](other.md#twice-2) [`o`](none/)\n"
        "[p]: none.txt\n"
        "<!-- numbers: none.json, oth*.md --> `<!-- numbers: code.json -->`\n"
    )
    assert broken(page) == [
        *("none.md", "#none", "other.md#not-a-title", "none.svg"),
        *("other.md#twice-2", "none/", "none.txt"),
    ]
    assert missing_records(page, tmp_path) == ["none.json"]
