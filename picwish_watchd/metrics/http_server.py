"""Serve metrics and health: prometheus-client's WSGI application, one for health, and a small server with hard limits.

A connection serves one request and is cut if that takes too long; only a few are open at once. A client that is slow,
sends without end or speaks no HTTP costs one of these few threads for some seconds, and never the event loop.
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
from picwish_watchd.metrics.collector import MetricsCollector
from picwish_watchd.metrics.probes import StatusProbe

_log = structlog.get_logger()

# Open connections; with one more, the oldest is cut.
_MAX_CONNECTIONS = 8
# Seconds of silence of a client, in either direction.
_SOCKET_TIMEOUT = 5.0
# Seconds for a connection as a whole.
_CONNECTION_TIMEOUT = 10.0
# Seconds between checks of the deadlines, and until a server that should end has ended.
_POLL_INTERVAL = 0.2
# Bytes of a request line, as in http.server.
_MAX_REQUEST_LINE = 65536
_LISTEN_ADVICE = {
    errno.EADDRINUSE: "another program, or another picwish-watchd, may have that port: `ss -ltnp` shows it; choose "
    "another one under http.listen",
    errno.EACCES: "a service without privileges cannot use ports below 1024: choose a higher one under http.listen",
    errno.EADDRNOTAVAIL: "this machine has no such address, or not yet: `ip address` shows its addresses",
}

#: Status, headers, body.
WsgiResponse = tuple[str, list[tuple[str, str]], bytes]


class MetricsApplication:
    """The WSGI application: ``/metrics`` and ``/healthz``, for GET and HEAD."""

    def __init__(self, status_probe: StatusProbe, token: str | None) -> None:
        """If there is a ``token``, every request must carry it."""
        self.token = token
        self._status_probe = status_probe
        registry = CollectorRegistry(auto_describe=False)
        registry.register(MetricsCollector(status_probe))
        self._prometheus_app = make_wsgi_app(registry)
        self._pages = {"/metrics": self._serve_metrics, "/healthz": self._serve_health}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        status, headers, body = self._respond(environ)
        all_headers = [*headers, ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(status, all_headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _respond(self, environ: WSGIEnvironment) -> WsgiResponse:
        if not self._is_authorized(environ.get("HTTP_AUTHORIZATION", "")):
            return _text_response(
                "401 Unauthorized", "a token is required", ("WWW-Authenticate", 'Bearer realm="metrics"')
            )
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            return _text_response("404 Not Found", "not found; there are /metrics and /healthz")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text_response("405 Method Not Allowed", "only GET and HEAD are allowed", ("Allow", "GET, HEAD"))
        return page(environ)

    def _is_authorized(self, authorization: str) -> bool:
        token = self.token
        if token is None:
            return True
        scheme, _, credentials = authorization.partition(" ")
        is_match = hmac.compare_digest(credentials.strip().encode("latin-1", "replace"), token.encode("latin-1"))
        return is_match and scheme.lower() == "bearer"

    def _serve_metrics(self, environ: WSGIEnvironment) -> WsgiResponse:
        get_environ: WSGIEnvironment = {**environ, "REQUEST_METHOD": "GET"}
        try:
            return self._call_prometheus(get_environ)
        except (TypeError, ValueError):
            # prometheus-client fails on an Accept header with an impossible version.
            get_environ.pop("HTTP_ACCEPT", None)
            return self._call_prometheus(get_environ)

    def _call_prometheus(self, environ: WSGIEnvironment) -> WsgiResponse:
        responses: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _error: object = None
        ) -> Callable[[bytes], object]:
            responses.append((status, headers))
            return lambda _chunk: None

        body = b"".join(self._prometheus_app(environ, start_response))
        return *responses[-1], body

    def _serve_health(self, _environ: WSGIEnvironment) -> WsgiResponse:
        probe, loop_state = self._status_probe, self._status_probe.loop_state
        if loop_state is None:
            problems = health.startup_problems()
        else:
            findings = probe.check_health(loop_state.config, loop_state.journal)
            problems = health.find_health_problems(loop_state, probe.seconds_since_update(loop_state), findings)
        body = json.dumps(health.build_health_report(problems), indent=2).encode() + b"\n"
        status = "503 Service Unavailable" if problems else "200 OK"
        return status, [("Content-Type", "application/json")], body


class MetricsServer:
    """A server that listens from its construction until `close`."""

    def __init__(self, address: ListenAddress, status_probe: StatusProbe, token: str | None) -> None:
        """Start to listen. Raises `ConfigError` if that is not possible."""
        self.address = address
        self._application = MetricsApplication(status_probe, token)
        try:
            self._server = _WsgiServer(address, self._application)
        except OSError as error:
            raise _build_listen_error(address, error) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_INTERVAL,), name="http", daemon=True
        )
        self._thread.start()
        host, port = self._server.server_address[:2]
        #: The address with the real port, also if the configured port is 0.
        self.bound_address = ListenAddress(str(host), int(port))
        _log.info("http.listening", address=str(self.bound_address), token=token is not None)

    @property
    def token(self) -> str | None:
        """The token that each request must carry; None if there is none."""
        return self._application.token

    def replace_token(self, token: str | None) -> None:
        """Require another token, or none, from the next request on."""
        self._application.token = token

    def close(self) -> None:
        """Stop listening within `_POLL_INTERVAL` seconds. Open requests end on their own."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def check_listen_address(address: ListenAddress) -> None:
    """Listen at ``address`` for a moment. Raises `ConfigError` if that is not possible."""
    family = _address_family(address)
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError as error:
        raise _build_listen_error(address, error) from None


def _build_listen_error(address: ListenAddress, error: OSError) -> ConfigError:
    reason = f"http.listen: {address} cannot be listened on: {os.strerror(error.errno) if error.errno else error}"
    return ConfigError(reason, hint=_LISTEN_ADVICE.get(error.errno or 0, _LISTEN_ADVICE[errno.EADDRINUSE]))


def _address_family(address: ListenAddress) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


class _WsgiServer(ThreadingMixIn, WSGIServer):
    """A WSGI server with a thread for each connection, a limit of connections and a deadline for each."""

    daemon_threads = True
    allow_reuse_port = False
    request_queue_size = 64

    def __init__(self, address: ListenAddress, application: MetricsApplication) -> None:
        self.address_family = _address_family(address)
        self._lock = threading.Lock()
        # Connection -> when it was opened (monotonic seconds), oldest first.
        self._opened_at: dict[socket.socket, float] = {}
        self._aborted: set[socket.socket] = set()
        super().__init__((address.host, address.port), _RequestHandler)
        self.metrics_app = application

    def server_bind(self) -> None:
        """Bind the socket. HTTPServer's own method would ask DNS for this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> Any:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:
            # No file descriptors are left. Without a pause the waiting client would keep a core busy.
            time.sleep(_POLL_INTERVAL)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; cut the oldest if there are too many, and refuse it if there still are."""
        with self._lock:
            active = [each for each in self._opened_at if each not in self._aborted]
            crowded = len(self._opened_at) >= 2 * _MAX_CONNECTIONS
            if not crowded:
                self._opened_at[request] = time.monotonic()
        if len(active) >= _MAX_CONNECTIONS:
            self._abort_connection(active[0])
        if crowded:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and stop counting it."""
        with self._lock:
            self._opened_at.pop(request, None)
            self._aborted.discard(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut the connections that are open for too long. socketserver calls it several times a second."""
        limit = time.monotonic() - _CONNECTION_TIMEOUT
        with self._lock:
            overdue = [each for each, since in self._opened_at.items() if since < limit and each not in self._aborted]
        for each in overdue:
            self._abort_connection(each)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is socketserver's
        """Log a bug in one line. A client that disconnects is not logged."""
        _log_error(sys.exc_info())

    def _abort_connection(self, request: socket.socket) -> None:
        with self._lock:
            if request in self._opened_at:
                self._aborted.add(request)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _RequestHandler(WSGIRequestHandler):
    """Serves one request of one connection."""

    timeout = _SOCKET_TIMEOUT
    # Head and body are two writes; with Nagle's algorithm the second would wait 40 ms for an ACK.
    disable_nagle_algorithm = True
    server_version = "picwish-watchd"
    sys_version = ""

    def handle(self) -> None:
        """Serve one request, then close the connection."""
        with suppress(OSError):
            self.raw_requestline = self.rfile.readline(_MAX_REQUEST_LINE + 1)
            if len(self.raw_requestline) > _MAX_REQUEST_LINE:
                self.requestline, self.request_version, self.command = "", "", ""
                self.send_error(414)
            elif self.parse_request():
                sink = cast("IO[bytes]", self.wfile)
                response = _ResponseHandler(self.rfile, sink, self.get_stderr(), self.get_environ(), multithread=True)
                response.request_handler = self  # type: ignore[attr-defined]
                response.run(cast("_WsgiServer", self.server).metrics_app)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Do nothing: requests are not logged."""


class _ResponseHandler(ServerHandler):
    """Runs the application for one request."""

    server_software = "picwish-watchd"

    def log_exception(self, exc_info: Any) -> None:
        """Log an exception of the application in one line."""
        _log_error(exc_info)


def _log_error(exc_info: Any) -> None:
    kind, error, _trace = exc_info
    if not issubclass(kind, OSError):
        _log.error("http.failed", reason=f"{kind.__name__}: {error}")


def _text_response(status: str, line: str, *headers: tuple[str, str]) -> WsgiResponse:
    return status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{line}\n".encode()
