"""Whatever the library apprise knows, if it is installed (the extra `notify`)."""

import importlib
from typing import Any

from picwish_watchd.config.notifiers import Apprise
from picwish_watchd.notify.message import Failed, Notice, Outcome, Sent, host


def send(services: Apprise, notice: Notice) -> Outcome:
    """Hands it to each URL of the file. Raises `ConfigError` for a file that cannot be used.

    apprise tells no reasons but in its own log, which may quote what is secret and is therefore not kept.
    """
    try:
        # takes a tenth of a second and 20 MB, for those who want it
        apprise: Any = importlib.import_module("apprise")
    except ImportError:
        return Failed("apprise cannot be imported; install it again, or take it out of notify:", again=False)
    urls = services.urls_secret.read_lines()
    room = apprise.Apprise()
    for number, url in urls:
        if not room.add(url):
            return Failed(f"apprise does not know what to do with line {number} of {services.urls_file}", again=False)
    if not urls:
        return Failed(f"there is no URL in {services.urls_file}", again=False)
    if room.notify(title=f"[picwish-watchd {host()}] {notice.subject}", body=notice.text):
        return Sent()
    return Failed("apprise could not send it to all of its URLs", again=len(urls) == 1)
