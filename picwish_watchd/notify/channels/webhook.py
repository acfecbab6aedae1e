"""A POST of JSON. The one place outside ``picwish`` that speaks HTTP: it has nothing of that room's care for money."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from picwish_watchd.config.notifiers import Webhook
from picwish_watchd.errors import ConfigError
from picwish_watchd.notify.channels.deadline import Deadline
from picwish_watchd.notify.message import (
    Message,
    MessageSent,
    SendFailed,
    SendOutcome,
    describe_exception,
    sanitize_message,
)
from picwish_watchd.redaction import register_secret

_RETRYABLE_CODES = frozenset({408, 425, 429})
_NOT_ACCEPTED_CODES = frozenset({425, 429, 503})
_HEADER_PATTERN = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*)")


def post_webhook(webhook: Webhook, notice: Message) -> SendOutcome:
    """Posts it and reads no more of the answer than its status. Redirects are not followed: headers may be secret.

    Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY), as a company's network may ask. Raises `ConfigError`
    for a file of headers, or of the URL, that cannot be used.
    """
    url, headers = webhook.read_url(), _read_headers(webhook)
    host = urlsplit(url).hostname
    with Deadline(webhook.timeout) as deadline:
        outcome = _post(webhook, url, headers, notice, deadline)
    if deadline.has_passed and isinstance(outcome, SendFailed):
        return SendFailed(f"{host} {deadline.failure_reason}", is_retryable=True)
    return outcome


def _post(webhook: Webhook, url: str, more: Mapping[str, str], notice: Message, deadline: Deadline) -> SendOutcome:
    headers = {"Content-Type": "application/json", "User-Agent": "picwish-watchd", **more}
    watched = {"trace": deadline.on_httpcore_event}
    host = urlsplit(url).hostname
    # without TLS nothing is to be verified, and reading certificates takes a while
    verify = url.startswith("https:")
    try:
        with (
            httpx.Client(timeout=webhook.timeout, follow_redirects=False, verify=verify) as client,
            client.stream("POST", url, content=notice.to_json(), headers=headers, extensions=watched) as answer,
        ):
            return _classify_status(host, answer.status_code)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        return SendFailed(
            f"{host} cannot be reached: {sanitize_message(describe_exception(error))}",
            is_retryable=True,
            not_accepted=True,
        )
    except httpx.TimeoutException:
        return SendFailed(f"{host} did not answer within {webhook.timeout:g} s", is_retryable=True)
    except httpx.InvalidURL:
        return SendFailed("its url is none", is_retryable=False)
    except UnicodeError:
        # what looks names up cannot spell it
        return SendFailed(f"{host} is no name that a host can have", is_retryable=False)
    except (httpx.HTTPError, OSError) as error:
        return SendFailed(f"{host} broke off: {sanitize_message(describe_exception(error))}", is_retryable=True)


def _classify_status(host: str | None, code: int) -> SendOutcome:
    if 200 <= code < 300:
        return MessageSent()
    if 300 <= code < 400:
        return SendFailed(
            f"{host} answers with a redirect ({code}), which is not followed: correct url", is_retryable=False
        )
    return SendFailed(
        f"{host} answers {code}",
        is_retryable=code >= 500 or code in _RETRYABLE_CODES,
        not_accepted=code in _NOT_ACCEPTED_CODES,
    )


def _read_headers(webhook: Webhook) -> dict[str, str]:
    file, found = webhook.headers_secret, {}
    if file is not None:
        for number, line in file.read_lines():
            match = _HEADER_PATTERN.fullmatch(line)
            if match is None:
                raise ConfigError(f"line {number} of {file.description} {file.path} is no header: Name: value")
            found[match[1]] = register_secret(match[2])
    return found
