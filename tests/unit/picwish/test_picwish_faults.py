"""Every error of the transport has a meaning."""

import ssl

import httpx
import pytest

from picwish_watchd.picwish import Dead, InDoubt, NotAccepted, NotSent, Unavailable
from picwish_watchd.picwish.error_mapping import (
    CAUGHT,
    FAULTS,
    create_outcome,
    described,
    download_outcome,
    fault_of,
    query_outcome,
)
from picwish_watchd.picwish.multipart import Phase


def family(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(family(sub) for sub in kind.__subclasses__()))


HTTPX = sorted((k for k in family(httpx.HTTPError) if k.__module__ == "httpx"), key=lambda k: k.__name__)


def raised(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    error.args = ("detail",)
    return error


@pytest.mark.parametrize("kind", [*HTTPX, httpx.InvalidURL])
def test_every_error_of_httpx_has_a_row_of_its_own(kind: type[Exception]) -> None:
    assert kind in FAULTS
    assert FAULTS[kind].says


def test_every_error_of_httpx_that_is_no_bug_is_caught() -> None:
    public = {v for v in vars(httpx).values() if isinstance(v, type) and issubclass(v, Exception)}
    bugs = family(httpx.StreamError) | {httpx.CookieConflict}
    assert {kind for kind in public if not issubclass(kind, CAUGHT)} <= bugs


@pytest.mark.parametrize("kind", list(FAULTS))
@pytest.mark.parametrize("phase", list(Phase))
def test_a_post_that_breaks_is_judged_by_how_far_it_got(kind: type[Exception], phase: Phase) -> None:
    expected = {Phase.BEFORE: NotSent, Phase.UNFINISHED: NotAccepted, Phase.SENT: InDoubt}[phase]
    outcome = create_outcome(phase, raised(kind))
    assert isinstance(outcome, expected)
    assert FAULTS[kind].says in outcome.reason


@pytest.mark.parametrize("kind", list(FAULTS))
def test_a_query_that_breaks_is_repeated_and_a_download_unless_the_address_is_at_fault(kind: type[Exception]) -> None:
    assert isinstance(query_outcome(raised(kind)), Unavailable)
    at_fault = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError)
    assert isinstance(download_outcome(raised(kind)), Dead if kind in at_fault else Unavailable)


def test_an_unknown_error_takes_the_row_of_the_nearest_class_above() -> None:
    class NewError(httpx.ReadError):
        pass

    assert fault_of(raised(NewError)) is FAULTS[httpx.ReadError]
    assert fault_of(ConnectionResetError()) is FAULTS[OSError]
    assert fault_of(ssl.SSLCertVerificationError()) is FAULTS[ssl.SSLError]


def test_only_errors_that_quote_nothing_sent_are_quoted() -> None:
    assert "refused" in described(httpx.ConnectError("connection refused"))
    assert described(httpx.ConnectError("")) == FAULTS[httpx.ConnectError].says
    assert "secret" not in described(httpx.LocalProtocolError("Illegal header value b'secret'"))
    assert "secret" not in described(httpx.RemoteProtocolError("illegal header line: bytearray(b'secret')"))
