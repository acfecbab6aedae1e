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
from picwish_watchd.metrics.collector import MetricsCollector
from picwish_watchd.metrics.probes import StatusProbe

_log = structlog.get_logger()

# connections at once; with one more, the oldest is cut
_MAX_CONNECTIONS = 8
# seconds for which a client may say, or take, nothing
_SOCKET_TIMEOUT = 5.0
# seconds for a connection as a whole
_CONNECTION_TIMEOUT = 10.0
# seconds between looks at deadlines, and until a server that is told to has ended
_POLL_INTERVAL = 0.2
# bytes of a request line (http.server)
_MAX_REQUEST_LINE = 65536
_LISTEN_ADVICE = {
    errno.EADDRINUSE: "another program, or another picwish-watchd, may have that port: `ss -ltnp` tells; choose "
    "another one under http.listen",
    errno.EACCES: "ports below 1024 are not for a service without privileges: choose a higher one under http.listen",
    errno.EADDRNOTAVAIL: "this machine has no such address, or not yet: `ip address` tells",
}

#: status, headers, body
WsgiResponse = tuple[str, list[tuple[str, str]], bytes]


class MetricsApplication:
    """The WSGI application: ``/metrics`` and ``/healthz``, for GET and HEAD."""

    def __init__(self, survey: StatusProbe, token: str | None) -> None:
        """With a ``token``, every request must bear it."""
        self.token = token
        self._status_probe = survey
        registry = CollectorRegistry(auto_describe=False)
        registry.register(MetricsCollector(survey))
        self._prometheus_app = make_wsgi_app(registry)
        self._pages = {"/metrics": self._serve_metrics, "/healthz": self._serve_health}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        status, headers, body = self._respond(environ)
        whole = [*headers, ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(status, whole)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _respond(self, environ: WSGIEnvironment) -> WsgiResponse:
        if not self._is_authorized(environ.get("HTTP_AUTHORIZATION", "")):
            return _text_response(
                "401 Unauthorized", "a token is needed here", ("WWW-Authenticate", 'Bearer realm="metrics"')
            )
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            return _text_response("404 Not Found", "there are /metrics and /healthz here")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text_response("405 Method Not Allowed", "this can only be read", ("Allow", "GET, HEAD"))
        return page(environ)

    def _is_authorized(self, authorization: str) -> bool:
        token = self.token
        if token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token.encode("latin-1"))
        return right and scheme.lower() == "bearer"

    def _serve_metrics(self, environ: WSGIEnvironment) -> WsgiResponse:
        asked: WSGIEnvironment = {**environ, "REQUEST_METHOD": "GET"}
        try:
            return self._call_prometheus(asked)
        except (TypeError, ValueError):
            # it stumbles over an Accept that names no version that there can be
            asked.pop("HTTP_ACCEPT", None)
            return self._call_prometheus(asked)

    def _call_prometheus(self, environ: WSGIEnvironment) -> WsgiResponse:
        told: list[tuple[str, list[tuple[str, str]]]] = []

        def take(status: str, headers: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], object]:
            told.append((status, headers))
            return lambda _piece: None

        body = b"".join(self._prometheus_app(environ, take))
        return *told[-1], body

    def _serve_health(self, _environ: WSGIEnvironment) -> WsgiResponse:
        survey, live = self._status_probe, self._status_probe.loop_state
        if live is None:
            found = health.startup_problems()
        else:
            found = health.find_health_problems(
                live, survey.seconds_since_update(live), survey.check_health(live.config, live.journal)
            )
        body = json.dumps(health.build_health_report(found), indent=2).encode() + b"\n"
        status = "503 Service Unavailable" if found else "200 OK"
        return status, [("Content-Type", "application/json")], body


class MetricsServer:
    """Listens from the moment it is made until `close`."""

    def __init__(self, address: ListenAddress, survey: StatusProbe, token: str | None) -> None:
        """Raises `ConfigError` where it cannot listen."""
        self.address = address
        self._application = MetricsApplication(survey, token)
        try:
            self._server = _WsgiServer(address, self._application)
        except OSError as error:
            raise _build_listen_error(address, error) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_INTERVAL,), name="http", daemon=True
        )
        self._thread.start()
        host, port = self._server.server_address[:2]
        #: where it listens indeed
        self.bound_address = ListenAddress(str(host), int(port))
        _log.info("http.listening", address=str(self.bound_address), token=token is not None)

    @property
    def token(self) -> str | None:
        """What each request must bear."""
        return self._application.token

    def replace_token(self, token: str | None) -> None:
        """Another token from the next request on."""
        self._application.token = token

    def close(self) -> None:
        """Stops listening, within `_TURN` seconds; requests that are under way end by themselves."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def check_listen_address(address: ListenAddress) -> None:
    """Listens there for a moment. Raises `ConfigError` where that cannot be."""
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
    daemon_threads = True
    allow_reuse_port = False
    request_queue_size = 64

    def __init__(self, address: ListenAddress, application: MetricsApplication) -> None:
        self.address_family = _address_family(address)
        self._lock = threading.Lock()
        # when it was opened (monotonic), oldest first
        self._opened_at: dict[socket.socket, float] = {}
        self._aborted: set[socket.socket] = set()
        super().__init__((address.host, address.port), _RequestHandler)
        self.metrics_app = application

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
            time.sleep(_POLL_INTERVAL)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            going = [each for each in self._opened_at if each not in self._aborted]
            crowded = len(self._opened_at) >= 2 * _MAX_CONNECTIONS
            if not crowded:
                self._opened_at[request] = time.monotonic()
        if len(going) >= _MAX_CONNECTIONS:
            self._abort_connection(going[0])
        if crowded:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._opened_at.pop(request, None)
            self._aborted.discard(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        limit = time.monotonic() - _CONNECTION_TIMEOUT
        with self._lock:
            late = [each for each, since in self._opened_at.items() if since < limit and each not in self._aborted]
        for each in late:
            self._abort_connection(each)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as it is called
        """Clients that break off are no news; anything else is a bug, told in a line."""
        _log_error(sys.exc_info())

    def _abort_connection(self, request: socket.socket) -> None:
        with self._lock:
            if request in self._opened_at:
                self._aborted.add(request)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _RequestHandler(WSGIRequestHandler):
    timeout = _SOCKET_TIMEOUT
    # head and body are two writes; the second would wait 40 ms for an ACK
    disable_nagle_algorithm = True
    server_version = "picwish-watchd"
    sys_version = ""

    def handle(self) -> None:
        """One request, then the connection is closed."""
        with suppress(OSError):
            self.raw_requestline = self.rfile.readline(_MAX_REQUEST_LINE + 1)
            if len(self.raw_requestline) > _MAX_REQUEST_LINE:
                self.requestline, self.request_version, self.command = "", "", ""
                self.send_error(414)
            elif self.parse_request():
                sink = cast("IO[bytes]", self.wfile)
                answering = _ResponseHandler(self.rfile, sink, self.get_stderr(), self.get_environ(), multithread=True)
                answering.request_handler = self  # type: ignore[attr-defined]
                answering.run(cast("_WsgiServer", self.server).metrics_app)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


class _ResponseHandler(ServerHandler):
    server_software = "picwish-watchd"

    def log_exception(self, exc_info: Any) -> None:
        """The same while answering."""
        _log_error(exc_info)


def _log_error(exc_info: Any) -> None:
    kind, error, _trace = exc_info
    if not issubclass(kind, OSError):
        _log.error("http.failed", reason=f"{kind.__name__}: {error}")


def _text_response(status: str, line: str, *headers: tuple[str, str]) -> WsgiResponse:
    return status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{line}\n".encode()
