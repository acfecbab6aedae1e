"""Races, made to happen: something is done by somebody else right before or after a call to the system."""

import os
from collections.abc import Callable
from typing import Any

import pytest


def run_after_call(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[], object]) -> None:
    """Lets ``act`` happen right after the next ``os.<call>``, once."""
    real = getattr(os, call)

    def call_and_act(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(os, call, real)
        found = real(*args, **kwargs)
        act()
        return found

    monkeypatch.setattr(os, call, call_and_act)


def run_before_call(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[], object]) -> None:
    """Lets ``act`` happen right before the next ``os.<call>``, once."""
    real = getattr(os, call)

    def act_and_call(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(os, call, real)
        act()
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, act_and_call)


def fail_next_call(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Lets the next ``os.<call>`` fail with that errno."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    run_before_call(monkeypatch, call, fail)
