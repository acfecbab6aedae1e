"""Send one message through its channel and return how that ended."""

import asyncio
import hashlib
from collections.abc import Sequence

from picwish_watchd.config.notifiers import Apprise, Command, Email, Notifier, Webhook
from picwish_watchd.errors import ConfigError
from picwish_watchd.notify.channels import apprise, command, smtp, webhook
from picwish_watchd.notify.message import Message, SendFailed, SendOutcome
from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.worker_key import WorkerKey

# Seconds beyond the notifier's timeout after which a try is given up, even if its thread still runs.
_HANG_GRACE = 15.0


def notifier_id(notifier: Notifier) -> str:
    """Return 16 hexadecimal digits that identify a notifier after a restart or reload and reveal nothing about it."""
    match notifier:
        case Webhook():
            url = notifier.url.get_secret_value() if notifier.url is not None else ""
            facts: Sequence[str] = [url or str(notifier.url_file)]
        case Command():
            facts = notifier.run
        case Email():
            facts = [notifier.server, notifier.sender, *notifier.recipients]
        case Apprise():
            facts = [str(notifier.urls_file)]
        case _:
            raise AssertionError(notifier)
    return hashlib.sha256("\0".join((notifier.to, *facts)).encode()).hexdigest()[:16]


def assign_notifier_ids(notifiers: Sequence[Notifier]) -> dict[str, Notifier]:
    """Return the notifiers by id. Each id is unique, also if two notifiers lead to the same place."""
    by_id: dict[str, Notifier] = {}
    for notifier in notifiers:
        base = notifier_id(notifier)
        number = sum(known.startswith(base) for known in by_id)
        by_id[f"{base}-{number}" if number else base] = notifier
    return by_id


def send_message(notifier: Notifier, message: Message) -> SendOutcome:
    """Try once to send a message. To be called in a thread: it blocks for up to about the notifier's `timeout`."""
    try:
        match notifier:
            case Webhook():
                return webhook.post_webhook(notifier, message)
            case Command():
                return command.run_notify_command(notifier, message)
            case Email():
                return smtp.send_mail(notifier, message)
            case Apprise():
                return apprise.send_apprise(notifier, message)
    except ConfigError as error:
        return SendFailed(error.message, is_retryable=False)
    raise AssertionError(notifier)


async def send_with_timeout(executor: KeyedExecutor, notifier: Notifier, message: Message) -> SendOutcome:
    """Try once to send a message in a thread; return in time even if the thread hangs or has a bug."""
    key = WorkerKey.notifier(notifier_id(notifier))
    call = asyncio.ensure_future(executor.run(key, send_message, notifier, message))
    try:
        await asyncio.wait([call], timeout=notifier.timeout + _HANG_GRACE)
        if not call.done():
            return SendFailed(f"it hangs: no answer for {notifier.timeout + _HANG_GRACE:g} s", is_retryable=True)
        error = call.exception()
        # Only the type of an unforeseen error is shown: its text may contain a secret.
        if error is not None:
            return SendFailed(f"an unexpected error, which is a bug: {type(error).__name__}", is_retryable=False)
        return call.result()
    finally:
        call.cancel()
