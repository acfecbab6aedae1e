"""A mail through a server, by smtplib."""

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
# bytes that a server may say in one conversation
_MAX_REPLY_BYTES = 2**18


class _UnreachableError(Exception):
    """There was no conversation at all."""


class _ReplyTooLongError(OSError):
    """The server talks too much."""


def send_mail(mail: Email, notice: Message) -> SendOutcome:
    """Hands the message to the server. Raises `ConfigError` for a password file that cannot be used."""
    password = None
    if mail.password_secret is not None:
        password = mail.password_secret.read().rstrip("\r\n")
        if not password.isascii() or not (mail.user or "").isascii():
            reason = "user or password has characters outside ASCII, on which mail servers do not agree"
            return SendFailed(reason, is_retryable=False)
    with Deadline(mail.timeout) as deadline:
        outcome = _try_send(mail, password, notice, deadline)
    if deadline.has_passed and isinstance(outcome, SendFailed):
        return SendFailed(f"{mail.server} {deadline.failure_reason}", is_retryable=True)
    return outcome


def _try_send(mail: Email, password: str | None, notice: Message, deadline: Deadline) -> SendOutcome:
    try:
        refused = _run_session(mail, password, _build_mail(mail, notice), deadline)
    except _UnreachableError as error:
        return SendFailed(
            f"{mail.server} cannot be reached: {sanitize_message(str(error))}", is_retryable=True, not_accepted=True
        )
    except smtplib.SMTPAuthenticationError as error:
        return SendFailed(f"{mail.server} refuses user or password ({error.smtp_code})", is_retryable=False)
    except smtplib.SMTPRecipientsRefused as error:
        return _explain_refused(mail, error.recipients)
    except smtplib.SMTPResponseException as error:
        reason = f"{mail.server} refuses it: {error.smtp_code} {_render_reply(error.smtp_error)}"
        return SendFailed(
            reason, is_retryable=not 500 <= error.smtp_code < 600, not_accepted=400 <= error.smtp_code < 500
        )
    except smtplib.SMTPNotSupportedError as error:
        return SendFailed(f"{mail.server}: {sanitize_message(str(error))}", is_retryable=False)
    except ssl.SSLCertVerificationError as error:
        return SendFailed(
            f"the certificate of {mail.server} cannot be trusted: {error.verify_message}", is_retryable=False
        )
    except UnicodeError:
        # what looks names up cannot spell it
        return SendFailed(f"{mail.server} is no name that a host can have", is_retryable=False)
    except TimeoutError:
        return SendFailed(f"{mail.server} did not answer within {mail.timeout:g} s", is_retryable=True)
    except (OSError, smtplib.SMTPException) as error:
        return SendFailed(f"{mail.server} broke off: {sanitize_message(describe_exception(error))}", is_retryable=True)
    return _explain_refused(mail, refused) if refused else MessageSent()


def _run_session(
    mail: Email, password: str | None, message: EmailMessage, deadline: Deadline
) -> dict[str, tuple[int, bytes]]:
    """From the greeting to the farewell; answers who was refused."""
    try:
        server = _connect(mail, deadline)
    except (smtplib.SMTPResponseException, ssl.SSLCertVerificationError, _ReplyTooLongError):
        # it has answered
        raise
    except OSError as error:
        raise _UnreachableError(describe_exception(error)) from None
    try:
        if mail.security is SmtpSecurity.STARTTLS:
            server.starttls(context=ssl.create_default_context())
        if mail.user is not None and password is not None:
            server.login(mail.user, password)
        refused = server.send_message(message, mail.sender, list(mail.recipients))
        # it has taken the mail: how it says goodbye is its own affair
        with suppress(OSError, smtplib.SMTPException):
            server.quit()
        return refused
    finally:
        server.close()


def _explain_refused(mail: Email, recipients: dict[str, tuple[int, bytes]]) -> SendOutcome:
    """What some recipients did not take is not sent again to the others."""
    told = ", ".join(f"{address} ({code} {_render_reply(said)})" for address, (code, said) in recipients.items())
    passing = len(recipients) == len(mail.recipients) and all(code < 500 for code, _ in recipients.values())
    return SendFailed(f"{mail.server} does not take it for {told}", is_retryable=passing, not_accepted=passing)


def _render_reply(text: bytes | str) -> str:
    return sanitize_message(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def _build_mail(mail: Email, notice: Message) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.recipients)
    message["Subject"] = f"[picwish-watchd {host_name()}] {notice.subject}"
    message["Date"] = format_datetime(datetime.fromtimestamp(notice.at, UTC))
    word = re.sub(r"[^A-Za-z0-9.-]", "", notice.id)
    message["Message-ID"] = f"<{word}@{re.sub(r'[^A-Za-z0-9.-]', '', host_name())}.picwish-watchd>"
    # RFC 3834: no holiday greetings in return
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(notice.text + "\n")
    return message


def _connect(mail: Email, deadline: Deadline) -> smtplib.SMTP:
    port = mail.port or _DEFAULT_PORTS[mail.security]
    if mail.security is SmtpSecurity.TLS:
        context = ssl.create_default_context()
        return _TlsSmtp(mail.server, port, timeout=mail.timeout, context=context, deadline=deadline)
    return _PlainSmtp(mail.server, port, timeout=mail.timeout, deadline=deadline)


class _PlainSmtp(smtplib.SMTP):
    """A conversation with an end: a server can neither fill our memory nor keep us for ever."""

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
    """The same, encrypted from the first byte on."""


class _LimitedReader:
    """What the server says, up to a limit."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._bytes_left = _MAX_REPLY_BYTES

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        self._bytes_left -= len(line)
        if self._bytes_left < 0:
            raise _ReplyTooLongError("it says more than any mail server has to say")
        return line

    def close(self) -> None:
        self._file.close()
