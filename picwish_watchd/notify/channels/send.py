"""Send one message through its channel, and say how that ended."""

import asyncio
import hashlib
from collections.abc import Sequence

from picwish_watchd.config.notifiers import Apprise, Command, Email, Notifier, Webhook
from picwish_watchd.errors import ConfigError
from picwish_watchd.notify.channels import apprise, command, smtp, webhook
from picwish_watchd.notify.message import Message, SendFailed, SendOutcome
from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.worker_key import WorkerKey

# seconds beyond its own timeout after which a try is given up, whatever its thread does
_HANG_GRACE = 15.0


def notifier_id(notifier: Notifier) -> str:
    """By what a notifier is recognised after a restart or a reload; tells nothing about it."""
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


def assign_notifier_ids(notify: Sequence[Notifier]) -> dict[str, Notifier]:
    """Each with a mark of its own, also where two lead to the same place."""
    found: dict[str, Notifier] = {}
    for notifier in notify:
        place = notifier_id(notifier)
        number = sum(known.startswith(place) for known in found)
        found[f"{place}-{number}" if number else place] = notifier
    return found


def send_message(notifier: Notifier, notice: Message) -> SendOutcome:
    """One try, in a thread; blocks for about the notifier's `timeout`."""
    try:
        match notifier:
            case Webhook():
                return webhook.post_webhook(notifier, notice)
            case Command():
                return command.run_notify_command(notifier, notice)
            case Email():
                return smtp.send_mail(notifier, notice)
            case Apprise():
                return apprise.send_apprise(notifier, notice)
    except ConfigError as error:
        return SendFailed(error.message, is_retryable=False)
    raise AssertionError(notifier)


async def send_with_timeout(lanes: KeyedExecutor, notifier: Notifier, notice: Message) -> SendOutcome:
    """One try that ends in time, also where its thread hangs, and whatever goes wrong in it."""
    call = asyncio.ensure_future(lanes.run(WorkerKey.notifier(notifier_id(notifier)), send_message, notifier, notice))
    try:
        await asyncio.wait([call], timeout=notifier.timeout + _HANG_GRACE)
        if not call.done():
            return SendFailed(f"it hangs: no answer for {notifier.timeout + _HANG_GRACE:g} s", is_retryable=True)
        error = call.exception()
        # nobody foresaw it, and its words may be secret
        if error is not None:
            return SendFailed(f"an unexpected error, which is a bug: {type(error).__name__}", is_retryable=False)
        return call.result()
    finally:
        call.cancel()
