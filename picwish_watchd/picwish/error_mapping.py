"""What a failure means: one table for every error of the transport, and pure functions from an error to an outcome.

For a create the kind of the error hardly matters. What counts is how far the POST got, and that is a fact of the body.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import httpx

from picwish_watchd.picwish.multipart import Phase
from picwish_watchd.picwish.outcomes import Dead, InDoubt, NotAccepted, NotSent, Unavailable
from picwish_watchd.picwish.sanitize import plain


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of the transport in words."""

    says: str
    detailed: bool = False  #: the error's own text is worth telling: it never quotes what was sent
    address: bool = False  #: the address itself is at fault and will never work


#: Every error that a request may end with. The last rows are what httpx lets through from below: TLS alerts after the
#: handshake (ssl.SSLError), names that cannot be looked up (UnicodeError), and our own deadline (TimeoutError).
FAULTS: Mapping[type[Exception], Fault] = MappingProxyType(
    {
        httpx.ConnectError: Fault("no connection could be made", detailed=True),
        httpx.ConnectTimeout: Fault("no connection could be made in time"),
        httpx.PoolTimeout: Fault("no connection was free in time"),
        httpx.ProxyError: Fault("the proxy refused the connection"),
        httpx.ReadTimeout: Fault("the server was silent for too long"),
        httpx.WriteTimeout: Fault("the server took nothing for too long"),
        httpx.ReadError: Fault("the connection broke"),
        httpx.WriteError: Fault("the connection broke while sending"),
        httpx.CloseError: Fault("the connection broke while it was closed"),
        httpx.RemoteProtocolError: Fault("the server broke off its answer, or did not speak HTTP"),
        httpx.LocalProtocolError: Fault("the request is not valid HTTP"),
        httpx.DecodingError: Fault("the answer's compression is damaged"),
        httpx.UnsupportedProtocol: Fault("this kind of address is not supported", address=True),
        httpx.InvalidURL: Fault("the address is not valid", address=True),
        httpx.TooManyRedirects: Fault("too many redirects", address=True),
        httpx.HTTPStatusError: Fault("the server answered with an error"),
        httpx.TimeoutException: Fault("it took too long"),
        httpx.NetworkError: Fault("the network failed"),
        httpx.ProtocolError: Fault("the server did not speak HTTP"),
        httpx.TransportError: Fault("the connection failed"),
        httpx.RequestError: Fault("the request failed"),
        httpx.HTTPError: Fault("the request failed"),
        TimeoutError: Fault("it was not done in the time that is allowed in all"),
        ssl.SSLError: Fault("the encrypted connection failed", detailed=True),
        OSError: Fault("the connection failed", detailed=True),
        UnicodeError: Fault("the host's name is not valid", address=True),
    }
)

#: What a request catches; everything else is a bug.
CAUGHT = (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError)


def fault_of(error: Exception) -> Fault:
    """The row of the error's class, or of the nearest class above it."""
    return next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)


def word_of(error: Exception) -> str:
    """Why no answer came, in one of four words for statistics."""
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return "timeout"
    if isinstance(error, httpx.ConnectError):
        return "no_connection"
    return "bad_address" if fault_of(error).address else "broken"


def described(error: Exception) -> str:
    """The error in words, fit to print."""
    fault = fault_of(error)
    detail = plain(str(error)) if fault.detailed else ""
    return f"{fault.says} ({detail})" if detail else fault.says


def create_outcome(phase: Phase, error: Exception) -> NotSent | NotAccepted | InDoubt:
    """A POST that broke without an answer."""
    match phase:
        case Phase.BEFORE:
            return NotSent(f"nothing was sent: {described(error)}")
        case Phase.UNFINISHED:
            return NotAccepted(f"the upload did not reach its end: {described(error)}", None, busy=False)
        case Phase.SENT:
            return InDoubt(f"the picture was sent, but no answer came: {described(error)}")


def query_outcome(error: Exception) -> Unavailable:
    """A query or a probe that broke: it is free to be repeated."""
    return Unavailable(described(error))


def download_outcome(error: Exception) -> Dead | Unavailable:
    """A download that broke: repeated, unless the address is at fault."""
    return Dead(described(error)) if fault_of(error).address else Unavailable(described(error))
