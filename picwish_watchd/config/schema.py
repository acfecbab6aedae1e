"""The keys of the configuration, except those of `notify:`, with their defaults and units."""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
)

from picwish_watchd.config import strings, units
from picwish_watchd.config.fields import (
    Count,
    Duration,
    DurationOrZero,
    Flag,
    Folder,
    OptionalPath,
    Patterns,
    Section,
    Size,
    parse_file_mode,
    parse_secret,
    require_nonempty,
    validate_in_context,
    validate_with,
)
from picwish_watchd.config.locate import DEFAULT_JOURNAL
from picwish_watchd.config.secret_files import SecretFile
from picwish_watchd.errors import ConfigError

_IMAGE_PATTERNS = ("*.jpg", "*.jpeg", "*.bmp", "*.png", "*.webp", "*.tif", "*.tiff")


class Charging(StrEnum):
    """What happens to a job for which it cannot be known whether PicWish charged."""

    #: It is held until a person decides.
    AT_MOST_ONCE = "at-most-once"
    #: It is queued again, and may be paid for twice.
    AT_LEAST_ONCE = "at-least-once"


class ObserverKind(StrEnum):
    """How new files are noticed between two scans of the inbox."""

    AUTO = "auto"
    #: By events of the kernel (inotify).
    NATIVE = "native"
    #: By scans only, every `rescan_interval`.
    POLLING = "polling"


class IfExists(StrEnum):
    """What happens if the outbox already has a file of the result's name."""

    RENAME = "rename"
    OVERWRITE = "overwrite"
    SKIP = "skip"


class OnSuccess(StrEnum):
    """What happens to the original once its result is in the outbox."""

    KEEP = "keep"
    MOVE = "move"
    DELETE = "delete"


class OnFailure(StrEnum):
    """What happens to the original of a rejected or failed job."""

    KEEP = "keep"
    MOVE = "move"


class Oversize(StrEnum):
    """What happens to an image that is larger than PicWish accepts."""

    REJECT = "reject"
    #: A smaller copy is made and submitted.
    DOWNSCALE = "downscale"


class LogLevel(StrEnum):
    """The least important events that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How an event is written to the log."""

    #: Console on a terminal, JSON otherwise.
    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class Api(Section):
    """How PicWish's API is used. ``repr`` never shows the key."""

    #: Without a final slash.
    base_url: Annotated[str, validate_in_context(strings.parse_base_url)] = "https://techhk.aoscdn.com"
    #: Requests per second, submissions and polls together.
    qps: Annotated[float, validate_with(units.parse_rate)] = 2.0
    #: Tasks at PicWish at a time; None: auto.
    max_pending: Annotated[int | None, validate_with(units.parse_auto_or_whole)] = None
    #: Seconds without a byte from PicWish.
    timeout: Duration = 60.0
    #: Bytes of an image.
    max_bytes: Size = 30 * 2**20
    #: Pixels of the longer side of an image.
    max_side: Count = 4096
    #: Seconds from submission to result.
    task_timeout: Duration = 900.0
    key_file: OptionalPath = None
    key: Annotated[SecretStr | None, validate_in_context(parse_secret)] = Field(default=None, repr=False)
    #: Allow http to hosts other than this machine.
    allow_insecure: Flag = False


class Rule(Section):
    """An inbox, what happens to its images, and the outbox. Paths are absolute, durations are in seconds."""

    name: Annotated[str, validate_with(strings.parse_rule_name)] = Field(description="a name, such as scans")
    inbox: Folder = Field(description="the folder that is watched")
    outbox: Folder = Field(description="the folder that results go to")
    #: 0: Ultra HD, 1: HD.
    type: Annotated[int, validate_with(units.parse_choice, among=(0, 1))] = 0
    #: 1: URL, 2: base64.
    return_type: Annotated[int, validate_with(units.parse_choice, among=(1, 2))] = 1
    #: 0: submit and poll, 1: wait for the result in one request.
    sync: Annotated[int, validate_with(units.parse_choice, among=(0, 1))] = 0
    #: Rules with a higher number go first.
    priority: Annotated[int, validate_with(units.parse_whole_number)] = 0
    recursive: Flag = True
    include: Annotated[Patterns, AfterValidator(require_nonempty)] = _IMAGE_PATTERNS
    exclude: Patterns = ()
    settle: DurationOrZero = 2.0
    settle_timeout: Duration = 600.0
    observer: Annotated[ObserverKind, validate_with(units.parse_enum, kind=ObserverKind)] = ObserverKind.AUTO
    rescan_interval: Duration = 60.0
    follow_symlinks: Flag = False
    filename: Annotated[str, validate_with(strings.parse_filename_template)] = "{stem}.{ext}"
    if_exists: Annotated[IfExists, validate_with(units.parse_enum, kind=IfExists)] = IfExists.RENAME
    file_mode: Annotated[int, validate_in_context(parse_file_mode)] = 0o644
    on_success: Annotated[OnSuccess, validate_with(units.parse_enum, kind=OnSuccess)] = OnSuccess.KEEP
    archive: OptionalPath = None
    on_failure: Annotated[OnFailure, validate_with(units.parse_enum, kind=OnFailure)] = OnFailure.KEEP
    failed: OptionalPath = None
    oversize: Annotated[Oversize, validate_with(units.parse_enum, kind=Oversize)] = Oversize.REJECT
    sidecar: Flag = False

    def folders(self) -> dict[str, Path]:
        """Return the folders that the rule names, by their keys: inbox, outbox, archive, failed."""
        named = {"inbox": self.inbox, "outbox": self.outbox, "archive": self.archive, "failed": self.failed}
        return {key: folder for key, folder in named.items() if folder is not None}

    def to_json(self) -> str:
        """Return all keys as one line of ASCII, for `from_json`."""
        return json.dumps(self.model_dump(), default=os.fspath)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the rule that `to_json` of this or another version wrote.

        Unknown keys are ignored, missing ones get their defaults.

        Raises `ConfigError` if it is not a rule.
        """
        try:
            values = json.loads(text)
            return cls.model_validate({key: value for key, value in values.items() if key in cls.model_fields})
        except (AttributeError, ValueError) as error:
            keys = ", ".join(str(e["loc"][0]) for e in error.errors()) if isinstance(error, ValidationError) else ""
            raise ConfigError(f"a remembered rule cannot be read{keys and ': wrong ' + keys}") from None


class Log(Section):
    """What is logged, and in which format."""

    level: Annotated[LogLevel, validate_with(units.parse_enum, kind=LogLevel)] = LogLevel.INFO
    format: Annotated[LogFormat, validate_with(units.parse_enum, kind=LogFormat)] = LogFormat.AUTO


class Burst(Section):
    """The limit for floods: more new images of one rule than this within a time wait for `approve`."""

    images: Count = Field(description="how many images may arrive at once, such as 500")
    #: Seconds.
    per: Duration = Field(description="within which time, such as 10m")


class Budget(Section):
    """Credits that may be spent, by local day and month; None: no limit."""

    per_day: Annotated[int | None, validate_with(units.parse_credit_limit)] = None
    per_month: Annotated[int | None, validate_with(units.parse_credit_limit)] = None
    burst: Burst | None = None


class Http(Section):
    """Where the daemon serves its metrics (`/metrics`) and its health (`/healthz`)."""

    listen: Annotated[strings.ListenAddress, validate_with(strings.parse_listen_address)] = Field(
        description="where to listen, such as 127.0.0.1:9107"
    )
    #: A file of a token that every request must have (Authorization: Bearer).
    token_file: OptionalPath = None

    @property
    def token_secret(self) -> SecretFile | None:
        """The file of the token; None: everybody who reaches the address may read."""
        if self.token_file is None:
            return None
        hint = "put only the token into the file that http.token_file names, and let no other user read it"
        return SecretFile(self.token_file, "token_file", "the token file", hint)


class General(Section):
    """The keys at the top level of the file that belong to no section."""

    journal: Folder = DEFAULT_JOURNAL
    charging: Annotated[Charging, validate_with(units.parse_enum, kind=Charging)] = Charging.AT_MOST_ONCE
    #: Bytes that have to be free in the outbox and the spool before an image is submitted.
    min_free: Size = 256 * 2**20
    #: Submissions of one image that fail at PicWish.
    max_attempts: Count = 3
    #: Seconds before the second submission of an image; they double each time, up to 300.
    retry_backoff: Annotated[float, validate_with(units.parse_duration, most=300.0)] = 2.0
    #: Seconds that histories are kept; None: for ever.
    keep: Annotated[float | None, validate_with(units.parse_retention)] = 400 * 86400.0
