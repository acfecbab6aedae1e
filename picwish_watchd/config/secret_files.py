"""Files that hold a secret: one way to read them, and nobody else's eyes on them. No message ever quotes one."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.errors import ConfigError
from picwish_watchd.redaction import register_secret

#: the name of the credential that holds the API key
API_KEY_CREDENTIAL = "picwish_api_key"
#: bytes
MAX_SECRET_SIZE = 4096

#: Visible ASCII: what a field value may hold without quoting or folding (RFC 9110, 5.5), less white space.
_SECRET_PATTERN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file that the configuration names, and how it is spoken of.

    Where systemd hands the process a credential of the file's name (``LoadCredential=smtp.password:/etc/...``), that
    is read in its stead: then root alone needs to be able to read the file.
    """

    path: Path
    #: under which the configuration names it
    key: str
    #: "the token file"
    description: str
    #: what it is to hold
    hint: str

    def read(self, environ: Mapping[str, str] | None = None) -> str:
        """What it holds; each line of it is hidden from now on (`picwish_watchd.redaction`).

        Raises `ConfigError` if it cannot be read, is not a regular file, is larger than 4096 bytes or can be read by
        others (mode o+r).
        """
        handed = find_credential(self.path.name, os.environ if environ is None else environ)
        content = read_secret_file(handed or self.path, self.description, self.hint)
        for line in content.splitlines():
            register_secret(line.strip())
        return content

    def read_secret(self, environ: Mapping[str, str] | None = None) -> str:
        """The one word that it holds. Raises `ConfigError`, also for what is empty or more than a word."""
        return validate_secret(self.read(environ), f"{self.description} {self.path}", self.hint)

    def read_lines(self, environ: Mapping[str, str] | None = None) -> list[tuple[int, str]]:
        """Its lines with their numbers, less empty ones and comments (``#``)."""
        numbered = enumerate(map(str.strip, self.read(environ).splitlines()), 1)
        return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def find_credential(name: str, environ: Mapping[str, str]) -> Path | None:
    """Where systemd laid the credential of this name for this process, if it did (systemd.exec(5), LoadCredential=)."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder, name) if folder and os.path.lexists(os.path.join(folder, name)) else None


def read_secret_file(path: Path, what: str, hint: str) -> str:
    """The content of a file that holds a secret; ``what`` names it in messages ("the key file"), with ``hint``.

    Raises `ConfigError` as `PrivateFile.read` does. What is not UTF-8 becomes U+FFFD.
    """
    try:
        # O_NONBLOCK: a pipe that nobody writes to must not stop the daemon before it has said anything.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be opened: {error.strerror}", hint=hint) from None
    try:
        return _read_checked(path, fd, what, hint)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}", hint=hint) from None
    finally:
        os.close(fd)


def _read_checked(path: Path, fd: int, what: str, hint: str) -> str:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{what} {path} is not a regular file", hint=hint)
    if status.st_mode & stat.S_IROTH:
        raise ConfigError(
            f"{what} {path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod 0640 {path}, or 0600",
        )
    content = os.read(fd, MAX_SECRET_SIZE + 1)
    if len(content) > MAX_SECRET_SIZE:
        raise ConfigError(
            f"{what} {path} is larger than {MAX_SECRET_SIZE} bytes", hint=f"it holds nothing else; {hint}"
        )
    return content.decode("utf-8", "replace")


def validate_secret(text: str, source: str, hint: str) -> str:
    """A secret of one word, less its final line break, hidden from now on.

    Raises `ConfigError` that names ``source`` if it is empty or no header value.
    """
    word = register_secret(text.rstrip("\r\n"))
    if not word:
        raise ConfigError(f"{source} is empty", hint=hint)
    if not _SECRET_PATTERN.fullmatch(word):
        raise ConfigError(
            f"{source} holds white space, control characters or characters outside ASCII",
            hint="copy it again, alone, without quotes or a byte order mark",
        )
    return word
