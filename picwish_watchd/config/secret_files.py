"""Read files that hold a secret. Files that other users can read are refused, and no message quotes a secret."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.errors import ConfigError
from picwish_watchd.redaction import register_secret

#: Name of the systemd credential that holds the API key.
API_KEY_CREDENTIAL = "picwish_api_key"
#: Bytes.
MAX_SECRET_SIZE = 4096

#: Visible ASCII characters: what a header value may have without quoting or folding (RFC 9110, 5.5), without spaces.
_SECRET_PATTERN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file of a secret that the configuration names, with what messages call it.

    If systemd gives the process a credential of the file's name (``LoadCredential=smtp.password:/etc/...``), that is
    read instead. Then only root needs to be able to read the file.
    """

    path: Path
    #: The key of the configuration that names it.
    key: str
    #: What messages call it: "the token file".
    description: str
    #: What a person should do about a file that cannot be used.
    hint: str

    def read(self, environ: Mapping[str, str] | None = None) -> str:
        """Return the content; each line is redacted in all output from now on (`picwish_watchd.redaction`).

        Raises `ConfigError` if the file cannot be read, is not a regular file, is larger than 4096 bytes, or can be
        read by others (mode o+r).
        """
        credential = find_credential(self.path.name, os.environ if environ is None else environ)
        content = read_secret_file(credential or self.path, self.description, self.hint)
        for line in content.splitlines():
            register_secret(line.strip())
        return content

    def read_secret(self, environ: Mapping[str, str] | None = None) -> str:
        """Return the content, which has to be one word. Raises `ConfigError`, also if it is empty or more."""
        return validate_secret(self.read(environ), f"{self.description} {self.path}", self.hint)

    def read_lines(self, environ: Mapping[str, str] | None = None) -> list[tuple[int, str]]:
        """Return (line number, line), without empty lines and comments (``#``). Raises `ConfigError`."""
        numbered = enumerate(map(str.strip, self.read(environ).splitlines()), 1)
        return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def find_credential(name: str, environ: Mapping[str, str]) -> Path | None:
    """Return the path of this process's systemd credential of this name, if any (systemd.exec(5), LoadCredential=)."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder, name) if folder and os.path.lexists(os.path.join(folder, name)) else None


def read_secret_file(path: Path, what: str, hint: str) -> str:
    """Return the content of a file that holds a secret; bytes that are not UTF-8 become U+FFFD.

    Raises `ConfigError` as `SecretFile.read` does; ``what`` is the file's name there ("the key file").
    """
    try:
        # O_NONBLOCK: a pipe that nobody writes to must not block the daemon.
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
            f"{what} {path} is larger than {MAX_SECRET_SIZE} bytes",
            hint=f"it should hold the secret and nothing else; {hint}",
        )
    return content.decode("utf-8", "replace")


def validate_secret(text: str, source: str, hint: str) -> str:
    """Return a secret of one word without its final line break; it is redacted in all output from now on.

    Raises `ConfigError`, which names ``source``, if it is empty or not a header value.
    """
    word = register_secret(text.rstrip("\r\n"))
    if not word:
        raise ConfigError(f"{source} is empty", hint=hint)
    if not _SECRET_PATTERN.fullmatch(word):
        raise ConfigError(
            f"{source} has white space, control characters or characters outside ASCII",
            hint="copy it again, alone, without quotes or a byte order mark",
        )
    return word
