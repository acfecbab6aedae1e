"""Notification channels: what is accepted and refused, and that no secret is quoted."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from picwish_watchd.config.model import Config
from picwish_watchd.config.notifiers import Command, Email, NotificationEvent, SmtpSecurity, Webhook
from picwish_watchd.errors import ConfigError
from picwish_watchd.redaction import redact

RULES = "rules:\n- {name: scans, inbox: /in, outbox: /out}\n"


def test_each_kind_is_read_with_its_defaults(load_text: Callable[..., Config], tmp_path: Path) -> None:
    text = (
        "notify:\n- {to: webhook, url: 'https://hooks.example.org/${TOKEN}?a=b'}\n"
        "- {to: command, run: [./tell, --urgent], events: [held], digest_at: 7:05}\n"
        "- {to: email, server: smtp.example.org, sender: a@example.org, recipients: [b@example.org]}\n"
    )
    webhook, command, mail = load_text(text + RULES, {"TOKEN": "s3cret"}).notify
    assert isinstance(webhook, Webhook)
    assert isinstance(command, Command)
    assert isinstance(mail, Email)
    assert webhook.read_url() == "https://hooks.example.org/s3cret?a=b"
    assert "s3cret" not in repr(webhook) + str(webhook) + webhook.label
    assert (webhook.events, webhook.at_most, webhook.digest_at) == (tuple(NotificationEvent), 20, "08:00")
    assert (command.run, command.events, command.digest_at) == (
        (f"{tmp_path}/tell", "--urgent"),
        (NotificationEvent.HELD,),
        "07:05",
    )
    assert (mail.security, mail.port) == (SmtpSecurity.STARTTLS, None)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{to: webhok, url: x}", 'notify[0].to: found "webhok"; did you mean "webhook"?'),
        ("{to: webhook}", "notify[0].url: found nothing; allowed: a URL, or url_file: FILE"),
        ("{to: webhook, url: 'https://x.org/s3cret', url_file: f}", "notify[0].url: found a url_file beside it"),
        ("{to: webhook, url_file: f, headers_file: d/f}", "notify[0].headers_file: found"),
        ("{to: webhook, url_file: picwish_api_key}", "the name of the credential that holds the API key"),
        ("{to: email, server: 'smtp://u:s3cret@h'}", "notify[0].server: found a value with a user name"),
        ("{to: webhook, url: 'ftp://s3cret'}", "notify[0].url: found a URL that is not shown here"),
        ("{to: webhook, url: 'https://a:s3cret@x.org'}", "notify[0].url: found a URL with a user name"),
        ("{to: webhook, url: 'http://x.org/s3cret'}", "notify[0].url: found http to another host"),
        ("{to: command, run: tell s3cret}", "notify[0].run: found"),
        ("{to: command, run: [tell], timeout: 10m}", "notify[0].timeout: found"),
        ("{to: command, run: [tell], events: [helt]}", 'did you mean "held"?'),
        ("{to: command, run: [tell], digest_at: 24:00}", "notify[0].digest_at: found"),
        ("{to: email, server: x, sender: 'a b@c', recipients: [a@b]}", "notify[0].sender: found"),
        ("{to: email, server: x, sender: a@b, recipients: [a@b], user: u}", "notify[0].user: found no password_file"),
        (
            "{to: email, server: x.org, sender: a@b, recipients: [a@b], user: u, password_file: p, security: none}",
            "notify[0].security: found none, with a password for another host",
        ),
        ("https://s3cret", "notify[0]: found a single value"),
    ],
)
def test_faults_are_reported_with_their_line_and_without_secrets(
    config_errors: Callable[..., list[str]], entry: str, expected: str
) -> None:
    faults = config_errors(f"notify:\n- {entry}\n{RULES}")
    assert any(expected in fault and fault.startswith("2: ") for fault in faults), faults
    if "run:" not in entry:
        assert not any("s3cret" in fault for fault in faults)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "'::1'"])
def test_this_machine_may_get_a_password_as_it_is(load_text: Callable[..., Config], host: str) -> None:
    entry = f"{{to: email, server: {host}, sender: a@b, recipients: [a@b], user: u, password_file: p, security: none}}"
    assert len(load_text(f"notify:\n- {entry}\n{RULES}").notify) == 1


@pytest.mark.parametrize("text", ["notify: {to: webhook, url: 's3cret'}\n", "notify: s3cret\n"])
def test_a_notify_that_is_no_list_is_refused(config_errors: Callable[..., list[str]], text: str) -> None:
    [fault] = config_errors(text + RULES)
    assert fault.startswith("1: notify: found something else")


def test_without_apprise_the_error_says_how_to_install_it(
    config_errors: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    [fault] = config_errors(f"notify:\n- {{to: apprise, urls_file: u}}\n{RULES}")
    assert fault.startswith("2: notify[0].to: ")
    assert "pip install 'picwish-watchd[notify]'" in fault


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("https://hooks.example.org/s3cret\n", None),
        ("http://127.0.0.1:8/s3cret", None),
        ("http://hooks.example.org/s3cret", "has an http URL of another host"),
        ("https://a:s3cret@x.org", "a URL with a user name"),
        ("s3cret", "a URL that is not shown here"),
        ("https://x.org/s3cret and more", "white space"),
        ("", "is empty"),
    ],
)
def test_a_url_in_a_file_is_validated_like_one_in_the_configuration(
    load_text: Callable[..., Config], tmp_path: Path, content: str, expected: str | None
) -> None:
    (tmp_path / "hook.url").write_text(content)
    (tmp_path / "hook.url").chmod(0o600)
    [webhook] = load_text(f"notify:\n- {{to: webhook, url_file: hook.url}}\n{RULES}").notify
    assert isinstance(webhook, Webhook)
    assert webhook.label == "webhook hook.url"
    if expected is None:
        assert webhook.read_url() == content.rstrip()
    else:
        with pytest.raises(ConfigError, match=expected) as caught:
            webhook.read_url()
        assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"
    assert not content or redact(f"it said {content.strip()}") == "it said ***"
