"""Make texts of PicWish safe for logs, the journal and people."""

import re

#: Characters of a text that are kept.
MAX_TEXT_LENGTH = 300

_URL_WITH_QUERY = re.compile(r"""((?:https?|oss)://[^\s?#"'<>]*)[?#][^\s"'<>]*""", re.IGNORECASE)
_SPACES = re.compile(r"\s+")


def sanitize(text: str, secret: str = "") -> str:
    """Return ``text`` as one printable line of at most `MAX_TEXT_LENGTH` characters, without ``secret``.

    Query strings of URLs are removed: that of a result is its signature, with which anybody can fetch the image.
    """
    if secret:
        text = text.replace(secret, "***")
    text = _URL_WITH_QUERY.sub(r"\1", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = _SPACES.sub(" ", text).strip()
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…"
