"""Parse single values that are text: folders, URLs, names, the template of result names.

Each ``parse_...`` function raises `InvalidValueError` for a value that is not allowed.
"""

import ipaddress
import os
import pwd
import re
import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from picwish_watchd.config.units import InvalidValueError, closest_match

#: The fields of `Rule.filename`, of which the name of a result is made.
FILENAME_FIELDS = ("stem", "ext", "name", "rule", "type", "task_id", "job_id", "width", "height", "date", "time")
#: Fields in each of which any two results of one rule differ.
UNIQUE_FIELDS = ("stem", "name", "job_id", "task_id")

_RULE_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_VARIABLE = re.compile(r"\$\{([^}]*)(\}?)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ResolveContext:
    """What relative paths, ``~`` and ``${VAR}`` refer to."""

    #: Absolute path of the folder of the configuration file.
    folder: Path
    environ: Mapping[str, str]


def parse_text(value: object) -> str:
    """Parse text of at least one character, without line breaks and other control characters."""
    if isinstance(value, bool | int | float):
        raise InvalidValueError("text; put it in quotes")
    if not isinstance(value, str) or not value:
        raise InvalidValueError("text")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise InvalidValueError("text without line breaks and other control characters")
    return value


def parse_rule_name(value: object) -> str:
    """Parse the name of a rule: letters, digits, ``_`` and ``-``."""
    if not _RULE_NAME.fullmatch(parse_text(value)):
        raise InvalidValueError("a name of the characters A-Z, a-z, 0-9, _ and -")
    return parse_text(value)


def expand_variables(value: object, context: ResolveContext | None) -> str:
    """Replace each ``${VAR}`` in a text; without ``context`` nothing is replaced.

    A variable that is unset or empty is refused, as ``${NAS}/inbox`` must not become ``/inbox``.
    """
    if context is None:
        return parse_text(value)
    environ = context.environ

    def replacement(match: re.Match[str]) -> str:
        variable, closed = match.groups()
        if not closed or not _VARIABLE_NAME.fullmatch(variable):
            raise InvalidValueError("a variable written ${NAME}")
        if not environ.get(variable):
            raise InvalidValueError(f"a variable that is set; {variable} is not set, or empty, in the environment")
        return environ[variable]

    return _VARIABLE.sub(replacement, parse_text(value))


def parse_path(value: object, context: ResolveContext | None) -> Path:
    """Parse a path into an absolute one; relative ones start at ``context.folder``, and links are not followed.

    ``.`` and ``..`` are removed from the text. Without ``context`` the path must be absolute, and nothing in it is
    replaced.
    """
    if context is None:
        path = os.fspath(value) if isinstance(value, str | Path) else ""
    else:
        path = os.path.join(context.folder, expand_variables(_expand_tilde(parse_text(value)), context))
    if not os.path.isabs(path):
        raise InvalidValueError("an absolute path")
    return Path("/" + os.path.normpath(path).lstrip("/"))


def _expand_tilde(value: str) -> str:
    if not value.startswith("~"):
        return value
    user, slash, rest = value[1:].partition("/")
    if not user:
        return "${HOME}" + slash + rest
    try:
        return pwd.getpwnam(user).pw_dir + slash + rest
    except (KeyError, ValueError):
        raise InvalidValueError(
            f"~ or ~USER; there is no user {user!r} here (./{value} is a folder of that name)"
        ) from None


def parse_base_url(value: object, context: ResolveContext | None) -> str:
    """Parse the URL that API paths are appended to: http or https, a host, optionally a port and a path.

    A final slash is removed. User names, passwords, queries and fragments are refused and not quoted, as they may be
    secret.
    """
    url = expand_variables(value, context)
    parts = _split_url(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidValueError("a URL such as https://techhk.aoscdn.com")
    if parts.username is not None or parts.password is not None:
        raise InvalidValueError("a URL without them", found="a URL with a user name or a password")
    if "?" in url or "#" in url:
        raise InvalidValueError("a URL without them", found="a URL with a query or a fragment")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An IP address and a port to listen on; port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(value: object) -> ListenAddress:
    """Parse an address such as ``127.0.0.1:9107``, ``[::1]:9107`` or ``localhost:9107``.

    Other host names are refused, as they may resolve to any address.
    """
    if isinstance(value, ListenAddress):
        return value
    host, colon, port = parse_text(value).rpartition(":")
    try:
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not _PORT.fullmatch(port) or int(port) > 65535 or (":" in host and bare == host):
            raise ValueError(port)
        return ListenAddress(str(ipaddress.ip_address("127.0.0.1" if bare == "localhost" else bare)), int(port))
    except ValueError:
        raise InvalidValueError("an address and a port, such as 127.0.0.1:9107 or [::1]:9107") from None


def _split_url(url: str) -> SplitResult | None:
    if any(character.isspace() for character in url):
        return None
    try:
        parts = urlsplit(url)
        # The property raises ValueError for a port that is not valid.
        _ = parts.port
    except ValueError:
        return None
    return parts


def is_insecure_url(url: str) -> bool:
    """Return whether a request would be unencrypted on a network: http to a host that is not this machine.

    This machine is ``localhost`` and the loopback addresses, 127.0.0.0/8 (RFC 1122, 3.2.1.3) and ::1 (RFC 4291, 2.5.3).
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname == "localhost":
        return False
    try:
        return not ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return True


def parse_filename_template(value: object) -> str:
    """Parse the template of result names, which must stay below the outbox and give each result another name."""
    template = parse_text(value)
    fields = _template_fields(template)
    _check_components(template.format_map(dict.fromkeys(FILENAME_FIELDS, "x")))
    if not set(fields) & set(UNIQUE_FIELDS):
        raise InvalidValueError(
            f"a template with at least one of {_format_fields(UNIQUE_FIELDS)}, else all results have one name"
        )
    return template


def _template_fields(template: str) -> list[str]:
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError:
        raise InvalidValueError("a template whose braces pair up, such as {stem}.{ext}; {{ is a brace") from None
    for field, spec, conversion in parts:
        if field not in FILENAME_FIELDS:
            meant = closest_match(field or "", list(FILENAME_FIELDS))
            raise InvalidValueError(f"the fields {_format_fields(FILENAME_FIELDS)}", meant=meant and f"{{{meant}}}")
        if spec or conversion:
            raise InvalidValueError(f"{{{field}}} alone, without a format or a conversion")
    return [field or "" for field, _, _ in parts]


def _check_components(example: str) -> None:
    if example.startswith("/"):
        raise InvalidValueError("a name below the outbox, without a leading /")
    for component in example.split("/"):
        if component == "..":
            raise InvalidValueError("a name below the outbox, without ..")
        if component in ("", "."):
            raise InvalidValueError('folders and a name with one "/" between them, none of them empty or "."')


def _format_fields(fields: tuple[str, ...]) -> str:
    return ", ".join(f"{{{field}}}" for field in fields)
