"""
One word for each thing: what a person reads has no word of the old vocabulary.

The test reads Markdown pages without their code, the comments of YAML files, and the comments, docstrings and texts of
Python files. A text without a space is an identifier, and a word in backticks is a name; neither is checked. The words
in use are in the glossary of docs/architecture.md.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tools.docs_check import FENCE, INLINE_CODE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]


class Word(NamedTuple):
    """
    A word that is not used any more.

    Args:
        pattern: A regular expression; it matches whole words only, in any case.
        instead: What to write.
    """

    pattern: str
    instead: str


WORDS: Final = (
    Word(r"cures?|cured|curing", "fix"),
    Word(r"verdicts?", "cause"),
    Word(r"judges?|judged|judging", "diagnose, decide"),
    Word(r"blame (report|dump)s?", "exhaustion report"),
    Word(r"(is|are|not) to blame", "the cause"),
    Word(r"in vain", "timed out, failed"),
    Word(r"(stands?|stood) (at|now|in the way|there|at this moment)", "is currently executing; blocks"),
    Word(r"(where|how) \w+( \w+)? stands?", "is currently executing; the state of"),
    Word(r"(give|gives|gave|given|giving)( it| them| what it holds)? back", "return"),
    Word(r"lends?|lent|lending|loans?|loaned", "hold, hand over"),
    Word(r"askers?|who asks", "waiter"),
    Word(r"(an|the|each|every) ask|asks (a|per) second", "checkout, pending checkout"),
    Word(r"(ask|asks|asked|asking) for (a|an|another|the|the other|a second|its) (connection|one)", "check out"),
    Word(r"check-(in|out)s?", "checkout and checkin; as verbs: check out, check in"),
    Word(r"ledgers?", "pool registry"),
    Word(r"(some|no|every)body(?! else)", "say who: a request, a caller, the application"),
    Word(r"told (of|by|apart)|tells? (of|them|apart)|it tells|(is|are) told", "report; distinguish"),
    Word(r"asleep", "dormant"),
    Word(r"(is|are|was|were|be|been) (still )?out(?! of)", "is checked out, is still held"),
    Word(r"(task|thread|request|unit of work|job) (that )?is over", "has finished"),
    Word(r"garbage collector came", "was garbage-collected"),
    Word(r"passages?", "work scope"),
    Word(r"trails?", "packed stack"),
    Word(r"leaves? (\w+ )?alone", "does not instrument"),
    Word(r"by program", "in code"),
    Word(r"is no setting and", "unknown setting"),
)

_COMPILED: Final = tuple(
    (re.compile(rf"(?<![\w.-])(?:{word.pattern})(?![\w-])", re.IGNORECASE), word) for word in WORDS
)

#: Words that no name in the package has any more, as a whole or between underscores and capitals.
OLD_NAMES: Final = {
    "ask", "asks", "asked", "asker", "asking", "asleep", "blame", "bridge", "cure", "cures", "got", "grant",
    "granted", "judge", "judged", "ledger", "ledgers", "lend", "lent", "life", "lives", "loan", "loans", "nobody",
    "observer", "observers", "passage", "passages", "reading", "readings", "somebody", "surrounding", "tell",
    "tells", "told", "trail", "vain", "verdict", "verdicts",
}  # fmt: skip
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

# The name of an argument in a docstring, before its description.
_ARGUMENT: Final = re.compile(r"^ +\w+:", re.MULTILINE)

PLACES: Final = (
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "grafana/*.md", "grafana/**/*.py",
    "collector-config/**/*.y*ml", "docker-compose.yml", "examples/**/*.py", "src/**/*.py", "tools/**/*.py",
    "tools/**/*.md", "benchmarks/**/*.py", "tests/**/*.py", "tests/**/*.md", "Makefile", ".ci/run", "pyproject.toml",
)  # fmt: skip

#: The only file that may have the old words: this one, which lists them.
EXCEPT: Final = Path(__file__).resolve()


def files() -> list[Path]:
    """What is checked, in order."""
    found = {path for place in PLACES for path in ROOT.glob(place) if "node_modules" not in path.parts}
    return sorted(found - {EXCEPT})


def name_of(path: Path) -> str:
    """A path as a test's id: relative to the project's root."""
    return path.relative_to(ROOT).as_posix()


def prose_of(text: str, suffix: str) -> Iterator[tuple[int, str]]:
    """What a person reads in a file: the number of the line on which each piece begins, and the piece."""
    if suffix == ".md":
        yield 1, FENCE.sub(lambda block: "\n" * block.group().count("\n"), text)
    elif suffix == ".py":
        yield from _comments(text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.lineno, node.value
    else:
        # Of a Makefile and a script of the shell, people read what they print, too.
        for number, line in enumerate(text.splitlines(), 1):
            yield number, line.partition("#")[2] if suffix else line


def _comments(text: str) -> Iterator[tuple[int, str]]:
    # Comments on lines that follow one another are one piece: an expression may be broken over two.
    began, last, piece = 0, -1, ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        number, comment = token.start[0], token.string.lstrip("#: ")
        if number == last + 1:
            piece = f"{piece}\n{comment}"
        else:
            yield began, piece
            began, piece = number, comment
        last = number
    yield began, piece


def old_words(text: str) -> Iterator[tuple[int, str, str]]:
    """The old words in a piece: the number of lines before each, the word, and what to write."""
    without_names = INLINE_CODE.sub(lambda name: "`" + "\n" * name.group().count("\n") + "`", text)
    lines = re.sub(r"[ \t]*\n[ \t]*", "\n", _ARGUMENT.sub(":", without_names))
    for pattern, word in _COMPILED:
        for match in pattern.finditer(lines.replace("\n", " ")):
            yield lines.count("\n", 0, match.start()), match.group(), word.instead


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_people_read_one_word_for_each_thing(path: Path) -> None:
    """
    No page, docstring, comment or text has a word of the old vocabulary; where one has, the message
    says what to write.
    """
    found = [
        f"{name_of(path)}:{began + before}: {word!r}; write: {instead}"
        for began, piece in prose_of(path.read_text(encoding="utf-8"), path.suffix)
        for before, word, instead in old_words(piece)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=name_of)
def test_no_name_is_an_old_word(path: Path) -> None:
    """No module, class, function, argument or variable that an importer can meet has a word of the old vocabulary."""
    with path.open("rb") as source:
        names = {token.string for token in tokenize.tokenize(source.readline) if token.type == tokenize.NAME}
    old = [name for name in {*names, path.stem} if OLD_NAMES & {part.lower() for part in _PART.findall(name)}]
    assert not old, f"{name_of(path)}: {sorted(old)}"


def test_the_glossary_is_in_alphabetical_order() -> None:
    """Each term once."""
    glossary = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Glossary")[2]
    terms = [term.lower() for term in re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE)[2:]]
    assert terms == sorted(set(terms))


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=name_of)
def test_no_test_is_called_by_an_old_word(path: Path) -> None:
    """No name of a test has a word of the old vocabulary; variables of tests may."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = [node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    old = [name for name in names if name.startswith("test_") and OLD_NAMES & set(name.split("_"))]
    assert not old, f"{name_of(path)}: {old}"


@pytest.mark.parametrize(
    ("suffix", "text", "lines"),
    [
        (".md", "One line.\nThe cure is a block.", [2]),
        (".md", "```\nthe cure\n```\nIt gives it\nback; the setting `fix` is a name.", [4]),
        (".md", "A secured connection is out of date.", []),
        (".py", "# It waits in\n# vain.\ncure = 1\n", [1]),
        (".py", '"""\nThe verdict.\n\nArgs:\n    ledger: The pool registry.\n"""\n', [2]),
        (".py", 'log("in vain", "ledger", f"{name} is asleep")\n', [1, 1]),
        (".yaml", "cure: 1\nname: 2  # the cure\n", [2]),
    ],
)
def test_prose_is_read_and_code_is_not(suffix: str, text: str, lines: list[int]) -> None:
    """
    Comments, docstrings and texts count, over line breaks too; identifiers, code, names in backticks and parts of
    longer words do not.
    """
    found = [began + before for began, piece in prose_of(text, suffix) for before, *_ in old_words(piece)]
    assert found == lines
