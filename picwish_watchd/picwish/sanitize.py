"""Text from outside, made fit for logs, journals and people."""

import re

#: characters that are kept of a text
MAX_TEXT_LENGTH = 300

_URL_WITH_QUERY = re.compile(r"""((?:https?|oss)://[^\s?#"'<>]*)[?#][^\s"'<>]*""", re.IGNORECASE)
_SPACES = re.compile(r"\s+")


def sanitize(text: str, secret: str = "") -> str:
    """One printable line of at most `LONGEST` characters, without ``secret`` and without the signatures of addresses.

    The signature of a result's address is its query string; whoever has it can fetch the picture.
    """
    if secret:
        text = text.replace(secret, "***")
    text = _URL_WITH_QUERY.sub(r"\1", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = _SPACES.sub(" ", text).strip()
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…"
