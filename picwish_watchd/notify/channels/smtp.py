"""Send a message by mail, through a server, with smtplib."""

import re
import smtplib
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from picwish_watchd.config.notifiers import Email, SmtpSecurity
from picwish_watchd.notify.channels.deadline import Deadline
from picwish_watchd.notify.message import (
    Message,
    MessageSent,
    SendFailed,
    SendOutcome,
    describe_exception,
    host_name,
    sanitize_message,
)

_DEFAULT_PORTS = {SmtpSecurity.STARTTLS: 587, SmtpSecurity.TLS: 465, SmtpSecurity.NONE: 25}
# Bytes that a server may send in one session.
_MAX_REPLY_BYTES = 2**18


class _UnreachableError(Exception):
    """The server did not answer at all."""


class _ReplyTooLongError(OSError):
    """The server sent more than `_MAX_REPLY_BYTES`."""


def send_mail(notifier: Email, message: Message) -> SendOutcome:
    """Hand a message to the mail server. Raises `ConfigError` if the password file cannot be used."""
    password = None
    if notifier.password_secret is not None:
        password = notifier.password_secret.read().rstrip("\r\n")
        if not password.isascii() or not (notifier.user or "").isascii():
            reason = "user or password has characters outside ASCII, which mail servers read in different ways"
            return SendFailed(reason, is_retryable=False)
    with Deadline(notifier.timeout) as deadline:
        outcome = _try_send(notifier, password, message, deadline)
    if deadline.has_passed and isinstance(outcome, SendFailed):
        return SendFailed(f"{notifier.server} {deadline.failure_reason}", is_retryable=True)
    return outcome


def _try_send(notifier: Email, password: str | None, message: Message, deadline: Deadline) -> SendOutcome:
    server = notifier.server
    try:
        refused = _run_session(notifier, password, _build_mail(notifier, message), deadline)
    except _UnreachableError as error:
        reason = f"{server} cannot be reached: {sanitize_message(str(error))}"
        return SendFailed(reason, is_retryable=True, not_accepted=True)
    except smtplib.SMTPAuthenticationError as error:
        return SendFailed(f"{server} refuses user or password ({error.smtp_code})", is_retryable=False)
    except smtplib.SMTPRecipientsRefused as error:
        return _explain_refused(notifier, error.recipients)
    except smtplib.SMTPResponseException as error:
        code = error.smtp_code
        reason = f"{server} refuses it: {code} {_render_reply(error.smtp_error)}"
        return SendFailed(reason, is_retryable=not 500 <= code < 600, not_accepted=400 <= code < 500)
    except smtplib.SMTPNotSupportedError as error:
        return SendFailed(f"{server}: {sanitize_message(str(error))}", is_retryable=False)
    except ssl.SSLCertVerificationError as error:
        reason = f"the certificate of {server} cannot be trusted: {error.verify_message}"
        return SendFailed(reason, is_retryable=False)
    except UnicodeError:
        # The name cannot be encoded for DNS.
        return SendFailed(f"{server} is not a valid host name", is_retryable=False)
    except TimeoutError:
        return SendFailed(f"{server} did not answer within {notifier.timeout:g} s", is_retryable=True)
    except (OSError, smtplib.SMTPException) as error:
        reason = f"the connection to {server} broke: {sanitize_message(describe_exception(error))}"
        return SendFailed(reason, is_retryable=True)
    return _explain_refused(notifier, refused) if refused else MessageSent()


def _run_session(
    notifier: Email, password: str | None, mail: EmailMessage, deadline: Deadline
) -> dict[str, tuple[int, bytes]]:
    """Connect, log in and send one mail; return the recipients that the server refused, with code and text."""
    try:
        server = _connect(notifier, deadline)
    except (smtplib.SMTPResponseException, ssl.SSLCertVerificationError, _ReplyTooLongError):
        # The server has answered.
        raise
    except OSError as error:
        raise _UnreachableError(describe_exception(error)) from None
    try:
        if notifier.security is SmtpSecurity.STARTTLS:
            server.starttls(context=ssl.create_default_context())
        if notifier.user is not None and password is not None:
            server.login(notifier.user, password)
        refused = server.send_message(mail, notifier.sender, list(notifier.recipients))
        # The server has accepted the mail: an error in QUIT does not matter.
        with suppress(OSError, smtplib.SMTPException):
            server.quit()
        return refused
    finally:
        server.close()


def _explain_refused(notifier: Email, recipients: dict[str, tuple[int, bytes]]) -> SendOutcome:
    """Return the failure for refused recipients. It is retried only if all were refused and each for the moment.

    If some accepted the mail, another try would send it to them twice.
    """
    listed = ", ".join(f"{address} ({code} {_render_reply(text)})" for address, (code, text) in recipients.items())
    is_temporary = len(recipients) == len(notifier.recipients) and all(code < 500 for code, _ in recipients.values())
    reason = f"{notifier.server} does not accept mail for {listed}"
    return SendFailed(reason, is_retryable=is_temporary, not_accepted=is_temporary)


def _render_reply(text: bytes | str) -> str:
    return sanitize_message(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def _build_mail(notifier: Email, message: Message) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    mail["From"] = notifier.sender
    mail["To"] = ", ".join(notifier.recipients)
    mail["Subject"] = f"[picwish-watchd {host_name()}] {message.subject}"
    mail["Date"] = format_datetime(datetime.fromtimestamp(message.at, UTC))
    word = re.sub(r"[^A-Za-z0-9.-]", "", message.id)
    mail["Message-ID"] = f"<{word}@{re.sub(r'[^A-Za-z0-9.-]', '', host_name())}.picwish-watchd>"
    # RFC 3834: keeps out-of-office replies away.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text + "\n")
    return mail


def _connect(notifier: Email, deadline: Deadline) -> smtplib.SMTP:
    port = notifier.port or _DEFAULT_PORTS[notifier.security]
    if notifier.security is SmtpSecurity.TLS:
        context = ssl.create_default_context()
        return _TlsSmtp(notifier.server, port, timeout=notifier.timeout, context=context, deadline=deadline)
    return _PlainSmtp(notifier.server, port, timeout=notifier.timeout, deadline=deadline)


class _PlainSmtp(smtplib.SMTP):
    """An SMTP session with limits: a server can neither fill our memory nor occupy the thread for ever."""

    file: Any

    def __init__(self, *args: Any, deadline: Deadline, **more: Any) -> None:
        self._deadline = deadline
        super().__init__(*args, **more)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self._deadline.watch_connection(self.sock)
            self.file = _LimitedReader(self.sock.makefile("rb"))
        return super().getreply()


class _TlsSmtp(_PlainSmtp, smtplib.SMTP_SSL):
    """An SMTP session with the limits of `_PlainSmtp`, encrypted from the first byte on."""


class _LimitedReader:
    """Reads the server's replies up to `_MAX_REPLY_BYTES` in all."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._bytes_left = _MAX_REPLY_BYTES

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        self._bytes_left -= len(line)
        if self._bytes_left < 0:
            raise _ReplyTooLongError(f"its replies have more than {_MAX_REPLY_BYTES // 1024} KiB")
        return line

    def close(self) -> None:
        self._file.close()
