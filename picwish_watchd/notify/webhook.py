"""A POST of JSON. The one place outside ``picwish`` that speaks HTTP: it has nothing of that room's care for money."""

import re

import httpx

from picwish_watchd.config import Webhook, read_private
from picwish_watchd.notify.notice import Failed, Notice, Outcome, Sent, tame, worded

_AGAIN = frozenset({408, 425, 429})
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*)")


def send(webhook: Webhook, notice: Notice) -> Outcome:
    """Posts it and reads no more of the answer than its status. Redirects are not followed: headers may be secret.

    Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY), as a company's network may ask. Raises `ConfigError`
    for a file of headers that cannot be used.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "picwish-watchd", **_headers(webhook)}
    url = webhook.url.get_secret_value()
    verify = url.startswith("https:")  # without TLS nothing is to be verified, and reading certificates takes a while
    try:
        with (
            httpx.Client(timeout=webhook.timeout, follow_redirects=False, verify=verify) as client,
            client.stream("POST", url, content=notice.to_json(), headers=headers) as answer,
        ):
            return _judged(webhook, answer.status_code)
    except httpx.TimeoutException:
        return Failed(f"{webhook.host} did not answer within {webhook.timeout:g} s", again=True)
    except httpx.InvalidURL:
        return Failed("its url is none", again=False)
    except (httpx.HTTPError, OSError) as error:
        return Failed(f"{webhook.host} cannot be reached: {_without_secrets(webhook, headers, error)}", again=True)


def _judged(webhook: Webhook, code: int) -> Outcome:
    if 200 <= code < 300:
        return Sent()
    if 300 <= code < 400:
        reason = f"{webhook.host} answers with a redirect ({code}), which is not followed: correct url"
        return Failed(reason, again=False)
    return Failed(f"{webhook.host} answers {code}", again=code >= 500 or code in _AGAIN)


def _headers(webhook: Webhook) -> dict[str, str]:
    if webhook.headers_file is None:
        return {}
    what = "the headers file"
    content = read_private(webhook.headers_file, what, 'one "Name: value" a line').decode("latin-1")
    found = {}
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            match = _HEADER.fullmatch(line.rstrip())
            if match is None:
                raise HeaderError(f"line {number} of {what} {webhook.headers_file} is no header: Name: value")
            found[match[1]] = match[2]
    return found


class HeaderError(ValueError):
    """A line in the file of headers that is none; the message does not quote it."""


def _without_secrets(webhook: Webhook, headers: dict[str, str], error: Exception) -> str:
    text = worded(error)
    for secret in (webhook.url.get_secret_value(), *(value for value in headers.values() if len(value) > 3)):
        text = text.replace(secret, "***")
    return tame(text)
