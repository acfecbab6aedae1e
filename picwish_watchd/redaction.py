"""Keep secrets out of logs, messages and errors: everything that this process has read as a secret is masked."""

#: Characters. A shorter secret would be found inside many ordinary words.
_MIN_LENGTH = 4
_MASK = "***"

# Entries are only added, so no thread can lose what another one has added.
_secrets: dict[str, None] = {}


def register_secret(secret: str) -> str:
    """Mask ``secret`` from now on, for as long as the process lives; return it. For any thread."""
    if len(secret) >= _MIN_LENGTH:
        _secrets[secret] = None
    return secret


def redact(text: str) -> str:
    """Return ``text`` with ``***`` in place of each registered secret."""
    # The longest first: one secret may be part of another.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text
