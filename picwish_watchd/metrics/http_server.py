"""Serving them: prometheus-client's WSGI application, ours for health, and a small, patient-with-nobody server.

A connection serves one request and is cut when that is not over in time; only a few are open at once. Whatever comes
in, be it slow, endless or no HTTP at all, costs one of these few threads for some seconds, and never the event loop.
"""

import errno
import hmac
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import IO, Any, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from picwish_watchd.config.strings import ListenAddress
from picwish_watchd.errors import ConfigError
from picwish_watchd.metrics import health
from picwish_watchd.metrics.collector import Families
from picwish_watchd.metrics.probes import Survey

_log = structlog.get_logger()

# connections at once; with one more, the oldest is cut
_OPEN_MAX = 8
# seconds for which a client may say, or take, nothing
_SILENCE = 5.0
# seconds for a connection as a whole
_DEADLINE = 10.0
# seconds between looks at deadlines, and until a server that is told to has ended
_TURN = 0.2
# bytes of a request line (http.server)
_LINE_MAX = 65536
_ADVICE = {
    errno.EADDRINUSE: "another program, or another picwish-watchd, may have that port: `ss -ltnp` tells; choose "
    "another one under http.listen",
    errno.EACCES: "ports below 1024 are not for a service without privileges: choose a higher one under http.listen",
    errno.EADDRNOTAVAIL: "this machine has no such address, or not yet: `ip address` tells",
}

#: status, headers, body
Answer = tuple[str, list[tuple[str, str]], bytes]


class Application:
    """The WSGI application: ``/metrics`` and ``/healthz``, for GET and HEAD."""

    def __init__(self, survey: Survey, token: str | None) -> None:
        """With a ``token``, every request must bear it."""
        self.token = token
        self._survey = survey
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Families(survey))
        self._prometheus = make_wsgi_app(registry)
        self._pages = {"/metrics": self._metrics, "/healthz": self._health}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        status, headers, body = self._answer(environ)
        whole = [*headers, ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(status, whole)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        if not self._admits(environ.get("HTTP_AUTHORIZATION", "")):
            return _text("401 Unauthorized", "a token is needed here", ("WWW-Authenticate", 'Bearer realm="metrics"'))
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            return _text("404 Not Found", "there are /metrics and /healthz here")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text("405 Method Not Allowed", "this can only be read", ("Allow", "GET, HEAD"))
        return page(environ)

    def _admits(self, authorization: str) -> bool:
        token = self.token
        if token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token.encode("latin-1"))
        return right and scheme.lower() == "bearer"

    def _metrics(self, environ: WSGIEnvironment) -> Answer:
        asked: WSGIEnvironment = {**environ, "REQUEST_METHOD": "GET"}
        try:
            return self._prometheus_answer(asked)
        except (TypeError, ValueError):
            # it stumbles over an Accept that names no version that there can be
            asked.pop("HTTP_ACCEPT", None)
            return self._prometheus_answer(asked)

    def _prometheus_answer(self, environ: WSGIEnvironment) -> Answer:
        told: list[tuple[str, list[tuple[str, str]]]] = []

        def take(status: str, headers: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], object]:
            told.append((status, headers))
            return lambda _piece: None

        body = b"".join(self._prometheus(environ, take))
        return *told[-1], body

    def _health(self, _environ: WSGIEnvironment) -> Answer:
        survey, live = self._survey, self._survey.live
        if live is None:
            found = health.starting()
        else:
            found = health.reasons(live, survey.silence(live), survey.obstacles(live.config, live.journal))
        body = json.dumps(health.answer(found), indent=2).encode() + b"\n"
        status = "503 Service Unavailable" if found else "200 OK"
        return status, [("Content-Type", "application/json")], body


class Server:
    """Listens from the moment it is made until `close`."""

    def __init__(self, address: ListenAddress, survey: Survey, token: str | None) -> None:
        """Raises `ConfigError` where it cannot listen."""
        self.address = address
        self._application = Application(survey, token)
        try:
            self._server = _Server(address, self._application)
        except OSError as error:
            raise _refusal(address, error) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_TURN,), name="http", daemon=True)
        self._thread.start()
        host, port = self._server.server_address[:2]
        #: where it listens indeed
        self.bound = ListenAddress(str(host), int(port))
        _log.info("http.listening", address=str(self.bound), token=token is not None)

    @property
    def token(self) -> str | None:
        """What each request must bear."""
        return self._application.token

    def admit(self, token: str | None) -> None:
        """Another token from the next request on."""
        self._application.token = token

    def close(self) -> None:
        """Stops listening, within `_TURN` seconds; requests that are under way end by themselves."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def try_address(address: ListenAddress) -> None:
    """Listens there for a moment. Raises `ConfigError` where that cannot be."""
    family = _family(address)
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError as error:
        raise _refusal(address, error) from None


def _refusal(address: ListenAddress, error: OSError) -> ConfigError:
    reason = f"http.listen: {address} cannot be listened on: {os.strerror(error.errno) if error.errno else error}"
    return ConfigError(reason, hint=_ADVICE.get(error.errno or 0, _ADVICE[errno.EADDRINUSE]))


def _family(address: ListenAddress) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_port = False
    request_queue_size = 64

    def __init__(self, address: ListenAddress, application: Application) -> None:
        self.address_family = _family(address)
        self._lock = threading.Lock()
        # when it was opened (monotonic), oldest first
        self._open: dict[socket.socket, float] = {}
        self._cut: set[socket.socket] = set()
        super().__init__((address.host, address.port), _Handler)
        self.serves = application

    def server_bind(self) -> None:
        # HTTPServer's would ask the DNS for our name
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # no file descriptors are left: whoever waits at the door would keep a core busy
            time.sleep(_TURN)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            going = [each for each in self._open if each not in self._cut]
            crowded = len(self._open) >= 2 * _OPEN_MAX
            if not crowded:
                self._open[request] = time.monotonic()
        if len(going) >= _OPEN_MAX:
            self._cut_off(going[0])
        if crowded:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
            self._cut.discard(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        limit = time.monotonic() - _DEADLINE
        with self._lock:
            late = [each for each, since in self._open.items() if since < limit and each not in self._cut]
        for each in late:
            self._cut_off(each)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as it is called
        """Clients that break off are no news; anything else is a bug, told in a line."""
        _complain(sys.exc_info())

    def _cut_off(self, request: socket.socket) -> None:
        with self._lock:
            if request in self._open:
                self._cut.add(request)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE
    # head and body are two writes; the second would wait 40 ms for an ACK
    disable_nagle_algorithm = True
    server_version = "picwish-watchd"
    sys_version = ""

    def handle(self) -> None:
        """One request, then the connection is closed."""
        with suppress(OSError):
            self.raw_requestline = self.rfile.readline(_LINE_MAX + 1)
            if len(self.raw_requestline) > _LINE_MAX:
                self.requestline, self.request_version, self.command = "", "", ""
                self.send_error(414)
            elif self.parse_request():
                sink = cast("IO[bytes]", self.wfile)
                answering = _Answering(self.rfile, sink, self.get_stderr(), self.get_environ(), multithread=True)
                answering.request_handler = self  # type: ignore[attr-defined]
                answering.run(cast("_Server", self.server).serves)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


class _Answering(ServerHandler):
    server_software = "picwish-watchd"

    def log_exception(self, exc_info: Any) -> None:
        """The same while answering."""
        _complain(exc_info)


def _complain(exc_info: Any) -> None:
    kind, error, _trace = exc_info
    if not issubclass(kind, OSError):
        _log.error("http.failed", reason=f"{kind.__name__}: {error}")


def _text(status: str, line: str, *headers: tuple[str, str]) -> Answer:
    return status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{line}\n".encode()
