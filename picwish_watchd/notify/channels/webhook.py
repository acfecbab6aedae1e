"""A POST of JSON. The one place outside ``picwish`` that speaks HTTP: it has nothing of that room's care for money."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from picwish_watchd.config.notifiers import Webhook
from picwish_watchd.errors import ConfigError
from picwish_watchd.notify.channels.deadline import Deadline
from picwish_watchd.notify.message import Failed, Notice, Outcome, Sent, tame, worded
from picwish_watchd.redaction import register_secret

_AGAIN = frozenset({408, 425, 429})
_UNHEARD = frozenset({425, 429, 503})
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*)")


def send(webhook: Webhook, notice: Notice) -> Outcome:
    """Posts it and reads no more of the answer than its status. Redirects are not followed: headers may be secret.

    Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY), as a company's network may ask. Raises `ConfigError`
    for a file of headers, or of the URL, that cannot be used.
    """
    url, headers = webhook.read_url(), _headers(webhook)
    host = urlsplit(url).hostname
    with Deadline(webhook.timeout) as deadline:
        outcome = _posted(webhook, url, headers, notice, deadline)
    if deadline.passed and isinstance(outcome, Failed):
        return Failed(f"{host} {deadline.reason}", again=True)
    return outcome


def _posted(webhook: Webhook, url: str, more: Mapping[str, str], notice: Notice, deadline: Deadline) -> Outcome:
    headers = {"Content-Type": "application/json", "User-Agent": "picwish-watchd", **more}
    watched = {"trace": deadline.trace}
    host = urlsplit(url).hostname
    # without TLS nothing is to be verified, and reading certificates takes a while
    verify = url.startswith("https:")
    try:
        with (
            httpx.Client(timeout=webhook.timeout, follow_redirects=False, verify=verify) as client,
            client.stream("POST", url, content=notice.to_json(), headers=headers, extensions=watched) as answer,
        ):
            return _judged(host, answer.status_code)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        return Failed(f"{host} cannot be reached: {tame(worded(error))}", again=True, unheard=True)
    except httpx.TimeoutException:
        return Failed(f"{host} did not answer within {webhook.timeout:g} s", again=True)
    except httpx.InvalidURL:
        return Failed("its url is none", again=False)
    except UnicodeError:
        # what looks names up cannot spell it
        return Failed(f"{host} is no name that a host can have", again=False)
    except (httpx.HTTPError, OSError) as error:
        return Failed(f"{host} broke off: {tame(worded(error))}", again=True)


def _judged(host: str | None, code: int) -> Outcome:
    if 200 <= code < 300:
        return Sent()
    if 300 <= code < 400:
        return Failed(f"{host} answers with a redirect ({code}), which is not followed: correct url", again=False)
    return Failed(f"{host} answers {code}", again=code >= 500 or code in _AGAIN, unheard=code in _UNHEARD)


def _headers(webhook: Webhook) -> dict[str, str]:
    file, found = webhook.headers_secret, {}
    if file is not None:
        for number, line in file.read_lines():
            match = _HEADER.fullmatch(line)
            if match is None:
                raise ConfigError(f"line {number} of {file.description} {file.path} is no header: Name: value")
            found[match[1]] = register_secret(match[2])
    return found
