"""
Logins made of words that occur nowhere else, in URLs and connection strings that are well formed, odd or malformed; and
what may be said of them.

A password is a list of segments with odd characters between them, so that each part of a torn one is recognised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST: Final = "db-1.example"
PORT: Final = 6437
DATABASE: Final = "shop_db"

#: Characters that mean something in some form of an address, or nothing anywhere.
ODD: Final = "@:/#?%&=+,;!$*~^|\\\"'`()[]{}<> \t\n\r\x00\x7f\x1bé\u202e\ud55c"
# Word by word, and figures that could be a port.
_SECRET: Final = re.compile(r"[Zz]q7x[a-z]\w*|(?<!\d)(?:48271|5739)(?!\d)")


@dataclass(frozen=True)
class Login:
    """
    What an application connects with.

    Args:
        user: The user.
        password: The password.
        query: Further settings, and their values.
        host: The server.
        port: Its port, as a text.
        database: The database.
    """

    user: str = "zq7xuser"
    password: str = "zq7xpass"
    query: tuple[tuple[str, str], ...] = ()
    host: str = HOST
    port: str = str(PORT)
    database: str = DATABASE

    def url(self, scheme: str, *, quoted: bool) -> str:
        """As a URL; with what must be quoted as it is, where it is not `quoted`."""
        put = (lambda text: quote(text, safe="")) if quoted else str
        query = "&".join(f"{key}={put(value)}" for key, value in self.query)
        port = f":{self.port}" if self.port else ""
        place = f"{self.host}{port}/{self.database}" + (f"?{query}" if query else "")
        return f"{scheme}://{put(self.user)}:{put(self.password)}@{place}"

    def conninfo(self, *, quoted: bool) -> str:
        """As libpq's connection string."""

        def put(text: str) -> str:
            return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'" if quoted else text

        more = [f"{key}={put(value)}" for key, value in self.query]
        parts = {"host": self.host, "port": self.port, "dbname": self.database}
        named = [f"{key}={put(value)}" for key, value in parts.items() if value]
        return " ".join([*named, f"user={put(self.user)}", f"password={put(self.password)}", *more])

    def by_hand(self, *, quoted: bool, database: str = "database") -> dict[str, Any]:
        """
        As arguments, by what many an application does: it takes its URL apart with `urllib.parse`.

        Args:
            quoted: See `url`.
            database: What the driver calls the database.

        Raises:
            ValueError: It cannot be taken apart.
        """
        url = urlsplit(self.url("db", quoted=quoted))
        given = {"host": url.hostname, "port": url.port, "user": url.username, "password": url.password}
        return {**{key: value for key, value in given.items() if key != "port" or value}, database: url.path[1:]}

    def is_misread(self, *, quoted: bool) -> bool:
        """Whether `by_hand` takes a part of the password for the host, and finds a user and a database too."""
        try:
            given = self.by_hand(quoted=quoted)
        except ValueError:
            return False
        return bool(given["host"] and given["user"] and given["database"] and secrets_in(given["host"]))


def secrets_in(text: object) -> list[str]:
    """The words of logins in what left."""
    return _SECRET.findall(text if isinstance(text, str) else repr(text))


def _joined(head: str) -> st.SearchStrategy[str]:
    words = st.sampled_from([f"zq7x{head}", f"Zq7x{head}", "48271", "5739", ""])
    gap = st.text(st.sampled_from(ODD), min_size=0, max_size=2)
    pairs = st.lists(st.tuples(words, gap), min_size=1, max_size=4)
    return pairs.map(lambda drawn: "".join(word + odd for word, odd in drawn))


_KEYS: Final = (
    "password", "user", "sslpassword", "sslkey", "sslcert", "passfile", "service", "options", "application_name", "key",
    "charset", "wallet_location", "wallet_password",
)  # fmt: skip
_HOSTS: Final = (
    HOST, "localhost", "127.0.0.1", "[::1]", "[fe80::1%25eth0]", "[fe80::1", "::1", f"{HOST},standby.example", "", "%",
    "a b", f"{HOST}.", f"{HOST}@", "%2Fvar%2Frun%2Fpg", "db\x00", "b\u00fccher.example", "x" * 400,
)  # fmt: skip
_PORTS: Final = (str(PORT), "", "0", "65536", "-1", "x", "\u0661", " 5", "6437,6438")
_DATABASES: Final = (DATABASE, "", "a/b", "%2F", "shop?", "sh op", "\u062f", "x" * 300)

#: Logins of all kinds.
LOGINS: Final = st.builds(
    Login,
    user=st.one_of(st.just("zq7xuser"), _joined("user")),
    password=_joined("pass"),
    query=st.lists(st.tuples(st.sampled_from(_KEYS), _joined("query")), max_size=3).map(tuple),
    host=st.one_of(st.just(HOST), st.sampled_from(_HOSTS)),
    port=st.one_of(st.just(str(PORT)), st.sampled_from(_PORTS)),
    database=st.one_of(st.just(DATABASE), st.sampled_from(_DATABASES)),
)


def odd() -> Iterator[Login]:
    """Logins with each odd character in each place."""
    plain = Login()
    for one in ODD:
        yield replace(plain, password=f"zq7xpass{one}zq7xrest")
        yield replace(plain, password=f"48271{one}zq7xrest")
        yield replace(plain, user=f"zq7xuser{one}zq7xrest")
        yield replace(plain, query=(("password", f"zq7xquery{one}zq7xrest"), ("sslpassword", "zq7xkey")))


def torn() -> Iterator[Login]:
    """Logins whose passwords tear a URL or a connection string in some known way."""
    plain = Login()
    for password in (
        "", "48271", "zq7xa@zq7xb?zq7xc", "zq7xa@zq7xb/zq7xc", "zq7xa@zq7xb/zq7xc?zq7xd", "zq7xa@5739/zq7xb?zq7xc=1",
        "48271/zq7xb", "48271?zq7xb", "48271#zq7xb", "48271/zq7xb?zq7xc", "48271/zq7xb#zq7xc", "%", "%zz", "%00zq7xa",
        "zq7xa@[zq7xb]", "zq7xa,zq7xb@zq7xc,zq7xd", "zq7xa host=zq7xb", "'zq7xa", "zq7xa'", "zq7xa\\", "zq7xa" * 2000,
    ):  # fmt: skip
        yield replace(plain, password=password)
        yield replace(plain, user="", password=password)
