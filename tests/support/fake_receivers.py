"""Those who are told: a real HTTP server, a real mail server and a real program, that keep what they hear."""

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
    """Serves in threads until the block ends."""

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
    """A webhook's other end. ``codes``: what the first requests are answered; later ones 204.

    It answers after ``pause`` seconds, or once ``let_go`` is set.
    """

    def __init__(self, *codes: int, pause: float = 0.0, headers: dict[str, str] | None = None) -> None:
        #: the JSON bodies
        self.requests: list[dict[str, Any]] = []
        self.request_headers: list[dict[str, str]] = []
        self.release = threading.Event()
        left = list(codes)
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.request_headers.append({name.lower(): value for name, value in self.headers.items()})
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.release.wait(pause)
                code = left.pop(0) if left else 204
                hook.requests.append(body | {"answered": code})
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
        """What was answered well."""
        return [each for each in self.requests if each["answered"] < 300]

    def subjects(self) -> list[str]:
        return [each["subject"] for each in self.accepted_requests()]


class DripServer(_ThreadedServer):
    """Says ``begin``, and then ``piece`` again and again with ``pause`` seconds between, until the block ends."""

    def __init__(self, begin: bytes, piece: bytes, pause: float) -> None:
        over = self._over = threading.Event()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                # the client went away
                with suppress(OSError):
                    self.request.sendall(begin)
                    while not over.wait(pause):
                        self.request.sendall(piece)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        super().__exit__(kind, error, trace)


class _QuietHttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_args: Any) -> None:
        # the client went away
        pass


@dataclass
class ReceivedMail:
    """A mail as the server took it."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    raw: bytes
    encrypted: bool


@dataclass
class MailServer(_ThreadedServer):
    """A mail server of the words that smtplib needs. ``replies``: what it says to a word instead of the usual."""

    replies: dict[str, bytes] = field(default_factory=dict)
    #: offers STARTTLS
    tls: ssl.SSLContext | None = None
    mails: list[ReceivedMail] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        post = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                talk = _SmtpSession(post, self)
                try:
                    talk.run()
                except (OSError, ValueError):
                    # the client went away
                    pass
                finally:
                    talk.close()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Handler)


class _SmtpSession:
    """One conversation."""

    def __init__(self, post: MailServer, handler: socketserver.StreamRequestHandler) -> None:
        self._post = post
        self._socket: Any = handler.connection
        self._file: Any = handler.rfile
        self._encrypted = False
        self._sender = ""
        self._recipients: list[str] = []

    def run(self) -> None:
        self._send(self._post.replies.get("GREETING", b"220 ears\r\n"))
        while line := self._file.readline(65536):
            word, _, rest = line.decode("utf-8").rstrip("\r\n").partition(" ")
            word = word.upper()
            if word in self._post.replies:
                self._send(self._post.replies[word])
            else:
                self._handle_command(word, rest)
            if word == "QUIT":
                return

    def close(self) -> None:
        """Also what was encrypted on the way."""
        self._file.close()
        self._socket.close()

    def _handle_command(self, word: str, rest: str) -> None:
        match word:
            case "EHLO":
                starttls = b"250-STARTTLS\r\n" if self._post.tls and not self._encrypted else b""
                self._send(b"250-ears\r\n" + starttls + b"250 AUTH PLAIN\r\n")
            case "STARTTLS" if self._post.tls:
                self._send(b"220 go on\r\n")
                self._socket = self._post.tls.wrap_socket(self._socket, server_side=True)
                self._file.close()
                self._file, self._encrypted = self._socket.makefile("rb"), True
            case "AUTH":
                self._post.logins.append(base64.b64decode(rest.split()[1]).decode())
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
                self._post.mails.append(ReceivedMail(self._sender, self._recipients, message, raw, self._encrypted))
                self._send(b"250 taken\r\n")
            case _:
                self._send(b"250 ok\r\n" if word in ("RSET", "NOOP") else b"221 bye\r\n")

    def _send(self, words: bytes) -> None:
        self._socket.sendall(words)


def write_program(folder: Path, body: str) -> Path:
    """A program of a few lines of Python, which finds ``folder`` as FOLDER."""
    path = folder / "tell"
    path.write_text(f"#!{sys.executable} -S\nimport os, sys, time\nFOLDER = {str(folder)!r}\n{body}")
    path.chmod(0o755)
    return path
