"""What a person may get wrong about `make demo`: nothing is started then, and one line says what is wrong."""

from __future__ import annotations

import sys

import pytest

from examples import demo
from tests.support.handlers import handlers_put_back

PASSWORD = "hunter2-and-more"


@pytest.mark.parametrize("value", ["soon", "0", "-5", "nan", "inf", "1e9"])
def test_seconds_that_are_none_are_wrong_usage(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    `DEMO_SECONDS` is a number of seconds above 0 that is over some day; the message names it, the
    value and the range.
    """
    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setenv("DEMO_SECONDS", value)

    with pytest.raises(SystemExit) as wrong:
        demo.main()

    assert wrong.value.code == 2
    message = capsys.readouterr().err
    for part in ("DEMO_SECONDS", repr(value), "above 0"):
        assert part in message


@pytest.mark.parametrize(("value", "seconds"), [("", demo.DEFAULT_SECONDS), ("0.5", 0.5), (" 30 ", 30.0)])
def test_seconds_that_are_some_are_taken(value: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable is as none."""
    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setenv("DEMO_SECONDS", value)

    assert demo._arguments().seconds == seconds


@pytest.mark.parametrize(
    "dsn",
    [
        f"mysql://shop:{PASSWORD}@127.0.0.1:3306/shop",
        f"password={PASSWORD} [/red]",
        f"postgresql://shop:{PASSWORD}@127.0.0.1:five/shop",
        f"postgresql://shop:[/{PASSWORD}]@",
    ],
)
def test_a_dsn_that_is_none_is_named_without_its_password(
    dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The message says which variable, and what one looks like; of the value it says nothing, for a
    password may be in it.
    """
    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setenv("DEMO_DSN", dsn)

    with handlers_put_back():
        assert demo.main() == 1

    output = "".join(capsys.readouterr())
    assert "DEMO_DSN is not a DSN of PostgreSQL" in output
    assert PASSWORD not in output
