"""Every error of the HTTP client has a meaning."""

import ssl

import httpx
import pytest

from picwish_watchd.picwish import DeadUrl, InDoubt, NotAccepted, NotSent, Unavailable
from picwish_watchd.picwish.error_mapping import (
    TRANSPORT_ERRORS,
    TRANSPORT_FAULTS,
    classify_error,
    describe_error,
    map_create_error,
    map_download_error,
    map_query_error,
)
from picwish_watchd.picwish.multipart import UploadPhase


def all_subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(all_subclasses(sub) for sub in kind.__subclasses__()))


HTTPX_ERRORS = sorted((k for k in all_subclasses(httpx.HTTPError) if k.__module__ == "httpx"), key=lambda k: k.__name__)


def make_error(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    error.args = ("detail",)
    return error


@pytest.mark.parametrize("kind", [*HTTPX_ERRORS, httpx.InvalidURL])
def test_every_error_of_httpx_has_a_row_of_its_own(kind: type[Exception]) -> None:
    assert kind in TRANSPORT_FAULTS
    assert TRANSPORT_FAULTS[kind].description


def test_every_error_of_httpx_that_is_no_bug_is_caught() -> None:
    public = {v for v in vars(httpx).values() if isinstance(v, type) and issubclass(v, Exception)}
    bugs = all_subclasses(httpx.StreamError) | {httpx.CookieConflict}
    assert {kind for kind in public if not issubclass(kind, TRANSPORT_ERRORS)} <= bugs


@pytest.mark.parametrize("kind", list(TRANSPORT_FAULTS))
@pytest.mark.parametrize("phase", list(UploadPhase))
def test_a_broken_post_is_mapped_by_its_progress(kind: type[Exception], phase: UploadPhase) -> None:
    expected = {UploadPhase.NOT_STARTED: NotSent, UploadPhase.INCOMPLETE: NotAccepted, UploadPhase.SENT: InDoubt}[phase]
    outcome = map_create_error(phase, make_error(kind))
    assert isinstance(outcome, expected)
    assert TRANSPORT_FAULTS[kind].description in outcome.reason


@pytest.mark.parametrize("kind", list(TRANSPORT_FAULTS))
def test_broken_queries_and_downloads_repeat_unless_the_url_is_bad(kind: type[Exception]) -> None:
    assert isinstance(map_query_error(make_error(kind)), Unavailable)
    at_fault = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError)
    assert isinstance(map_download_error(make_error(kind)), DeadUrl if kind in at_fault else Unavailable)


def test_an_unknown_error_takes_the_row_of_the_nearest_class_above() -> None:
    class NewError(httpx.ReadError):
        pass

    assert classify_error(make_error(NewError)) is TRANSPORT_FAULTS[httpx.ReadError]
    assert classify_error(ConnectionResetError()) is TRANSPORT_FAULTS[OSError]
    assert classify_error(ssl.SSLCertVerificationError()) is TRANSPORT_FAULTS[ssl.SSLError]


def test_only_errors_that_quote_nothing_sent_are_quoted() -> None:
    assert "refused" in describe_error(httpx.ConnectError("connection refused"))
    assert describe_error(httpx.ConnectError("")) == TRANSPORT_FAULTS[httpx.ConnectError].description
    assert "secret" not in describe_error(httpx.LocalProtocolError("Illegal header value b'secret'"))
    assert "secret" not in describe_error(httpx.RemoteProtocolError("illegal header line: bytearray(b'secret')"))
