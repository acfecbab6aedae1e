"""Set up the connections to PicWish, and check the address and the key that they use."""

import ipaddress
import ssl
from functools import cache

import httpx

from picwish_watchd import __version__

#: The highest TCP port.
MAX_PORT = 65535

#: Headers of every request. Responses are short or images, so compression would only add what can break.
COMMON_HEADERS = {
    "User-Agent": f"picwish-watchd/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}

# Seconds after which an idle connection is closed.
_KEEPALIVE_EXPIRY = 5.0


@cache
def create_tls_context() -> ssl.SSLContext:
    """Return the TLS settings of all connections; certificates named by environment variables are ignored.

    The result is cached, because loading the certificates takes about 0.1 s.
    """
    return httpx.create_ssl_context(trust_env=False)


def build_transport(*, max_idle: int) -> httpx.AsyncHTTPTransport:
    """Return a transport that speaks HTTP/1.1 without proxies, and keeps at most ``max_idle`` unused connections."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=max_idle, keepalive_expiry=_KEEPALIVE_EXPIRY)
    return httpx.AsyncHTTPTransport(
        verify=create_tls_context(), trust_env=False, http1=True, http2=False, limits=limits, retries=0
    )


def validate_key(key: str) -> str:
    """Return ``key``. Raise ValueError if it cannot be the value of a header."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key must be one word of printable ASCII characters")
    return key


def validate_base_url(base_url: str, *, allow_insecure: bool) -> str:
    """Return ``base_url`` without a slash at its end.

    Raises:
        ValueError: it is not an http or https address, or is http to another machine and not ``allow_insecure``.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{base_url!r} is not an address") from error
    if url.scheme not in ("http", "https") or not url.host or (url.port or 1) > MAX_PORT:
        raise ValueError(f"{base_url!r} is not an http or https address")
    if url.scheme == "http" and not allow_insecure and not _is_loopback(url.host):
        raise ValueError(f"{base_url!r} would send the key without encryption")
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
