"""Errors that end a command, each with the exit code that scripts rely on."""

import pytest

from picwish_watchd.errors import ConfigError, JournalBusyError, JournalError, UsageError, WatchdError


@pytest.mark.parametrize(
    ("error", "code"),
    [(WatchdError, 1), (UsageError, 2), (JournalError, 74), (JournalBusyError, 75), (ConfigError, 78)],
)
def test_each_error_ends_a_command_with_its_own_code(error: type[WatchdError], code: int) -> None:
    assert error("what went wrong").exit_code == code


def test_a_busy_journal_is_a_journal_error_and_all_errors_are_one_kind() -> None:
    assert issubclass(JournalBusyError, JournalError)
    assert {UsageError, JournalError, ConfigError} == set(WatchdError.__subclasses__())


def test_an_error_has_a_message_and_maybe_a_hint() -> None:
    error = ConfigError("no key", hint="set api.key_file")
    assert (str(error), error.message, error.hint) == ("no key", "no key", "set api.key_file")
    assert ConfigError("no key").hint is None
