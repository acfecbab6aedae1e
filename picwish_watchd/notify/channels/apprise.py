"""Whatever the library apprise knows, if it is installed (the extra `notify`)."""

import importlib
from typing import Any

from picwish_watchd.config.notifiers import Apprise
from picwish_watchd.notify.message import Message, MessageSent, SendFailed, SendOutcome, host_name


def send_apprise(services: Apprise, notice: Message) -> SendOutcome:
    """Hands it to each URL of the file. Raises `ConfigError` for a file that cannot be used.

    apprise tells no reasons but in its own log, which may quote what is secret and is therefore not kept.
    """
    try:
        # takes a tenth of a second and 20 MB, for those who want it
        apprise: Any = importlib.import_module("apprise")
    except ImportError:
        return SendFailed("apprise cannot be imported; install it again, or take it out of notify:", is_retryable=False)
    urls = services.urls_secret.read_lines()
    room = apprise.Apprise()
    for number, url in urls:
        if not room.add(url):
            return SendFailed(
                f"apprise does not know what to do with line {number} of {services.urls_file}", is_retryable=False
            )
    if not urls:
        return SendFailed(f"there is no URL in {services.urls_file}", is_retryable=False)
    if room.notify(title=f"[picwish-watchd {host_name()}] {notice.subject}", body=notice.text):
        return MessageSent()
    return SendFailed("apprise could not send it to all of its URLs", is_retryable=len(urls) == 1)
