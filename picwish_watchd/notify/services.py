"""Whatever the library apprise knows, if it is installed (the extra `notify`)."""

import importlib
from typing import Any

from picwish_watchd.config import Apprise, read_private
from picwish_watchd.notify.notice import Failed, Notice, Outcome, Sent, host

_MISSING = "apprise is not installed: pip install 'picwish-watchd[notify]'"


def send(services: Apprise, notice: Notice) -> Outcome:
    """Hands it to each URL of the file. Raises `ConfigError` for a file that cannot be used.

    apprise tells no reasons but in its own log, which may quote what is secret and is therefore not kept.
    """
    try:
        apprise: Any = importlib.import_module("apprise")  # takes a tenth of a second and 20 MB, for those who want it
    except ImportError:
        return Failed(_MISSING, again=False)
    content = read_private(services.urls_file, "the file of apprise URLs", "one URL a line").decode("utf-8", "replace")
    urls = [line.strip() for line in content.splitlines() if line.strip() and not line.startswith("#")]
    room = apprise.Apprise()
    for number, url in enumerate(urls, 1):
        if not room.add(url):
            return Failed(f"apprise does not know what to do with URL {number} of {services.urls_file}", again=False)
    if not urls:
        return Failed(f"there is no URL in {services.urls_file}", again=False)
    if room.notify(title=f"[picwish-watchd {host()}] {notice.subject}", body=notice.text):
        return Sent()
    return Failed("apprise could not send it to all of its URLs", again=len(urls) == 1)
