"""Settings: where they come from, and what becomes of wrong ones."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError, fields

import pytest

from poolscope.config import PREFIX, Settings, rules

DEFAULTS = Settings()


def read(caplog: pytest.LogCaptureFixture, variables: dict[str, str] | None = None, **overrides: object) -> Settings:
    """Read settings from these variables and keywords alone."""
    with caplog.at_level(logging.WARNING, "poolscope"):
        return Settings.read(overrides, variables or {})


def test_without_anything_said_the_defaults_hold(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing given, nothing set, nothing logged."""
    assert read(caplog) == DEFAULTS
    assert caplog.text == ""


def test_settings_are_frozen() -> None:
    """Once read, they do not change."""
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.enabled = False  # type: ignore[misc]


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables come from the environment where no other is given."""
    monkeypatch.setenv("POOLSCOPE_STACK_DEPTH", "9")
    assert Settings.read().stack_depth == 9


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        ("enabled", "false", False),
        ("enabled", " Off ", False),
        ("enabled", "1", True),
        ("hold_spans", "no", False),
        ("native_aggregation", "0", False),
        ("disabled_adapters", "asyncpg, psycopg_pool,", ("asyncpg", "psycopg_pool")),
        ("application_paths", "/srv/app", ("/srv/app",)),
        ("checkout_spans", "ALWAYS", "always"),
        ("checkout_span_threshold", "0.25", 0.25),
        ("checkout_span_threshold", "0", 0.0),
        ("stack_depth", "100", 100),
        ("max_pools", "1", 1),
    ],
)
def test_a_variable_is_read(caplog: pytest.LogCaptureFixture, setting: str, text: str, value: object) -> None:
    """Each setting is the variable of its name in capitals, behind the prefix."""
    assert getattr(read(caplog, {PREFIX + setting.upper(): text}), setting) == value
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("enabled", False),
        ("disabled_adapters", ("asyncpg",)),
        ("checkout_span_threshold", 2),
        ("stack_depth", 7),
        ("checkout_spans", "never"),
    ],
)
def test_a_keyword_wins_over_the_variable(caplog: pytest.LogCaptureFixture, setting: str, value: object) -> None:
    """What is given in code counts, whatever the environment says; values of the right type are taken as they are."""
    settings = read(caplog, {PREFIX + setting.upper(): "nonsense"}, **{setting: value})
    assert getattr(settings, setting) == value
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("enabled", "perhaps"),
        ("disabled_adapters", 5),
        ("disabled_adapters", [1]),
        ("checkout_spans", "often"),
        ("checkout_span_threshold", "soon"),
        ("checkout_span_threshold", "-1"),
        ("checkout_span_threshold", "inf"),
        ("checkout_span_threshold", "nan"),
        ("checkout_span_threshold", True),
        ("stack_depth", "0"),
        ("stack_depth", "101"),
        ("stack_depth", "5.5"),
        ("stack_depth", True),
    ],
)
def test_a_wrong_value_is_named_and_the_default_used(
    caplog: pytest.LogCaptureFixture, setting: str, value: object
) -> None:
    """One warning with the setting, the value and what is allowed; the application starts all the same."""
    settings = read(caplog, **{setting: value})
    assert settings == DEFAULTS
    (record,) = caplog.records
    message = record.getMessage()
    assert setting in message
    assert (f"a {type(value).__name__}" if isinstance(value, (list, tuple)) else repr(value)) in message
    assert rules()[setting][1].allowed in message


def test_a_wrong_variable_is_named_as_the_variable(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names what the reader can look for."""
    assert read(caplog, {"POOLSCOPE_MAX_POOLS": "many"}) == DEFAULTS
    assert "POOLSCOPE_MAX_POOLS='many'" in caplog.text


def test_an_empty_variable_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """Set to nothing is not set."""
    assert read(caplog, {"POOLSCOPE_ENABLED": "  "}) == DEFAULTS
    assert caplog.text == ""


def test_an_unknown_keyword_is_named_with_the_known_ones(caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt setting does not pass in silence, nor does it stop the application."""
    assert read(caplog, enable=False) == DEFAULTS
    assert "Unknown settings, ignored: enable. Known settings: " in caplog.text
    for setting in fields(Settings):
        assert setting.name in caplog.text


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("POOLSCOPE_LEAK_TRESHOLD", "POOLSCOPE_LEAK_THRESHOLD"),
        ("POOLSCOPE_DISABLED_ADAPTER", "POOLSCOPE_DISABLED_ADAPTERS"),
        ("POOLSCOPE_ENABLE", "POOLSCOPE_ENABLED"),
    ],
)
def test_a_misspelt_variable_is_named_with_the_one_that_is_meant(
    caplog: pytest.LogCaptureFixture, variable: str, meant: str
) -> None:
    """A variable that is nearly a setting's does not pass in silence; its value, whatever it is, is not repeated."""
    assert read(caplog, {variable: "whispered"}) == DEFAULTS
    (record,) = caplog.records
    assert record.getMessage() == f"{variable}: unknown setting, ignored. Did you mean {meant}?"


@pytest.mark.parametrize("variable", ["POOLSCOPE_FLUSH_INTERVAL", "POOLSCOPE_CACHE", "LEAK_THRESHOLD"])
def test_other_peoples_variables_are_none_of_our_business(caplog: pytest.LogCaptureFixture, variable: str) -> None:
    """What is not near a setting, or has not our prefix, is somebody else's."""
    assert read(caplog, {variable: "1"}) == DEFAULTS
    assert caplog.text == ""


def test_each_setting_has_a_rule_its_default_obeys() -> None:
    """
    What the documentation's table is made of is there for every setting, and no default is one that
    would be refused.
    """
    assert set(rules()) == {setting.name for setting in fields(Settings)}
    for name, (default, rule) in rules().items():
        assert rule.allowed, name
        assert rule.description.endswith("."), name
        if default is not None:
            assert rule.parse(default) == default, name
