"""Deterministic races: run code right before or after a system call, as another process might."""

import os
from collections.abc import Callable
from typing import Any

import pytest


def run_after_call(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[], object]) -> None:
    """Run ``act`` right after the next call of ``os.<call>``, once."""
    real = getattr(os, call)

    def call_and_act(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(os, call, real)
        result = real(*args, **kwargs)
        act()
        return result

    monkeypatch.setattr(os, call, call_and_act)


def run_before_call(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[], object]) -> None:
    """Run ``act`` right before the next call of ``os.<call>``, once."""
    real = getattr(os, call)

    def act_and_call(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(os, call, real)
        act()
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, act_and_call)


def fail_next_call(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Let the next call of ``os.<call>`` fail with this errno."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    run_before_call(monkeypatch, call, fail)
