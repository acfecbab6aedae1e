"""What a failure means: one table for every error of the transport, and pure functions from an error to an outcome.

For a create the kind of the error hardly matters. What counts is how far the POST got, and that is a fact of the body.
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
    """An error of the transport in words."""

    description: str
    #: the error's own text is worth telling: it never quotes what was sent
    include_detail: bool = False
    #: the address itself is at fault and will never work
    is_bad_url: bool = False


#: Every error that a request may end with. The last rows are what httpx lets through from below: TLS alerts after the
#: handshake (ssl.SSLError), names that cannot be looked up (UnicodeError), and our own deadline (TimeoutError).
TRANSPORT_FAULTS: Mapping[type[Exception], TransportFault] = MappingProxyType(
    {
        httpx.ConnectError: TransportFault("no connection could be made", include_detail=True),
        httpx.ConnectTimeout: TransportFault("no connection could be made in time"),
        httpx.PoolTimeout: TransportFault("no connection was free in time"),
        httpx.ProxyError: TransportFault("the proxy refused the connection"),
        httpx.ReadTimeout: TransportFault("the server was silent for too long"),
        httpx.WriteTimeout: TransportFault("the server took nothing for too long"),
        httpx.ReadError: TransportFault("the connection broke"),
        httpx.WriteError: TransportFault("the connection broke while sending"),
        httpx.CloseError: TransportFault("the connection broke while it was closed"),
        httpx.RemoteProtocolError: TransportFault("the server broke off its answer, or did not speak HTTP"),
        httpx.LocalProtocolError: TransportFault("the request is not valid HTTP"),
        httpx.DecodingError: TransportFault("the answer's compression is damaged"),
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
        TimeoutError: TransportFault("it was not done in the time that is allowed in all"),
        ssl.SSLError: TransportFault("the encrypted connection failed", include_detail=True),
        OSError: TransportFault("the connection failed", include_detail=True),
        UnicodeError: TransportFault("the host's name is not valid", is_bad_url=True),
    }
)

#: What a request catches; everything else is a bug.
TRANSPORT_ERRORS = (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError)


def classify_error(error: Exception) -> TransportFault:
    """The row of the error's class, or of the nearest class above it."""
    return next(TRANSPORT_FAULTS[kind] for kind in type(error).__mro__ if kind in TRANSPORT_FAULTS)


def error_label(error: Exception) -> str:
    """Why no answer came, in one of four words for statistics."""
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return "timeout"
    if isinstance(error, httpx.ConnectError):
        return "no_connection"
    return "bad_address" if classify_error(error).is_bad_url else "broken"


def describe_error(error: Exception) -> str:
    """The error in words, fit to print."""
    fault = classify_error(error)
    detail = sanitize(str(error)) if fault.include_detail else ""
    return f"{fault.description} ({detail})" if detail else fault.description


def map_create_error(phase: UploadPhase, error: Exception) -> NotSent | NotAccepted | InDoubt:
    """A POST that broke without an answer."""
    match phase:
        case UploadPhase.NOT_STARTED:
            return NotSent(f"nothing was sent: {describe_error(error)}")
        case UploadPhase.INCOMPLETE:
            return NotAccepted(f"the upload did not reach its end: {describe_error(error)}", None, rate_limited=False)
        case UploadPhase.SENT:
            return InDoubt(f"the picture was sent, but no answer came: {describe_error(error)}")


def map_query_error(error: Exception) -> Unavailable:
    """A query or a probe that broke: it is free to be repeated."""
    return Unavailable(describe_error(error))


def map_download_error(error: Exception) -> DeadUrl | Unavailable:
    """A download that broke: repeated, unless the address is at fault."""
    return DeadUrl(describe_error(error)) if classify_error(error).is_bad_url else Unavailable(describe_error(error))
