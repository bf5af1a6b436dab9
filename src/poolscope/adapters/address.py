"""
The one place where the address of a server is read, from what a library was given: a URL, a connection string, or the
parts of either.

Each part is taken for what it should be only where it can be nothing else. A password with a character that had to be
quoted tears a URL: its rest then lies where the server or the database should be. So one part in doubt leaves all of
them out. No error is raised for what is malformed: that is the application's to see, from its driver.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A host's name (RFC 1123; letters of other scripts too, underscores as container platforms have them).
_LABEL: Final = r"[^\W_](?:[\w-]{0,61}\w)?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_LONGEST_HOST: Final = 253
# The zone of an address (RFC 6874).
_ZONE: Final = re.compile(r"[\w.~-]{1,64}", re.ASCII)
# The folder or the file of a socket; a colon, as Cloud SQL's have it.
_SOCKET: Final = re.compile(r"(?:/[\w.+:-]+)+/?")
_LONGEST_PATH: Final = 255
# A database, a service; a file, whose name may also hold spaces and brackets.
_DATABASE: Final = re.compile(r"[\w$.+-]{1,128}")
_FILE: Final = re.compile(r"[\w.+ ()~-]{1,128}|:memory:")
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_HIGHEST_PORT: Final = 65_535
_MOST_SERVERS: Final = 64
_LOCATION: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?")
# Brackets behind an "@" that end no host.
_BRACKET: Final = re.compile(r"@\[[^\]]*(?P<goes_on>\][^:,])?")
_MEMORY: Final = ":memory:"

# The keys under which drivers take the user, and the database.
_USERS: Final = ("user", "username", "USER")
_NAMESPACES: Final = ("database", "db", "dbname", "NAME")


class Place(NamedTuple):
    """
    Where a database is.

    Args:
        address: The server's host name or address, several with commas between; or the path of its socket.
        port: The server's port, where all have one.
        namespace: The database's name.
    """

    address: str | None = None
    port: int | None = None
    namespace: str | None = None


#: What is known of a database where any part of it is in doubt.
UNKNOWN: Final = Place()

#: In the place of an address or a database that cannot be read.
UNREADABLE: Final = object()


def place(address: object, port: object, namespace: object) -> Place:
    """
    Where a database is; `UNKNOWN` where what was given for one part may be something else.

    Args:
        address: A text, or several in a sequence; nothing where it is empty.
        port: A number or a text, or several.
        namespace: A text.
    """
    hosts, ports, name = _listed(address), _listed(port), text_of(namespace)
    if hosts is None or ports is None or (name is None and namespace) or (name and not _DATABASE.fullmatch(name)):
        return UNKNOWN
    if len(hosts) > _MOST_SERVERS or not all(map(is_address, hosts)) or not all(map(_is_port, ports)):
        return UNKNOWN
    numbers = set(ports)
    number = int(ports[0]) if hosts and len(numbers) == 1 and ports[0] else None
    return Place(",".join(hosts) or None, number, name or None)


def is_address(text: str) -> bool:
    """Whether a text is the name or the address of a host, or the path of a socket, and can be nothing else."""
    if text.startswith("/"):
        return len(text) <= _LONGEST_PATH and _SOCKET.fullmatch(text) is not None
    if is_number(text):
        return True
    is_name = len(text) <= _LONGEST_HOST and any(map(str.isalpha, text))  # figures alone may be a port, or a password
    return is_name and _HOST.fullmatch(text) is not None


def is_number(text: str) -> bool:
    """Whether a text is an address of IPv4 or IPv6, in brackets or with a zone."""
    address, percent, zone = text.removeprefix("[").removesuffix("]").partition("%")
    if percent and not _ZONE.fullmatch(zone):
        return False
    try:
        return ipaddress.ip_address(address).version == 6 or text == address  # noqa: PLR2004 - IPv6
    except ValueError:
        return False


def is_plain(host: str) -> bool:
    """Whether a host can be no part of a login: an address in numbers, a socket, or ``localhost``."""
    return host == "localhost" or host.startswith("/") or is_number(host)


def is_torn(url: str) -> bool:
    """
    Whether a URL may hold a password with a ``/``, ``?`` or ``#`` that is not quoted, so that what looks like its
    server or database is part of the login: there is an ``@`` beyond the first of them. Likewise with a control
    character, at which some parsers stop and which others leave out. The path of a file ends at a ``?`` or ``#``, so
    that a further ``/`` may be part of it.
    """
    if any(one < " " or one == "\x7f" for one in url):
        return True
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return "@" in url
    location = re.split("[/?#]", rest, maxsplit=1)[0]
    if not location and scheme.startswith("sqlite"):  # it has no login
        return "/" in "".join(re.split("[?#]", rest, maxsplit=1)[1:])
    return "@" in rest[len(location) :] or any(found["goes_on"] for found in _BRACKET.finditer(location))


def server_of(url: str) -> str | None:
    """
    Host and port of a URL, or of what is one but for its scheme; None where they are in doubt.

    Args:
        url: As it was configured.
    """
    whole = url if "://" in url else f"any://{url}"
    if is_torn(whole):
        return None
    location = re.split("[/?#]", whole.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    found = _LOCATION.fullmatch(location)
    if found is None or not is_address(found[1]) or not _is_port(found[2] or ""):
        return None
    return location


def is_cut_off(given: Mapping[str, Any]) -> bool:
    """
    Whether arguments name a host, or a port alone, and for the user or the database nothing: they are of a URL that
    was taken apart, which a password may have torn. Numbers, sockets and ``localhost`` are what they are.

    Args:
        given: Arguments of a connect.
    """
    if not (_is_empty(given, _USERS) or _is_empty(given, _NAMESPACES)):
        return False
    host = text_of(given.get("host") or given.get("HOST"))
    if not host:
        return bool(given.get("port") or given.get("PORT"))
    return not is_plain(host)


def _is_empty(given: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    # Whether one of the keys is there, and none has a value.
    return any(key in given for key in keys) and not any(given.get(key) for key in keys)


def file_of(path: object) -> str | None:
    """
    The name of a database that is a file: without its folders, and without what follows it in a URI
    (https://www.sqlite.org/uri.html). None where it is none.

    Args:
        path: What the driver was given; nothing for a database in memory.
    """
    if not path:
        return _MEMORY
    text = text_of(path)
    if text is None:
        return None
    if text.startswith("file:"):
        text, *rest = re.split("[?#]", text.removeprefix("file:"), maxsplit=1)
        is_local = not text.startswith("//") or text.startswith(("///", "//localhost/"))
        if not is_local or "/" in "".join(rest):
            return None
        text = text or _MEMORY
    name = re.split(r"[/\\]", text)[-1]
    return name if _FILE.fullmatch(name) else None


def text_of(value: object) -> str | None:
    """A text, a path or an address as a text; None for anything else: no method of the application's is called."""
    if isinstance(value, str):
        return str.__str__(value)
    known = isinstance(value, (PurePath, ipaddress.IPv4Address, ipaddress.IPv6Address))
    return str(value) if known else None


def _listed(value: object) -> list[str] | None:
    # The elements of a list, of a text with commas, or of one number; None where one of them is something else.
    if value is None or value == "":
        return []
    several = value if isinstance(value, (list, tuple)) else [value]
    found: list[str] = []
    for one in several:
        text = "" if one is None else str(one) if type(one) is int else text_of(one)
        if text is None:
            return None
        found.extend(text.split(","))
    return found


def _is_port(text: str) -> bool:
    return not text or (_PORT.fullmatch(text) is not None and 0 < int(text) <= _HIGHEST_PORT)


# URLs that libraries take apart before a pool is made of the parts, which do not say that they belong to a login.


class Torn:
    """The places that torn URLs seem to name; the last of them, by numbers that say nothing of them."""

    _MOST: Final = 1_000

    def __init__(self) -> None:
        self._places: dict[int, None] = {}

    def add(self, *parts: object) -> None:
        """
        A URL is torn.

        Args:
            parts: The address, the port and the database that it seems to name.
        """
        self._places[self._number(parts)] = None
        while len(self._places) > self._MOST:
            self._places.pop(next(iter(list(self._places))), None)

    def has(self, *parts: object) -> bool:
        """
        Whether a torn URL seems to name a place.

        Args:
            parts: See `add`.
        """
        return bool(self._places) and self._number(parts) in self._places

    def _number(self, parts: Iterable[object]) -> int:
        return hash(tuple(tuple(_listed(part) or ()) for part in parts))


#: Those of this process.
TORN: Final = Torn()
