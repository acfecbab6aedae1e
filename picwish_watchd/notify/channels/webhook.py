"""Send a message as a POST of JSON.

This is the one place outside ``picwish`` that speaks HTTP. It needs none of that package's care: a POST here costs
no credits.
"""

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


def post_webhook(notifier: Webhook, message: Message) -> SendOutcome:
    """Post a message; of the answer only the status is read. Redirects are not followed: headers may hold secrets.

    Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY). Raises `ConfigError` if the file of the headers or
    of the URL cannot be used.
    """
    url, headers = notifier.read_url(), _read_headers(notifier)
    host = urlsplit(url).hostname
    with Deadline(notifier.timeout) as deadline:
        outcome = _post(notifier, url, headers, message, deadline)
    if deadline.has_passed and isinstance(outcome, SendFailed):
        return SendFailed(f"{host} {deadline.failure_reason}", is_retryable=True)
    return outcome


def _post(
    notifier: Webhook, url: str, more_headers: Mapping[str, str], message: Message, deadline: Deadline
) -> SendOutcome:
    headers = {"Content-Type": "application/json", "User-Agent": "picwish-watchd", **more_headers}
    extensions = {"trace": deadline.on_httpcore_event}
    host = urlsplit(url).hostname
    # Without TLS there is nothing to verify, and to read the certificates takes a while.
    verify = url.startswith("https:")
    try:
        with (
            httpx.Client(timeout=notifier.timeout, follow_redirects=False, verify=verify) as client,
            client.stream("POST", url, content=message.to_json(), headers=headers, extensions=extensions) as response,
        ):
            return _classify_status(host, response.status_code)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        reason = f"{host} cannot be reached: {sanitize_message(describe_exception(error))}"
        return SendFailed(reason, is_retryable=True, not_accepted=True)
    except httpx.TimeoutException:
        return SendFailed(f"{host} did not answer within {notifier.timeout:g} s", is_retryable=True)
    except httpx.InvalidURL:
        return SendFailed("its url is not a valid URL", is_retryable=False)
    except UnicodeError:
        # The name cannot be encoded for DNS.
        return SendFailed(f"{host} is not a valid host name", is_retryable=False)
    except (httpx.HTTPError, OSError) as error:
        reason = f"the connection to {host} broke: {sanitize_message(describe_exception(error))}"
        return SendFailed(reason, is_retryable=True)


def _classify_status(host: str | None, code: int) -> SendOutcome:
    if 200 <= code < 300:
        return MessageSent()
    if 300 <= code < 400:
        reason = f"{host} answers with a redirect ({code}), which is not followed: correct url"
        return SendFailed(reason, is_retryable=False)
    return SendFailed(
        f"{host} answers {code}",
        is_retryable=code >= 500 or code in _RETRYABLE_CODES,
        not_accepted=code in _NOT_ACCEPTED_CODES,
    )


def _read_headers(notifier: Webhook) -> dict[str, str]:
    file, headers = notifier.headers_secret, {}
    if file is not None:
        for number, line in file.read_lines():
            match = _HEADER_PATTERN.fullmatch(line)
            if match is None:
                reason = f"line {number} of {file.description} {file.path} is not a header"
                raise ConfigError(f"{reason} of the form Name: value")
            headers[match[1]] = register_secret(match[2])
    return headers
