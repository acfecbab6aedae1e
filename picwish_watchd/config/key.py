"""Secrets: where the API key and the token of ``http`` may stand, and what they must look like.

No message here ever quotes one.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from picwish_watchd.config.schema import Config, Http
from picwish_watchd.errors import ConfigError

CREDENTIAL = "picwish_api_key"
VARIABLE = "PICWISH_API_KEY"
LARGEST_FILE = 4096  #: bytes

#: Visible ASCII: what a field value may hold without quoting or folding (RFC 9110, 5.5), less white space.
_KEY = re.compile(r"[\x21-\x7e]+")

_PLACE = "put it alone into the file that http.token_file names, which others cannot read"
_WAYS = (
    f"give it as the systemd credential {CREDENTIAL} (LoadCredential=), in the environment as {VARIABLE}, "
    "or in a file named by api.key_file that others cannot read"
)


def read_key(config: Config, environ: Mapping[str, str]) -> str:
    """The API key, from the first of these that is there:

    1. the systemd credential ``$CREDENTIALS_DIRECTORY/picwish_api_key`` (systemd.exec(5), LoadCredential=),
    2. ``$PICWISH_API_KEY``,
    3. the file ``api.key_file``,
    4. ``api.key`` in the configuration, which warns.

    So what an administrator gives to this one process goes before what the file says. A source that is there and
    unusable is an error, never passed over for the next: the key that is used must be the key that was meant.
    A final line break is dropped. Raises `ConfigError` for a key that is missing, empty, no header value, or in a file
    that cannot be read, is not a regular file, is larger than 4096 bytes or can be read by others (mode o+r).
    """
    for source, key in _candidates(config, environ):
        return _checked(key, source, f"put the key there, or take it away and {_WAYS}")
    raise ConfigError("no API key", hint=_WAYS)


def read_token(http: Http) -> str | None:
    """What each request must bear, from ``http.token_file``; None without one.

    The file is judged as that of the key is. Raises `ConfigError`.
    """
    if http.token_file is None:
        return None
    what = "the token file"
    token = read_private(http.token_file, what, _PLACE).decode("latin-1")
    return _checked(token, f"{what} {http.token_file}", _PLACE)


def _candidates(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and os.path.lexists(os.path.join(folder, CREDENTIAL)):
        path = Path(folder, CREDENTIAL)
        yield f"the credential {path}", _from_file(path)
    if VARIABLE in environ:
        yield f"${VARIABLE}", environ[VARIABLE]
    if config.api.key_file is not None:
        yield f"the key file {config.api.key_file}", _from_file(config.api.key_file)
    if config.api.key is not None:
        yield "api.key", config.api.key.get_secret_value()


def read_private(path: Path, what: str, hint: str) -> bytes:
    """The content of a file that holds a secret; ``what`` names it in messages ("the key file").

    Raises `ConfigError`, with ``hint`` where that may help, if it cannot be read, is not a regular file, is larger than
    4096 bytes or can be read by others (mode o+r).
    """
    try:
        # O_NONBLOCK: a pipe that nobody writes to must not stop the daemon before it has said anything.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be opened: {error.strerror}", hint=hint) from None
    try:
        return _content(path, fd, what, hint)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}", hint=hint) from None
    finally:
        os.close(fd)


def _content(path: Path, fd: int, what: str, hint: str) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{what} {path} is not a regular file", hint=hint)
    if status.st_mode & stat.S_IROTH:
        raise ConfigError(
            f"{what} {path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod 0640 {path}, or 0600",
        )
    content = os.read(fd, LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{what} {path} is larger than {LARGEST_FILE} bytes", hint="it holds the secret alone")
    return content


def _from_file(path: Path) -> str:
    return read_private(path, "the key file", _WAYS).decode("latin-1")


def _checked(key: str, source: str, ways: str) -> str:
    key = key.rstrip("\r\n")
    if not key:
        raise ConfigError(f"{source} is empty", hint=ways)
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"{source} holds white space, control characters or characters outside ASCII",
            hint="copy it again, alone, without quotes or a byte order mark",
        )
    return key
