"""
Inputs that make what is not linear slow: pieces of what an expression matches, over and over, and an end that it does
not match.
"""

from __future__ import annotations

import random
import re
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if sys.version_info >= (3, 11):
    from re import _constants as constants
    from re import _parser as parser
else:
    import sre_constants as constants
    import sre_parse as parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Sizes of inputs, in characters. What is exponential is slow at the first.
SIZES: Final = (12, 20, 28, 36, 256, 2_048, 8_192)
#: CPU seconds for each character from which on two sizes are compared.
SUSPICIOUS: Final = 2.5e-7
#: CPU seconds that are enough to compare.
A_LOT: Final = 0.005
#: CPU seconds for which no other process's turn accounts.
CERTAIN: Final = 0.3
#: CPU seconds after which a larger size is not tried.
ENDLESS: Final = 0.5
#: Below so many characters, what takes so many CPU seconds is exponential: more of it would never end.
TINY: Final = 64
A_WHILE: Final = 0.001
#: Four times as much input takes four times as long, or sixteen times.
RATIO: Final = 7.5
#: What begins, ends or separates something in SQL, in a DSN, in a log line.
TOKENS: Final = (
    "'", '"', "`", "[", "]", "(", ")", "{", "}", "E'", "e'", "$a$", "$", "$$", "--", "/*", "*/", "*", "/", "\\", "\\'",
    "\n", "\r", " ", "\t", "%(", "%s", "%", ":a", ":", "::", "@", "@a", "?", "?,", "1", "1.", ".", ",", ";", "a", "a.",
    "a b", "''", '""', "#", "q'[", "q'", "nq'x", "u&'", "-", "+", "=", "<", ">", "1e", "0x", "\0", "é", "id=",
    "values ", "(?)", "((?))", ",(?)", "select ", "from a ", "update a ", "where ", "limit ", "order by a ", "in (",
    "any(",
    "pg_advisory_lock(", "insert ", "lock table a,", "for update ", "with a as (", "union ", "a.a.", "\v", "\u2028",
)  # fmt: skip
_LONG: Final = 100
_NEVER: Final = "\x01"
_SAMPLES: Final = {"digit": "07", "space": " \n", "word": "a_9", "not_digit": "a ", "not_space": "a'", "not_word": " '"}


class Slow(NamedTuple):
    """
    An input on which a function takes more than linear time.

    Args:
        before: Its beginning.
        pump: What is repeated.
        after: Its end.
        seconds: CPU seconds by size, in characters.
    """

    before: str
    pump: str
    after: str
    seconds: dict[int, float]


def slow_inputs(
    function: Callable[[str], object], inputs: Iterator[tuple[str, str, str]], sizes: tuple[int, ...] = SIZES
) -> Iterator[Slow]:
    """
    Inputs on which a function takes more than linear time.

    Args:
        function: What is given a text.
        inputs: Beginnings, what is repeated, and ends.
        sizes: Of the inputs, in characters.
    """
    for before, pump, after in inputs:

        def seconds(size: int, times: int = 1, given: tuple[str, str, str] = (before, pump, after)) -> float:
            text = given[0] + given[1] * max(1, size // len(given[1])) + given[2]
            return min(_seconds(function, text) for _ in range(times))

        for size in sizes:
            taken = seconds(size)
            if taken < SUSPICIOUS * max(size, sizes[-1] // 4):
                continue
            # A busy machine is not slow three times in a row, by CPU time, at both sizes.
            if size < TINY:
                least = seconds(size, 3)
                if least > A_WHILE:
                    yield Slow(before, pump, after, {size: least})
                    break
                continue
            larger = size if taken > A_LOT else 4 * size
            found = {one: seconds(one, 1 if taken > ENDLESS else 3) for one in (larger // 4, larger)}
            # What takes more than linear time does so at each larger size; another process's turn ends.
            while found[larger] > RATIO * found[larger // 4] and found[larger] < CERTAIN:
                larger *= 4
                found[larger] = seconds(larger)
            if found[larger] > RATIO * found[larger // 4]:
                yield Slow(before, pump, after, found)
                break
            if taken > ENDLESS:
                break


def _seconds(function: Callable[[str], object], text: str) -> float:
    began = time.thread_time()
    function(text)
    return time.thread_time() - began


def inputs_for(pattern: str, flags: int, count: int, seed: str) -> Iterator[tuple[str, str, str]]:
    """
    Inputs for an expression, drawn from what it matches, and from `TOKENS`.

    Args:
        pattern: The expression.
        flags: Its flags.
        count: How many.
        seed: For the draw.
    """
    draw = random.Random(f"{seed} {pattern}")
    tree = parser.parse(pattern, flags)
    repeats = list(_repeats(tree))
    # Each token once, behind the beginning of what the expression matches and without.
    for token in TOKENS:
        whole = "".join(_sample(tree, draw))
        yield draw.choice(("", whole, whole[: len(whole) // 2])), token, _NEVER
    for number in range(count):
        whole = "".join(_sample(tree, draw))
        start = draw.randrange(len(whole) + 1)
        before = draw.choice(("", "", whole[:start]))
        if repeats and number % 3:
            pump = "".join(_sample(draw.choice(repeats), draw))
            if draw.randrange(3) == 0:
                pump += "".join(_sample(draw.choice(repeats), draw))
        elif whole and number % 2:
            pump = draw.choice((whole[:start], whole, whole[start : start + draw.randint(1, 6)]))
        else:
            pump = "".join(draw.choice(TOKENS) for _ in range(draw.randint(1, 2)))
        pump = (pump or draw.choice(TOKENS))[:40]
        yield before, pump, draw.choice(("", _NEVER, f" {_NEVER}", whole[start:], f"\n{_NEVER}"))


def token_inputs(count: int, seed: str) -> Iterator[tuple[str, str, str]]:
    """
    Inputs of `TOKENS`, for functions that read a text.

    Args:
        count: How many.
        seed: For the draw.
    """
    draw = random.Random(seed)
    for token in TOKENS:
        yield "", token, _NEVER
    for _ in range(count):
        before = "".join(draw.choice(TOKENS) for _ in range(draw.randint(0, 3)))
        pump = "".join(draw.choice(TOKENS) for _ in range(draw.randint(1, 4)))
        yield before, pump, draw.choice(("", _NEVER, draw.choice(TOKENS)))


def _repeats(tree: Any) -> Iterator[Any]:
    for operator, argument in tree:
        if operator in (constants.MAX_REPEAT, constants.MIN_REPEAT) and argument[1] > _LONG:
            yield argument[2]
        for part in _parts(operator, argument):
            yield from _repeats(part)


def _parts(operator: Any, argument: Any) -> list[Any]:
    if operator in (constants.MAX_REPEAT, constants.MIN_REPEAT):
        return [argument[2]]
    if operator is constants.SUBPATTERN:
        return [argument[3]]
    if operator is constants.BRANCH:
        return list(argument[1])
    if operator in (constants.ASSERT, constants.ASSERT_NOT):
        return [argument[1]]
    return [argument] if operator is getattr(constants, "ATOMIC_GROUP", None) else []


def _sample(tree: Any, draw: random.Random) -> Iterator[str]:
    for operator, argument in tree:
        if operator is constants.LITERAL:
            yield chr(argument)
        elif operator is constants.NOT_LITERAL:
            yield "a" if argument != ord("a") else "b"
        elif operator is constants.ANY:
            yield draw.choice("a' ")
        elif operator is constants.IN:
            yield _member(argument, draw)
        elif operator in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            least, most, inner = argument
            for _ in range(draw.randint(least, min(int(most), least + 2))):
                yield from _sample(inner, draw)
        elif operator is constants.BRANCH:
            yield from _sample(draw.choice(argument[1]), draw)
        else:
            for part in _parts(operator, argument) if operator is not constants.ASSERT_NOT else ():
                yield from _sample(part, draw)


def _member(members: Any, draw: random.Random) -> str:
    if members[0][0] is constants.NEGATE:
        allowed = [one for one in "a 1'.\"\n(" if not re.match(_class(members[1:]), one)]
        return draw.choice(allowed or ["a"])
    operator, argument = draw.choice(members)
    if operator is constants.LITERAL:
        return chr(argument)
    if operator is constants.RANGE:
        return chr(draw.choice(argument))
    return draw.choice(_SAMPLES[str(argument).lower().removeprefix("category_")])


def _class(members: Any) -> str:
    text = ""
    for operator, argument in members:
        if operator is constants.LITERAL:
            text += re.escape(chr(argument))
        elif operator is constants.RANGE:
            text += f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}"
        else:
            name = str(argument).lower().removeprefix("category_")
            text += "\\" + {"digit": "d", "space": "s", "word": "w"}.get(
                name, {"not_digit": "D", "not_space": "S"}.get(name, "W")
            )
    return f"[{text}]"
