"""What this process has read as a secret, it never tells: neither in the log nor to people nor in an error."""

import threading

_LEAST = 4  # characters; a shorter one would be found in every other word, and is no secret worth the name
_HIDDEN = "***"

_lock = threading.Lock()
_secrets: tuple[str, ...] = ()  # the longest first: one may be a part of another


def keep(secret: str) -> str:
    """Hides it from now on, for as long as the process lives; answers it. From any thread."""
    global _secrets
    with _lock:
        if len(secret) >= _LEAST and secret not in _secrets:
            _secrets = tuple(sorted((*_secrets, secret), key=len, reverse=True))
    return secret


def hide(text: str) -> str:
    """The text with ``***`` in the place of each secret."""
    for secret in _secrets:
        text = text.replace(secret, _HIDDEN)
    return text
