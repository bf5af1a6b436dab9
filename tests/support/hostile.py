"""Telemetry files as they must not be: mutants of real ones, drawn by a seed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

DATA: Final = Path(__file__).parent.parent / "data" / "otlp"
#: Lines of recordings, each one export request.
RECORDED: Final = tuple(
    line for file in sorted(DATA.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()
)
_WITH_POOL: Final = next(line for line in RECORDED if '"db.client.connection.count"' in line)
#: Texts that a terminal would obey, or that break a table.
TEXTS: Final = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://e.example\x07link\x1b]8;;\x07", "\x9b31m", "\x85\x90\x9d",
    "a\rb", "a\nb", "a\tb", "\x7f\x08\x00", "\u202egnp.exe", "\u2066a\u2069", "\u200b\u200d\ufeff\u00ad",
    "\u2028\u2029",
    "[red]red[/red]", "[link=http://e.example]x[/link]", "[/]", "[/b]", "[", "]", ":smile:", "\\[", "{0}%s%(a)s",
    "\ud800", "\udfff\ud800", "字" * 300, "e" + "\u0301" * 500, "👨\u200d👩\u200d👧" * 50, "x" * 30_000, "/" * 3_000,
    "/a" * 3_000, "\ufffe\uffff\U0010ffff", "", " ", "NaN", "-Infinity", "1e400", "9" * 10_000, "null", "__proto__",
)  # fmt: skip
#: What stands in place of a value, as JSON.
VALUES: Final = (
    "null", "true", "false", "0", "-1", "1", "-0.0", "0.5", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e308",
    "5e-324", str(2**31), str(2**63), str(-(2**63) - 1), str(2**64), "9" * 400, "9" * 4_000, "9" * 10_000,
    "-" + "9" * 10_000, "[]", "{}", "[[]]", "[null]", "[{}]", '{"a":1}', '{"attributes":3}', '"5"', '"-5"', '"0x10"',
    "[" * 200 + "]" * 200, "[" * 3_000 + "]" * 3_000, "[" * 100_000,
    '{"arrayValue":{"values":[' * 60 + "{}" + "]}}" * 60,
    '{"arrayValue":{"values":[' * 900 + "{}" + "]}}" * 900, '{"kvlistValue":{"values":[{"key":[]}]}}',
    '{"intValue":"x"}', '{"doubleValue":"NaN"}', '{"doubleValue":1e400}', '{"bytesValue":"AA=="}', '{"unknown":[1]}',
    '"253402300800000000000"', '"-1000000000"', '"3093527980800000000000"', '"AGGREGATION_TEMPORALITY_WHAT"', '"ms"',
    "7",
)  # fmt: skip
_FIELDS: Final = (
    "kind", "name", "unit", "startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "traceId", "spanId", "parentSpanId",
    "links", "bucketCounts", "explicitBounds", "positive", "negative", "zeroCount", "scale", "offset", "sum", "count",
    "min",
    "max", "asInt", "asDouble", "isMonotonic", "aggregationTemporality", "attributes", "eventName", "scope", "resource",
    "dataPoints", "metrics", "spans", "logRecords", "value", "key", "severityNumber", "histogram", "gauge",
)  # fmt: skip
_MOST_PLACES: Final = 5_000
_HOLE: Final = "\u0001hole\u0001"


def mutant(random: Random) -> bytes:
    """A file of some lines of recordings, mutated once or several times."""
    chosen = random.sample(RECORDED, random.randint(1, 3))
    changed = [_of_document(random, line) if random.random() < 0.75 else line for line in chosen]
    if random.random() < 0.6:  # so that there is a pool to report on
        changed.append(_WITH_POOL)
        random.shuffle(changed)
    content = "".join(f"{line}\n" for line in changed).encode("utf-8", "surrogatepass")
    while random.random() < 0.35:
        content = random.choice(_OF_BYTES)(random, content)
    return content


def _of_document(random: Random, line: str) -> str:
    document = json.loads(line)
    holes: list[str] = []
    for _ in range(random.choice((1, 1, 1, 2, 5, 20))):
        _change(random, document, holes)
    text = json.dumps(document, ensure_ascii=random.random() < 0.5)
    for hole in holes:
        text = text.replace(json.dumps(_HOLE), hole, 1)
    return text


def _change(random: Random, document: Any, holes: list[str]) -> None:
    places = list(_places(document))
    if not places or len(places) > _MOST_PLACES:
        return
    container, key = random.choice(places)
    if random.random() < 0.4:  # what the report reads, rather than the many keys and values of attributes
        container, key = random.choice([place for place in places if place[1] in _FIELDS] or places)
    way = random.random()
    if way < 0.45:
        container[key] = _HOLE
        holes.append(random.choice(VALUES))
    elif way < 0.65:
        container[key] = random.choice(TEXTS)
    elif way < 0.75:
        del container[key]
    elif way < 0.85:
        other, another = random.choice(places)
        if not _is_inside(other[another], container):
            container[key] = other[another]
    elif isinstance(container, list):
        container.extend([container[key]] * random.choice((1, 2, 50)))
    else:
        container[random.choice(_FIELDS)] = container[key]


def _is_inside(value: Any, container: Any) -> bool:
    """Whether a container is a part of a value, which must not become a part of itself."""
    if value is container:
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_is_inside(each, container) for each in inner)


def _places(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _flip(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 3, 30))):
        if changed:
            changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def _insert(random: Random, content: bytes) -> bytes:
    at = random.randint(0, len(content))
    what = random.choice(
        (b"\0", b"\0" * 5000, b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\n", b"\r\n", b"{", b"}", b"\x1b[2J",
         b"\xed\xa0\x80",
         b'"traceId":"x",', b"x" * 100_000, b"[" * 100_000, b"hello\n", b"\n{}\n", b"\n[]\n", b"\n3\n"),
    )  # fmt: skip
    return content[:at] + what + content[at:]


def _cut(random: Random, content: bytes) -> bytes:
    start = random.choice((0, 0, random.randint(0, len(content))))
    return content[start : random.randint(start, len(content))]


def _twice(random: Random, content: bytes) -> bytes:
    return content + content


def _other_encoding(random: Random, content: bytes) -> bytes:
    return content.decode("utf-8", "replace").encode(random.choice(("utf-16", "utf-16-be", "utf-32", "utf-8-sig")))


def _compressed(random: Random, content: bytes) -> bytes:
    return random.choice(
        (gzip.compress(content, 1), b"\x28\xb5\x2f\xfd" + content, b"\x0a\xf3\x01\x0a\x27" + content[:200])
    )


def _shuffled(random: Random, content: bytes) -> bytes:
    parts = content.split(b",")
    random.shuffle(parts)
    return b",".join(parts)


_OF_BYTES: Final[tuple[Callable[[Random, bytes], bytes], ...]] = (
    _flip, _flip, _flip, _insert, _insert, _cut, _cut, _twice, _other_encoding, _compressed, _shuffled,
)  # fmt: skip
