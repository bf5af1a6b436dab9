"""The checker of the documentation: a page with a fault is reported, the same page without it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools.docs_check import anchors, broken_links, known_names, moved_places, unknown_names

if TYPE_CHECKING:
    from pathlib import Path


def problems(folder: Path, text: str) -> list[str]:
    """What is wrong with a page of that text beside `other.md`, which has the heading "What it costs"."""
    page = folder / "page.md"
    page.write_text(text)
    (folder / "other.md").write_text("# Other\n\n## What it costs: a `lot`\n")
    return list(broken_links(page, text, folder))


@pytest.mark.parametrize(
    "link", ["other.md", "other.md#what-it-costs-a-lot", "#here", "/other.md", "https://example.org/none", "./"]
)
def test_a_link_that_leads_somewhere_passes(tmp_path: Path, link: str) -> None:
    """A relative link to a file or a heading that exists, and any address outside, is no problem."""
    assert problems(tmp_path, f"# Here\n\nSee [it]({link}).\n") == []


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("absent.md", "no such file"),
        ("other.md#what-it-cost", "no such heading"),
        ("#elsewhere", "no such heading"),
        ("../outside.md", "leaves the project"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, link: str, problem: str) -> None:
    """
    A link to a file or heading that does not exist, or out of the project, is reported with the
    reason, in every form.
    """
    assert problems(tmp_path, f"# Here\n\nSee [it]({link}).\n") == [f"{link}: {problem}"]
    assert problems(tmp_path, f'# Here\n\n[![x]({link})](other.md) [it]: <img src="{link}">\n') == [
        f"{link}: {problem}" for _ in "ab"
    ]
    assert problems(tmp_path, f"# Here\n\n[it]: {link}\n") == [f"{link}: {problem}"]


def test_code_is_not_read_as_links(tmp_path: Path) -> None:
    """What stands in a fence or in backticks is an example, not a link."""
    assert problems(tmp_path, "# Here\n\n```md\n[it](absent.md)\n```\n\n`[it](absent.md)`\n") == []


def test_headings_of_the_same_words_get_numbered_anchors() -> None:
    """The second heading of the same words has `-1` at its anchor, as GitHub forms them; a fence holds no headings."""
    assert anchors("# A b\n## A b\n```\n# c\n```\n") == {"a-b", "a-b-1"}


def test_a_name_that_is_never_emitted_is_named() -> None:
    """A metric name in backticks that is neither ours nor the conventions' is reported; the right spelling is not."""
    known = known_names()
    right = "`db.client.connection.count` `poolscope.connection.*` `poolscope.core.guard` `poolscope.semconv.METRICS`"
    assert list(unknown_names(right, known)) == []
    wrong = list(
        unknown_names("`db.client.connection.counts` `poolscope.pool.nothing` `poolscope.core.nothing`", known)
    )
    assert len(wrong) == 3
    assert "`poolscope.pool.nothing`" in wrong[1]


def test_names_of_before_may_be_gone() -> None:
    """In a table of what was renamed, the first column has names that are gone; the second one has not."""
    table = (
        "| before | now |\n| --- | --- |\n| `poolscope.old` | `poolscope.pool.limit` |\n| `A` | `poolscope.gone` |\n"
    )
    assert list(unknown_names(table, known_names())) == [
        "`poolscope.gone`: no such metric, span, event, attribute or module"
    ]
    assert list(unknown_names("| `poolscope.old` | `poolscope.pool.limit` |\n", known_names())) != []


def test_a_line_of_the_shop_that_has_moved_is_named(tmp_path: Path) -> None:
    """A sample has a line of the function that it names, also over a line's end; a shop that is not ours may be any."""
    shop = tmp_path / "examples" / "shop"
    shop.mkdir(parents=True)
    (shop / "app.py").write_text(
        "class Till:\n    def pay(self):\n        return 1\n\n\nasync def cart():\n    return 2\n"
    )
    right = "at examples/shop/app.py:3 in Till.pay; shop/app.py:7 in\n     cart.<locals>.<genexpr>, shop/db.py:1 in get"
    assert list(moved_places(right, tmp_path)) == []
    assert list(moved_places("at shop/app.py:3 in cart", tmp_path)) == ["shop/app.py:3: not in cart"]
