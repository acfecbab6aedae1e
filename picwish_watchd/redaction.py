"""What this process has read as a secret, it never tells: neither in the log nor to people nor in an error."""

# characters; a shorter one would be found in every other word, and is no secret worth the name
_MIN_LENGTH = 4
_MASK = "***"

# only ever added to: no thread can lose what another one keeps
_secrets: dict[str, None] = {}


def register_secret(secret: str) -> str:
    """Hides it from now on, for as long as the process lives; answers it. From any thread."""
    if len(secret) >= _MIN_LENGTH:
        _secrets[secret] = None
    return secret


def redact(text: str) -> str:
    """The text with ``***`` in the place of each secret."""
    # the longest first: one may be a part of another
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text
