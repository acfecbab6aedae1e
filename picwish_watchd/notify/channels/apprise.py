"""Send a message through the library apprise, if it is installed (the extra `notify`)."""

import importlib
from typing import Any

from picwish_watchd.config.notifiers import Apprise
from picwish_watchd.notify.message import Message, MessageSent, SendFailed, SendOutcome, host_name


def send_apprise(notifier: Apprise, message: Message) -> SendOutcome:
    """Send a message to each URL of `urls_file`. Raises `ConfigError` if that file cannot be used.

    apprise gives no reasons except in its own log. That log may quote secrets, so it is switched off.
    """
    try:
        # Imported here: it takes a tenth of a second and 20 MB of memory.
        apprise: Any = importlib.import_module("apprise")
    except ImportError:
        reason = "apprise cannot be imported; install it again, or remove it from notify:"
        return SendFailed(reason, is_retryable=False)
    urls = notifier.urls_secret.read_lines()
    client = apprise.Apprise()
    for number, url in urls:
        if not client.add(url):
            reason = f"line {number} of {notifier.urls_file} is no URL that apprise knows"
            return SendFailed(reason, is_retryable=False)
    if not urls:
        return SendFailed(f"there is no URL in {notifier.urls_file}", is_retryable=False)
    if client.notify(title=f"[picwish-watchd {host_name()}] {message.subject}", body=message.text):
        return MessageSent()
    return SendFailed("apprise could not send it to all of its URLs", is_retryable=len(urls) == 1)
