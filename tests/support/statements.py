"""
Statements with a marker in each literal, made from what the lexers of databases distinguish.

A statement is made from two sources of chance: its form, and what is in its literals. Two with the same form and other
literals are the same code. Markers have letters that are in no keyword and in no name of `KEPT`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: Of markers; no keyword has four of them in a row.
LETTERS = "qxzjvk"
#: So many characters of a marker are a leak.
LEAK = 4
#: The table and the columns that a fingerprint keeps.
TABLE, COLUMN, OTHER_COLUMN = "payments", "amount", "note"
KEPT = (TABLE, COLUMN, OTHER_COLUMN)

# What may stand beside a marker in a string: all that could end it too early or too late.
_NOISE = (
    "",
    "",
    "",
    "a",
    " ",
    "--",
    "/*",
    "*/",
    "#",
    '"',
    "`",
    "[",
    "]",
    ";",
    "%s",
    "?",
    ":a",
    "$$",
    "$q$",
    "é",
    "€",
    "\n",
    "\r",
    "\t",
    "{",
    "}",
    "(",
    ")",
    "1",
    "@",
    "0x",
    "e",
    "N",
    "\\",
    "\\\\",
    "''",
    "\\'",
    "'",
)


class Statement(NamedTuple):
    """
    One statement.

    Args:
        text: SQL.
        markers: What must not be in anything that leaves the process.
        answers: Those that the server answers with, where it reads the statement as it is meant.
        runs: Whether it is a query to run; else the server is asked whether it can parse it.
        kept: Names that a fingerprint keeps.
    """

    text: str
    markers: tuple[str, ...]
    answers: tuple[str, ...]
    runs: bool
    kept: tuple[str, ...] = ()


class Maker:
    """
    Makes the parts of one statement.

    Args:
        form: Chance of the form.
        content: Chance of what is in the literals.
        escapes: Whether a backslash escapes in plain strings.
        doubles: Whether double quotes make strings.
    """

    def __init__(self, form: random.Random, content: random.Random, *, escapes: bool, doubles: bool = False) -> None:
        self.form, self.content = form, content
        self.escapes, self.doubles = escapes, doubles
        self.markers: list[str] = []
        self.answers: list[str] = []

    def marker(self, *, answers: bool = True) -> str:
        """A new one, which the server answers with or not."""
        made = "".join(self.content.choices(LETTERS, k=10))
        self.markers.append(made)
        if answers:
            self.answers.append(made)
        return made

    def noisy(self, *, answers: bool = True) -> str:
        """A new one between what could end a string."""
        return f"{self.content.choice(_NOISE)}{self.marker(answers=answers)}{self.content.choice(_NOISE)}"

    def digits(self, base: str = "0123456789", least: int = 6) -> str:
        """A new marker of digits."""
        made = self.content.choice(base[1:]) + "".join(self.content.choices(base, k=least + 2))
        self.markers.append(made)
        return made

    def plain(self, text: str, quote: str = "'", *, escapes: bool | None = None) -> str:
        """A text between quotes."""
        if self.escapes if escapes is None else escapes:
            text = text.replace("\\", "\\\\")
            inner = ("\\" if self.content.random() < 0.5 else quote) + quote
        else:
            inner = quote + quote
        return quote + text.replace(quote, inner) + quote

    def space(self) -> str:
        """What separates words, with a marker in a comment at times."""
        return self.form.choice((" ", " ", " ", "\n", "\t ", self.comment()))

    def comment(self) -> str:
        """A comment of the database."""
        raise NotImplementedError

    def string(self) -> str:
        """A string of the database, in one of its notations."""
        raise NotImplementedError

    def number(self) -> str:
        """A number."""
        digits = self.digits
        made = self.form.choice(
            (
                digits,
                lambda: "-" + digits(),
                lambda: "." + digits(),
                lambda: digits(least=4) + ".",
                lambda: digits(least=4) + "." + digits(),
                lambda: digits(least=4) + "e5",
                lambda: digits(least=4) + ".5E-3",
                lambda: "+" + digits(),
            )
        )
        return made()

    def special(self) -> tuple[str, bool]:
        """A statement about users, settings or connections; whether the server runs it and answers."""
        raise NotImplementedError

    def user(self) -> str:
        """A user's name."""
        made = self.marker(answers=False)
        return self.form.choice((made, made, self.name_quotes(made)))

    def name_quotes(self, text: str) -> str:
        """A name in quotes."""
        return f'"{text}"'

    #: What a value can be in this database, besides strings and numbers; ``{}`` is one.
    AROUND: tuple[str, ...] = (
        "{}",
        "{}",
        "({})",
        "coalesce(null, {})",
        "case when 1=1 then {} end",
        "(select {})",
        "nullif({}, '')",
    )
    DUAL = ""

    def value(self) -> str:
        """An expression with one or more literals."""
        if self.form.random() < 0.2:
            return self.number()
        before, _, after = self.form.choice(self.AROUND).partition("{}")
        text = self.string()
        # Glued to a word, letters and a dollar sign belong to that; a quote does not.
        glue = " " if before[-1:].isalpha() and text[:1] not in "'\"" else ""
        return before + glue + text + after

    def query(self) -> str:
        """A SELECT of one row that has all of its values."""
        values = []
        for place in range(self.form.randint(1, 4)):
            alias = self.form.choice(("", "", f" as a{'bcdefg'[place]}", f" {self.name_quotes('it s ' + str(place))}"))
            values.append(self.space() + self.value() + alias)
        text = f"select{','.join(values)}{self.space()}from {TABLE}"
        if self.form.random() < 0.6:
            text += f" where {COLUMN} is not null or {OTHER_COLUMN} ={self.space()}"
            hidden = len(self.answers)
            text += self.string()
            del self.answers[hidden:]
        if self.form.random() < 0.2:
            text += self.comment()
        return text

    def change(self) -> str:
        """An INSERT, UPDATE or DELETE."""
        kind = self.form.randrange(3)
        if kind == 0:
            rows = ", ".join(f"({self.number()}, {self.string()})" for _ in range(self.form.randint(1, 3)))
            return f"insert into {TABLE} ({COLUMN}, {OTHER_COLUMN}) values {rows}"
        if kind == 1:
            return f"update {TABLE} set {OTHER_COLUMN} ={self.space()}{self.value()} where {COLUMN} = {self.number()}"
        several = f"({self.string()}, {self.string()})"
        return f"delete from {TABLE} where {COLUMN} = {self.number()} or {OTHER_COLUMN} in {several}"

    def statement(self) -> Statement:
        """One statement."""
        roll = self.form.random()
        if roll < 0.7:
            text, runs, kept = self.query(), True, (TABLE,)
        elif roll < 0.85:
            text, runs, kept = self.change(), False, KEPT
        else:
            (text, runs), kept = self.special(), ()
        return Statement(text, tuple(self.markers), tuple(self.answers) if runs else (), runs, kept)


class PostgreSQL(Maker):
    """`standard_conforming_strings` is on unless backslashes escape."""

    AROUND = (
        *Maker.AROUND,
        "{}::text",
        "cast({} as text)",
        "array[{}]",
        "(values ({}))",
        "text {}",
        "name{}",
        "bpchar{}",
        "jsonb_build_object('k',{})->>'k'",
        "(array[{}])[1:1]",
    )

    def comment(self) -> str:
        """To the end of a line of either kind, or nested."""
        text = self.noisy(answers=False).replace("\n", "").replace("\r", "")
        inner = text.replace("/*", "").replace("*/", "")
        return self.form.choice(
            (
                f"--{text}\n",
                f"--{text}\r",
                f" /*{inner}*/ ",
                f" /* '{inner} /* {inner} \" */ it's */ ",
                f"/**{inner}/**/**/ ",
            )
        )

    def string(self) -> str:
        """Of each notation of PostgreSQL."""
        return self.form.choice(
            (
                self._standard,
                self._standard,
                self._escaped,
                self._continued,
                self._dollars,
                self._unicode,
                self._beside,
                self._bits,
            )
        )()

    def _standard(self) -> str:
        return self.form.choice(("", "", "N", "n")) + self.plain(self.noisy())

    def _escape(self) -> str:
        text = self.plain(self.noisy(), escapes=True)
        return text[:-1] + self.content.choice(("", "\\n", "\\'", "\\101", "\\x41", "\\u0041", "\\\\")) + "'"

    def _escaped(self) -> str:
        return self.form.choice("eE") + self._escape()

    def _continued(self) -> str:
        gap = self.form.choice(
            ("\n", "\r", " \n ", "\t\r\n\f", f" --{self.marker(answers=False)}'\n", "\n--it's\n  ", "--\r")
        )
        return self.form.choice("eE") + self._escape() + gap + self._escape()

    def _beside(self) -> str:
        gap = self.form.choice(("\n", " \r ", " -- x'\n "))
        return self.plain(self.noisy()) + gap + self.plain(self.noisy())

    def _dollars(self) -> str:
        tag = self.form.choice(("", "q", "é", "_1", "A€", "\u00a0", "T\u2019"))
        return f"${tag}${self.noisy().replace('$' + tag + '$', '')}'${tag}$"

    def _unicode(self) -> str:
        if self.escapes:  # it is refused then
            return self._standard()
        text = self.noisy().replace("\\", "").replace("'", "''")
        return self.form.choice((f"U&'{text}\\0041'", f"u&'{text}!0041' UESCAPE '!'"))

    def _bits(self) -> str:
        return (
            self.form.choice((lambda: f"b'{self.digits('01', 12)}'", lambda: f"X'{self.digits('0123456789abcdef')}'"))()
            + "::text"
        )

    def special(self) -> tuple[str, bool]:
        """Parsed, run and undone."""
        user, s = self.user, lambda: self.plain(self.noisy(answers=False))
        return self.form.choice(
            (
                lambda: f"create role {user()} login password {s()}",
                lambda: f"alter user {user()} with encrypted password {s()} valid until 'infinity'",
                lambda: f"alter role {user()} set {TABLE}.x = {s()}",
                lambda: f"grant {user()} to {user()}, {user()}",
                lambda: f"grant select ({COLUMN}), update on {TABLE} to {user()} with grant option",
                lambda: f"revoke all on {TABLE} from {user()} cascade",
                lambda: f"revoke {user()} from {user()}",
                lambda: f"set role {user()}",
                lambda: f"set local role {s()}",
                lambda: f"set session authorization {user()}",
                lambda: f"reassign owned by {user()} to {user()}",
                lambda: f"drop owned by {user()}",
                lambda: f"drop role if exists {user()}, {user()}",
                lambda: f"alter table {TABLE} owner to {user()}",
                lambda: f"create schema authorization {user()}",
                lambda: f"create schema s authorization {user()}",
                lambda: f"create database d owner = {user()} template x",
                lambda: f"create user mapping for {user()} server s options (user {s()}, password {s()})",
                lambda: f"create server s foreign data wrapper w options (host {s()})",
                lambda: f"alter default privileges for role {user()} grant select on tables to {user()}",
                lambda: f"create policy p on {TABLE} to {user()} using ({OTHER_COLUMN} = {s()})",
                lambda: f"comment on table {TABLE} is {s()}",
                lambda: f"comment on role {user()} is {s()}",
                lambda: f"security label on role {user()} is {s()}",
                lambda: f"notify c, {s()}",
                lambda: f"do {self._hidden_dollars()}",
                lambda: f"create function f() returns int language sql as {self._hidden_dollars()}",
                lambda: f"prepare p as select {s()}",
                lambda: f"execute p({s()}, {self.number()})",
                lambda: f"set a.b = {s()}",
                lambda: f"set a.b to {self.marker(answers=False)}",
                lambda: f"alter system set a.b = {s()}",
                lambda: f"create subscription s connection {s()} publication p",
                lambda: f"select * from dblink({s()}, {s()})",
                lambda: f"copy {TABLE} from {s()} with (format csv, delimiter ',')",
                lambda: f"explain (costs off) select {s()}, {COLUMN} from {TABLE}",
                lambda: f"values ({s()}, {self.number()}), ({s()}, {self.number()})",
                lambda: f"select interval {s()}, date {s()}, timestamp with time zone {s()}",
                lambda: f"listen c; alter role {user()} rename to {user()}",
            )
        )(), False

    def _hidden_dollars(self) -> str:
        before = len(self.answers)
        text = self._dollars()
        del self.answers[before:]
        return text


class MariaDB(Maker):
    """Backslashes escape unless NO_BACKSLASH_ESCAPES; double quotes make strings unless ANSI_QUOTES."""

    AROUND = (
        *Maker.AROUND,
        "concat({})",
        "cast({} as char)",
        "binary {}",
        "{} collate utf8mb4_bin",
        "convert({} using utf8mb4)",
    )

    def name_quotes(self, text: str) -> str:
        """A name in quotes."""
        return f"`{text}`"

    def comment(self) -> str:
        """To the end of a line, after a sign or two dashes and a space; in the middle; of a newer version."""
        text = self.noisy(answers=False).replace("\n", "")
        inner = text.replace("/*", "").replace("*/", "")
        return self.form.choice(
            (
                f"-- {text}\n",
                "--\n",
                f"--\t{text}\n",
                f"#{text}\n",
                f" /*{inner}*/ ",
                f" /* it's {inner} */ ",
                f" /*!999999 {inner} */ ",
                " /*!40000 */ ",
                "/*!*/ ",
                "/*M!100000 */ ",
            )
        )

    def string(self) -> str:
        """Of each notation."""
        return self.form.choice(
            (
                self._single,
                self._single,
                self._double,
                self._introduced,
                self._beside,
                self._executed,
                self._hexadecimal,
                self._bare,
            )
        )()

    def _single(self) -> str:
        return self.form.choice(("", "", "N", "n")) + self.plain(self.noisy())

    def _double(self) -> str:
        return self.plain(self.noisy(), '"') if self.doubles else self._single()

    def _introduced(self) -> str:
        return self.form.choice(("_utf8mb4", "_utf8mb4 ", "_utf8")) + self.plain(self.noisy())

    def _beside(self) -> str:
        return self.plain(self.noisy()) + self.form.choice((" ", "\n", "\t")) + self.plain(self.noisy())

    def _executed(self) -> str:
        version = self.form.choice(("", "40000", "50503", "M!100000"))
        opening = f"/*{version}" if version.startswith("M!") else f"/*!{version}"
        return f"{opening} {self.plain(self.noisy())} */"

    def _hexadecimal(self) -> str:
        digits = self.digits("0123456789abcdef") + "0"
        digits = digits[: len(digits) // 2 * 2]
        return self.form.choice((f"x'{digits}'", f"0x{digits}", f"X'{digits}'"))

    def _bare(self) -> str:
        return f"b'{self.digits('01', 12)}'"

    def _account(self) -> str:
        marker = self.marker(answers=False)
        return self.form.choice(("%s", "'%s'@'%%'", "`%s`@`%%`", "%s@localhost")) % marker

    def special(self) -> tuple[str, bool]:
        """Only parsed."""
        s = lambda: self.plain(self.noisy(answers=False))  # noqa: E731
        marker = lambda: self.marker(answers=False)  # noqa: E731
        user = self._account
        return self.form.choice(
            (
                lambda: f"create user {user()} identified by {s()}",
                lambda: f"create or replace user {user()} identified via mysql_native_password using {s()}",
                lambda: f"alter user {user()} identified by {s()} account lock",
                lambda: f"grant select on {TABLE} to {user()} identified by {s()}",
                lambda: f"grant all privileges on *.* to {user()} with grant option",
                lambda: f"grant {marker()} to {user()}",
                lambda: f"grant proxy on {user()} to {user()}",
                lambda: f"revoke select, insert on {TABLE} from {user()}",
                lambda: f"revoke all privileges, grant option from {user()}",
                lambda: f"drop user {user()}, {user()}",
                lambda: f"rename user {user()} to {user()}",
                lambda: f"create role {marker()}",
                lambda: f"set role {marker()}",
                lambda: f"set default role {marker()} for {user()}",
                lambda: f"set password for {user()} = password({s()})",
                lambda: f"set @v = {s()}, @w = {self.number()}",
                lambda: f"create definer={user()} view v as select {COLUMN}, {s()} from {TABLE}",
                lambda: f"create definer = {user()} sql security definer view v as select 1",
                lambda: f"show grants for {user()}",
                lambda: f"change master to master_user={s()}, master_password={s()}, master_port={self.digits()}",
                lambda: f"load data infile {s()} into table {TABLE} fields terminated by {s()}",
                lambda: f"create server s foreign data wrapper mysql options (user {s()}, password {s()})",
                lambda: f"prepare p from {s()}",
                lambda: f"kill user {marker()}",
                lambda: f"select date '2020-01-01', json_value({s()}, '$.a') from {TABLE}",
            )
        )(), False


class SQLite(Maker):
    """Double quotes make a string where no column has that name."""

    AROUND = (*Maker.AROUND, "{} || ''", "cast({} as text)", "likely({})")

    def name_quotes(self, text: str) -> str:
        """A name in quotes of one of the four kinds."""
        return self.form.choice(('"%s"', "`%s`", "[%s]")) % text

    def comment(self) -> str:
        """To the end of a line; in the middle."""
        text = self.noisy(answers=False).replace("\n", "")
        return self.form.choice((f"--{text}\n", f" /* it's {text.replace('*/', '')} */ ", f'--{text} "\n'))

    def string(self) -> str:
        """Of each notation."""
        return self.form.choice(
            (
                lambda: self.plain(self.noisy()),
                lambda: self.plain(self.noisy()),
                lambda: self.plain(self.noisy(), '"'),
                lambda: self.form.choice("xX") + f"'{self.digits('0123456789abcdef', 10)}'"[:12] + "'",
            )
        )()

    def number(self) -> str:
        """Hexadecimal too."""
        return f"0x{self.digits('0123456789abcdef')}" if self.form.random() < 0.1 else super().number()

    def special(self) -> tuple[str, bool]:
        """Only compiled."""
        s, marker = (
            (lambda: self.plain(self.noisy(answers=False), self.form.choice("'\""))),
            (lambda: self.marker(answers=False)),
        )
        return self.form.choice(
            (
                lambda: f"attach {s()} as x",
                lambda: f"attach database {marker()} as x key {s()}",
                lambda: f"pragma key = {s()}",
                lambda: f"pragma key = {marker()}",
                lambda: f"pragma main.rekey({s()})",
                lambda: f"vacuum into {s()}",
                lambda: f"select {COLUMN} from {TABLE} where {OTHER_COLUMN} is distinct from {s()}",
                lambda: f'insert into "{TABLE}" ("{COLUMN}", "{OTHER_COLUMN}") values ({s()}, {s()})',
                lambda: f'update "{TABLE}" set "{COLUMN}" = {s()}, "{OTHER_COLUMN}" = max({s()}, 1) where {s()} = 1',
                lambda: f"create table t2 (a default {s()})",
                lambda: (
                    f"select {COLUMN} from {TABLE} where {OTHER_COLUMN} like {s()} escape '\\' and {COLUMN} = {s()}"
                ),
                lambda: f"select :a, @b, $c, $d::e(f'), {s()}, ?1",
            )
        )(), False


class Oracle(Maker):
    """By the grammar of its reference: no server is asked."""

    def comment(self) -> str:
        """To the end of a line; in the middle."""
        text = self.noisy(answers=False).replace("\n", "").replace("\r", "")
        return self.form.choice(
            (f"--{text}\n", f" /* it's {text.replace('*/', '')} */ ", f" /*+ {text.replace('*/', '')} */ ")
        )

    def string(self) -> str:
        """Plain, or quoted by a mark of any kind."""
        return self.form.choice((lambda: self.form.choice(("", "N", "n")) + self.plain(self.noisy()), self._marked))()

    def _marked(self) -> str:
        mark, end = self.form.choice(
            (("[", "]"), ("{", "}"), ("(", ")"), ("<", ">"), *((one, one) for one in "!|#~\"'^é]a1$"))
        )
        text = self.noisy()
        text = text.replace(end, "")
        return f"{self.form.choice(('q', 'Q', 'nq', 'NQ'))}'{mark}{text}{end}'"

    def special(self) -> tuple[str, bool]:
        """Users, and links to other databases."""
        user, s = self.user, lambda: self.plain(self.noisy(answers=False))
        password = self.user
        return self.form.choice(
            (
                lambda: f"create user {user()} identified by {password()} default tablespace t",
                lambda: f"ALTER USER {user()} IDENTIFIED BY {password()} REPLACE {password()}",
                lambda: f"alter user {user()} identified by values {s()}",
                lambda: f"alter user {user()} grant connect through {user()}",
                lambda: f"create role {user()} identified by {password()}",
                lambda: f"set role {user()} identified by {password()}",
                lambda: f"grant connect, resource to {user()} identified by {password()}",
                lambda: f"grant select on {TABLE} to {user()}",
                lambda: f"revoke dba from {user()}",
                lambda: f"create public database link l connect to {user()} identified by {password()} using {s()}",
                lambda: f"alter session set current_schema = {user()}",
                lambda: f"audit select table by {user()}",
                lambda: f"administer key management set keystore open identified by {password()}",
                lambda: f"create profile {user()} limit sessions_per_user 1",
            )
        )(), False


class SQLServer(Maker):
    """By the grammar of its reference: no server is asked."""

    def name_quotes(self, text: str) -> str:
        """A name in brackets."""
        return f"[{text}]]x]" if self.form.random() < 0.2 else f"[{text}]"

    def comment(self) -> str:
        """To the end of a line; nested."""
        text = self.noisy(answers=False).replace("\n", "").replace("\r", "")
        inner = text.replace("/*", "").replace("*/", "")
        return self.form.choice((f"--{text}\n", f" /* it's {inner} */ ", f" /* {inner} /* ' {inner} */ \" */ "))

    def string(self) -> str:
        """Plain and national; in double quotes too, where QUOTED_IDENTIFIER is off."""
        return self.form.choice(("", "N", "n")) + self.plain(self.noisy(), self.form.choice("''\""))

    def number(self) -> str:
        """Money and binary too."""
        return self.form.choice(
            (super().number, lambda: "$" + self.digits() + ".5", lambda: "0x" + self.digits("0123456789ABCDEF"))
        )()

    def special(self) -> tuple[str, bool]:
        """Logins and users."""
        s = lambda: self.plain(self.noisy(answers=False))  # noqa: E731
        user = lambda: self.form.choice(("%s", "[%s]", "[corp\\%s]")) % self.marker(answers=False)  # noqa: E731
        return self.form.choice(
            (
                lambda: f"create login {user()} with password = {s()} must_change",
                lambda: f"alter login {user()} with password = 0x{self.digits('0123456789ABCDEF')} hashed",
                lambda: f"create user {user()} for login {user()}",
                lambda: f"alter role db_owner add member {user()}",
                lambda: f"grant select on {TABLE} to {user()}",
                lambda: f"deny select on {TABLE} to {user()}",
                lambda: f"execute as user = {s()}",
                lambda: f"alter authorization on schema::s to {user()}",
                lambda: f"create credential c with identity = {s()}, secret = {s()}",
                lambda: f"exec sp_addlogin {self.marker(answers=False)}, {self.marker(answers=False)}",
                lambda: f"select * from openrowset({s()}, {s()}; {s()}; {s()}, {TABLE})",
            )
        )(), False


#: By the database.
MAKERS: dict[str, Callable[..., Maker]] = {
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "sqlite": SQLite,
    "oracle.db": Oracle,
    "microsoft.sql_server": SQLServer,
}


def made(system: str, form: int, content: int, *, escapes: bool = False, doubles: bool = False) -> Statement:
    """
    A statement.

    Args:
        system: The database.
        form: Seed of its form.
        content: Seed of what is in its literals.
        escapes: Whether a backslash escapes in plain strings.
        doubles: Whether double quotes make strings.
    """
    return MAKERS[system](random.Random(form), random.Random(content), escapes=escapes, doubles=doubles).statement()


def leaks(text: str, markers: tuple[str, ...]) -> list[str]:
    """The markers of which a text has four characters in a row."""
    lower = text.lower()
    return [
        marker
        for marker in markers
        if any(marker[at : at + LEAK].lower() in lower for at in range(len(marker) - LEAK + 1))
    ]
