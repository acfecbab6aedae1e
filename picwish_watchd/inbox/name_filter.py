"""Decide by its name whether a file is an image for a rule."""

import fnmatch
import re
from collections.abc import Iterable

#: Names that NAS systems, desktops, browsers and copy programs leave behind; never an image to process.
JUNK_PATTERNS = (
    ".*",
    "@eaDir",
    "#recycle",
    "@Recycle",
    "@Recently-Snapshot",
    "#snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__MACOSX",
    "Thumbs.db",
    "desktop.ini",
    "*.part",
    "*.partial",
    "*.tmp",
    "*.temp",
    "*.crdownload",
    "*.download",
    "*.filepart",
    "*.!qB",
    "~$*",
    "~syncthing~*",
    "*~",
)


IMAGE_SUFFIX = re.compile(r"\.(jpe?g|bmp|png|webp|tiff?|url|webloc)$", re.IGNORECASE)


class NameFilter:
    """The names that a rule takes: ``include`` without ``exclude`` and `JUNK_PATTERNS`. Globs ignore case.

    A pattern with a slash is matched against the path below the inbox, any other against the name.
    """

    def __init__(self, include: Iterable[str], exclude: Iterable[str]) -> None:
        exclude = tuple(exclude)
        self._include = _GlobSet(include)
        self._exclude = _GlobSet(exclude)
        self._junk = _GlobSet(JUNK_PATTERNS)
        self._exclude_patterns = exclude

    def is_ignored(self, name: str, relative: str) -> bool:
        """Return whether a junk pattern or ``exclude`` matches; a folder that matches is not entered.

        ``relative`` is the path below the inbox.
        """
        return self._junk.match(name, relative) or self._exclude.match(name, relative)

    def find_ignoring_pattern(self, name: str, relative: str) -> str | None:
        """Return the pattern for which `is_ignored` is true, with its list, in words; None if it is false."""
        for patterns, what in ((JUNK_PATTERNS, "the built-in junk pattern"), (self._exclude_patterns, "exclude:")):
            for pattern in patterns:
                if _GlobSet([pattern]).match(name, relative):
                    return f'{what} "{pattern}"'
        return None

    def is_included(self, name: str, relative: str) -> bool:
        """Return whether ``include`` matches. Check `is_ignored` first."""
        return self._include.match(name, relative)


class _GlobSet:
    def __init__(self, patterns: Iterable[str]) -> None:
        self._by_name = _compile_globs(pattern for pattern in patterns if "/" not in pattern)
        self._by_path = _compile_globs(pattern for pattern in patterns if "/" in pattern)

    def match(self, name: str, relative: str) -> bool:
        if self._by_name is not None and self._by_name.match(name):
            return True
        return self._by_path is not None and self._by_path.match(relative) is not None


def _compile_globs(patterns: Iterable[str]) -> re.Pattern[str] | None:
    sources = [fnmatch.translate(pattern) for pattern in patterns]
    return re.compile("|".join(sources), re.IGNORECASE) if sources else None
