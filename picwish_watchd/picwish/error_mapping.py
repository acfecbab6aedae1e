"""Turn an error of the connection into an outcome: one table of all errors, and pure functions.

For a create the kind of the error hardly matters. How far the POST got is decisive, and the body knows that.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import httpx

from picwish_watchd.picwish.multipart import UploadPhase
from picwish_watchd.picwish.outcomes import DeadUrl, InDoubt, NotAccepted, NotSent, Unavailable
from picwish_watchd.picwish.sanitize import sanitize


@dataclass(frozen=True, slots=True)
class TransportFault:
    """An error of the transport in words for people."""

    description: str
    #: Whether the error's own text is added to the description; it never quotes what was sent.
    include_detail: bool = False
    #: Whether the URL itself is at fault, so that it will never work.
    is_bad_url: bool = False


#: Every error that may end a request. The last rows are errors that httpx does not translate: TLS alerts after the
#: handshake (ssl.SSLError), host names that cannot be encoded (UnicodeError), and our own deadline (TimeoutError).
TRANSPORT_FAULTS: Mapping[type[Exception], TransportFault] = MappingProxyType(
    {
        httpx.ConnectError: TransportFault("no connection could be made", include_detail=True),
        httpx.ConnectTimeout: TransportFault("no connection could be made in time"),
        httpx.PoolTimeout: TransportFault("no connection was free in time"),
        httpx.ProxyError: TransportFault("the proxy refused the connection"),
        httpx.ReadTimeout: TransportFault("the server was silent for too long"),
        httpx.WriteTimeout: TransportFault("the server read nothing for too long"),
        httpx.ReadError: TransportFault("the connection broke"),
        httpx.WriteError: TransportFault("the connection broke while sending"),
        httpx.CloseError: TransportFault("the connection broke while it was closed"),
        httpx.RemoteProtocolError: TransportFault("the server broke off its response, or did not speak HTTP"),
        httpx.LocalProtocolError: TransportFault("the request is not valid HTTP"),
        httpx.DecodingError: TransportFault("the compression of the response is damaged"),
        httpx.UnsupportedProtocol: TransportFault("this kind of address is not supported", is_bad_url=True),
        httpx.InvalidURL: TransportFault("the address is not valid", is_bad_url=True),
        httpx.TooManyRedirects: TransportFault("too many redirects", is_bad_url=True),
        httpx.HTTPStatusError: TransportFault("the server answered with an error"),
        httpx.TimeoutException: TransportFault("it took too long"),
        httpx.NetworkError: TransportFault("the network failed"),
        httpx.ProtocolError: TransportFault("the server did not speak HTTP"),
        httpx.TransportError: TransportFault("the connection failed"),
        httpx.RequestError: TransportFault("the request failed"),
        httpx.HTTPError: TransportFault("the request failed"),
        TimeoutError: TransportFault("the request took longer than allowed in all"),
        ssl.SSLError: TransportFault("the encrypted connection failed", include_detail=True),
        OSError: TransportFault("the connection failed", include_detail=True),
        UnicodeError: TransportFault("the host's name is not valid", is_bad_url=True),
    }
)

#: What a request may raise; everything else is a bug.
TRANSPORT_ERRORS = (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError)


def classify_error(error: Exception) -> TransportFault:
    """Return the table's row for the error's class, or for its nearest base class."""
    return next(TRANSPORT_FAULTS[kind] for kind in type(error).__mro__ if kind in TRANSPORT_FAULTS)


def error_label(error: Exception) -> str:
    """Return the reason for a missing response as one of four words, for statistics."""
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return "timeout"
    if isinstance(error, httpx.ConnectError):
        return "no_connection"
    return "bad_address" if classify_error(error).is_bad_url else "broken"


def describe_error(error: Exception) -> str:
    """Return the error in words that are safe to print."""
    fault = classify_error(error)
    detail = sanitize(str(error)) if fault.include_detail else ""
    return f"{fault.description} ({detail})" if detail else fault.description


def map_create_error(phase: UploadPhase, error: Exception) -> NotSent | NotAccepted | InDoubt:
    """Return the outcome of a POST that broke before any response, by how much of it was sent."""
    match phase:
        case UploadPhase.NOT_STARTED:
            return NotSent(f"nothing was sent: {describe_error(error)}")
        case UploadPhase.INCOMPLETE:
            return NotAccepted(f"the upload was not complete: {describe_error(error)}", None, rate_limited=False)
        case UploadPhase.SENT:
            return InDoubt(f"the image was sent, but no response came: {describe_error(error)}")


def map_query_error(error: Exception) -> Unavailable:
    """Return the outcome of a query or a probe that broke; repeating it costs nothing."""
    return Unavailable(describe_error(error))


def map_download_error(error: Exception) -> DeadUrl | Unavailable:
    """Return the outcome of a download that broke: worth another try unless the URL is at fault."""
    return DeadUrl(describe_error(error)) if classify_error(error).is_bad_url else Unavailable(describe_error(error))
