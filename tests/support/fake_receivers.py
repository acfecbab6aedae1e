"""Receivers of notifications: a real HTTP server, a real mail server and a real program, which record what they get."""

import base64
import json
import socketserver
import ssl
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class _ThreadedServer:
    """A TCP server that serves in threads until the block ends."""

    server: socketserver.TCPServer

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


class WebhookReceiver(_ThreadedServer):
    """The receiving end of a webhook.

    ``codes`` are the status codes of the first responses; later ones are 204. Each response is sent after ``pause``
    seconds, or once ``release`` is set.
    """

    def __init__(self, *codes: int, pause: float = 0.0, headers: dict[str, str] | None = None) -> None:
        #: JSON bodies of the requests, with the status code that was sent as "answered".
        self.requests: list[dict[str, Any]] = []
        self.request_headers: list[dict[str, str]] = []
        self.release = threading.Event()
        remaining_codes = list(codes)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.request_headers.append({name.lower(): value for name, value in self.headers.items()})
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.release.wait(pause)
                code = remaining_codes.pop(0) if remaining_codes else 204
                receiver.requests.append(body | {"answered": code})
                self.send_response(code)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = _QuietHttpServer(("127.0.0.1", 0), Handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        super().__exit__(kind, error, trace)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/very-secret"

    def accepted_requests(self) -> list[dict[str, Any]]:
        """Return the requests that were answered with a code below 300."""
        return [request for request in self.requests if request["answered"] < 300]

    def subjects(self) -> list[str]:
        return [request["subject"] for request in self.accepted_requests()]


class DripServer(_ThreadedServer):
    """A server that sends ``begin``, then ``piece`` every ``pause`` seconds until the block ends."""

    def __init__(self, begin: bytes, piece: bytes, pause: float) -> None:
        finished = self._finished = threading.Event()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                # The client may have closed the connection.
                with suppress(OSError):
                    self.request.sendall(begin)
                    while not finished.wait(pause):
                        self.request.sendall(piece)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        super().__exit__(kind, error, trace)


class _QuietHttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_args: Any) -> None:
        # The client closed the connection.
        pass


@dataclass
class ReceivedMail:
    """A mail as the server received it."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    raw: bytes
    encrypted: bool


@dataclass
class MailServer(_ThreadedServer):
    """An SMTP server with the commands that smtplib uses.

    ``replies``: command -> the reply in place of the usual one.
    """

    replies: dict[str, bytes] = field(default_factory=dict)
    #: The certificate for STARTTLS, which is offered if this is set.
    tls: ssl.SSLContext | None = None
    mails: list[ReceivedMail] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        mail_server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                session = _SmtpSession(mail_server, self)
                try:
                    session.run()
                except (OSError, ValueError):
                    # The client closed the connection.
                    pass
                finally:
                    session.close()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Handler)


class _SmtpSession:
    """One SMTP session."""

    def __init__(self, mail_server: MailServer, handler: socketserver.StreamRequestHandler) -> None:
        self._mail_server = mail_server
        self._socket: Any = handler.connection
        self._file: Any = handler.rfile
        self._encrypted = False
        self._sender = ""
        self._recipients: list[str] = []

    def run(self) -> None:
        self._send(self._mail_server.replies.get("GREETING", b"220 receiver\r\n"))
        while line := self._file.readline(65536):
            command, _, rest = line.decode("utf-8").rstrip("\r\n").partition(" ")
            command = command.upper()
            if command in self._mail_server.replies:
                self._send(self._mail_server.replies[command])
            else:
                self._handle_command(command, rest)
            if command == "QUIT":
                return

    def close(self) -> None:
        """Close the connection, including its TLS layer."""
        self._file.close()
        self._socket.close()

    def _handle_command(self, command: str, rest: str) -> None:
        match command:
            case "EHLO":
                starttls = b"250-STARTTLS\r\n" if self._mail_server.tls and not self._encrypted else b""
                self._send(b"250-receiver\r\n" + starttls + b"250 AUTH PLAIN\r\n")
            case "STARTTLS" if self._mail_server.tls:
                self._send(b"220 go on\r\n")
                self._socket = self._mail_server.tls.wrap_socket(self._socket, server_side=True)
                self._file.close()
                self._file, self._encrypted = self._socket.makefile("rb"), True
            case "AUTH":
                self._mail_server.logins.append(base64.b64decode(rest.split()[1]).decode())
                self._send(b"235 welcome\r\n")
            case "MAIL":
                self._sender = rest
                self._send(b"250 ok\r\n")
            case "RCPT":
                self._recipients.append(rest)
                self._send(b"250 ok\r\n")
            case "DATA":
                self._send(b"354 go on\r\n")
                lines = []
                while (line := self._file.readline()) not in (b".\r\n", b""):
                    lines.append(line.removeprefix(b"."))
                raw = b"".join(lines)
                message = message_from_bytes(raw, policy=default)
                assert isinstance(message, EmailMessage)
                self._mail_server.mails.append(
                    ReceivedMail(self._sender, self._recipients, message, raw, self._encrypted)
                )
                self._send(b"250 taken\r\n")
            case _:
                self._send(b"250 ok\r\n" if command in ("RSET", "NOOP") else b"221 bye\r\n")

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)


def write_program(folder: Path, body: str) -> Path:
    """Write an executable Python program with this body, in which FOLDER is ``folder``."""
    path = folder / "program"
    path.write_text(f"#!{sys.executable} -S\nimport os, sys, time\nFOLDER = {str(folder)!r}\n{body}")
    path.chmod(0o755)
    return path
