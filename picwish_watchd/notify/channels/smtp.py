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
from picwish_watchd.notify.message import Failed, Notice, Outcome, Sent, host, tame, worded

_PORTS = {SmtpSecurity.STARTTLS: 587, SmtpSecurity.TLS: 465, SmtpSecurity.NONE: 25}
# bytes that a server may say in one conversation
_MOST = 2**18


class _AwayError(Exception):
    """There was no conversation at all."""


class _BabblingError(OSError):
    """The server talks too much."""


def send(mail: Email, notice: Notice) -> Outcome:
    """Hands the message to the server. Raises `ConfigError` for a password file that cannot be used."""
    password = None
    if mail.password_secret is not None:
        password = mail.password_secret.read().rstrip("\r\n")
        if not password.isascii() or not (mail.user or "").isascii():
            reason = "user or password has characters outside ASCII, on which mail servers do not agree"
            return Failed(reason, again=False)
    with Deadline(mail.timeout) as deadline:
        outcome = _handed(mail, password, notice, deadline)
    if deadline.passed and isinstance(outcome, Failed):
        return Failed(f"{mail.server} {deadline.reason}", again=True)
    return outcome


def _handed(mail: Email, password: str | None, notice: Notice, deadline: Deadline) -> Outcome:
    try:
        refused = _converse(mail, password, _message(mail, notice), deadline)
    except _AwayError as error:
        return Failed(f"{mail.server} cannot be reached: {tame(str(error))}", again=True, unheard=True)
    except smtplib.SMTPAuthenticationError as error:
        return Failed(f"{mail.server} refuses user or password ({error.smtp_code})", again=False)
    except smtplib.SMTPRecipientsRefused as error:
        return _refused(mail, error.recipients)
    except smtplib.SMTPResponseException as error:
        reason = f"{mail.server} refuses it: {error.smtp_code} {_said(error.smtp_error)}"
        return Failed(reason, again=not 500 <= error.smtp_code < 600, unheard=400 <= error.smtp_code < 500)
    except smtplib.SMTPNotSupportedError as error:
        return Failed(f"{mail.server}: {tame(str(error))}", again=False)
    except ssl.SSLCertVerificationError as error:
        return Failed(f"the certificate of {mail.server} cannot be trusted: {error.verify_message}", again=False)
    except UnicodeError:
        # what looks names up cannot spell it
        return Failed(f"{mail.server} is no name that a host can have", again=False)
    except TimeoutError:
        return Failed(f"{mail.server} did not answer within {mail.timeout:g} s", again=True)
    except (OSError, smtplib.SMTPException) as error:
        return Failed(f"{mail.server} broke off: {tame(worded(error))}", again=True)
    return _refused(mail, refused) if refused else Sent()


def _converse(
    mail: Email, password: str | None, message: EmailMessage, deadline: Deadline
) -> dict[str, tuple[int, bytes]]:
    """From the greeting to the farewell; answers who was refused."""
    try:
        server = _connect(mail, deadline)
    except (smtplib.SMTPResponseException, ssl.SSLCertVerificationError, _BabblingError):
        # it has answered
        raise
    except OSError as error:
        raise _AwayError(worded(error)) from None
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


def _refused(mail: Email, recipients: dict[str, tuple[int, bytes]]) -> Outcome:
    """What some recipients did not take is not sent again to the others."""
    told = ", ".join(f"{address} ({code} {_said(said)})" for address, (code, said) in recipients.items())
    passing = len(recipients) == len(mail.recipients) and all(code < 500 for code, _ in recipients.values())
    return Failed(f"{mail.server} does not take it for {told}", again=passing, unheard=passing)


def _said(text: bytes | str) -> str:
    return tame(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def _message(mail: Email, notice: Notice) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.recipients)
    message["Subject"] = f"[picwish-watchd {host()}] {notice.subject}"
    message["Date"] = format_datetime(datetime.fromtimestamp(notice.at, UTC))
    word = re.sub(r"[^A-Za-z0-9.-]", "", notice.id)
    message["Message-ID"] = f"<{word}@{re.sub(r'[^A-Za-z0-9.-]', '', host())}.picwish-watchd>"
    # RFC 3834: no holiday greetings in return
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(notice.text + "\n")
    return message


def _connect(mail: Email, deadline: Deadline) -> smtplib.SMTP:
    port = mail.port or _PORTS[mail.security]
    if mail.security is SmtpSecurity.TLS:
        context = ssl.create_default_context()
        return _OverTls(mail.server, port, timeout=mail.timeout, context=context, deadline=deadline)
    return _Plain(mail.server, port, timeout=mail.timeout, deadline=deadline)


class _Plain(smtplib.SMTP):
    """A conversation with an end: a server can neither fill our memory nor keep us for ever."""

    file: Any

    def __init__(self, *args: Any, deadline: Deadline, **more: Any) -> None:
        self._deadline = deadline
        super().__init__(*args, **more)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self._deadline.watch(self.sock)
            self.file = _Ear(self.sock.makefile("rb"))
        return super().getreply()


class _OverTls(_Plain, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte on."""


class _Ear:
    """What the server says, up to a limit."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _MOST

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise _BabblingError("it says more than any mail server has to say")
        return line

    def close(self) -> None:
        self._file.close()
