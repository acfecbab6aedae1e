"""Each kind of channel: what it sends, how it reports a failure, and what it keeps secret."""

import json
import socket
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.config.notifiers import Apprise, Command, Email, Webhook
from picwish_watchd.notify.channels import deadline
from picwish_watchd.notify.channels.command import kill_running_commands
from picwish_watchd.notify.channels.send import send_message
from picwish_watchd.notify.message import Message, MessageSent, SendFailed, SendOutcome
from tests.support.fake_receivers import DripServer, MailServer, WebhookReceiver, write_program

MESSAGE = Message(
    id="held-7-9",
    event="held",
    at=1_800_000_000.0,
    subject="Été \\x1b[31m.jpg is held",
    text="one line\nand another\n.\nafter a dot",
    facts={"count": 1},
)


def webhook_channel(url: str, **more: Any) -> Webhook:
    return Webhook.model_validate({"to": "webhook", "url": url, "timeout": 2, **more})


def email_channel(server: MailServer | DripServer, **more: Any) -> Email:
    usual = {"server": "127.0.0.1", "port": server.port, "security": "none", "sender": "watchd@studio.example"}
    return Email.model_validate({"to": "email", "recipients": ["ada@studio.example"], "timeout": 2, **usual, **more})


def command_channel(*run: object, timeout: float = 5) -> Command:
    return Command.model_validate({"to": "command", "run": [str(each) for each in run], "timeout": timeout})


def write_secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def failure_reason(outcome: SendOutcome) -> str:
    assert isinstance(outcome, SendFailed), outcome
    return outcome.reason


def may_retry(outcome: SendOutcome) -> bool:
    assert isinstance(outcome, SendFailed), outcome
    return outcome.is_retryable


def is_surely_undelivered(outcome: SendOutcome) -> bool:
    assert isinstance(outcome, SendFailed), outcome
    return outcome.not_accepted


def test_a_webhook_gets_the_whole_message_as_json(tmp_path: Path) -> None:
    headers = write_secret(tmp_path / "headers", "# for the gateway\nAuthorization: Bearer abc\nX-Room:  7\n")
    with WebhookReceiver() as webhook:
        assert send_message(webhook_channel(webhook.url, headers_file=headers), MESSAGE) == MessageSent()
    [body] = webhook.requests
    assert (body["id"], body["event"], body["over"], body["count"]) == ("held-7-9", "held", False, 1)
    assert (body["subject"], body["text"], body["at"]) == (MESSAGE.subject, MESSAGE.text, "2027-01-15T08:00:00.000Z")
    assert body["host"] == socket.gethostname()
    assert (webhook.request_headers[0]["authorization"], webhook.request_headers[0]["x-room"]) == ("Bearer abc", "7")
    assert webhook.request_headers[0]["content-type"] == "application/json"


@pytest.mark.parametrize(("code", "tried_again"), [(500, True), (429, True), (400, False), (404, False), (302, False)])
def test_the_status_of_a_webhook_decides_whether_it_is_tried_again(code: int, tried_again: bool) -> None:
    with WebhookReceiver(code, headers={"Location": "/elsewhere"}) as webhook:
        outcome = send_message(webhook_channel(webhook.url), MESSAGE)
    assert str(code) in failure_reason(outcome)
    assert may_retry(outcome) is tried_again
    assert len(webhook.requests) == 1, "a redirect is not followed"


def test_an_unreachable_webhook_is_reported_without_its_secret_path(tmp_path: Path) -> None:
    with WebhookReceiver(pause=1.0) as webhook:
        slow = send_message(webhook_channel(webhook.url, timeout=0.2), MESSAGE)
    gone = send_message(webhook_channel(webhook.url), MESSAGE)
    assert [is_surely_undelivered(outcome) for outcome in (slow, gone)] == [False, True]
    for outcome in (slow, gone):
        assert may_retry(outcome)
        assert "127.0.0.1" in failure_reason(outcome)
        assert "very-secret" not in failure_reason(outcome)
    assert "did not answer within 0.2 s" in failure_reason(slow)


@pytest.mark.parametrize("text", ["Authorization Bearer abc-secret", "X-A: b\x01-secret", "Na me: secret"])
def test_an_invalid_header_is_reported_by_its_line_and_not_quoted(tmp_path: Path, text: str) -> None:
    reason = failure_reason(
        send_message(webhook_channel("http://127.0.0.1:9", headers_file=write_secret(tmp_path / "h", text)), MESSAGE)
    )
    assert "line 1 of the headers file" in reason
    assert "secret" not in reason


def test_a_file_of_secrets_that_others_can_read_is_refused_everywhere(tmp_path: Path) -> None:
    file = write_secret(tmp_path / "file", "X: y")
    file.chmod(0o644)
    with MailServer() as server:
        by_mail = send_message(email_channel(server, user="ada", password_file=file), MESSAGE)
    for outcome in (send_message(webhook_channel("http://127.0.0.1:9", headers_file=file), MESSAGE), by_mail):
        assert "can be read by others (mode 0644)" in failure_reason(outcome)


def test_a_mail_is_plain_text_with_a_subject_of_one_line() -> None:
    with MailServer() as server:
        assert (
            send_message(email_channel(server, recipients=["ada@studio.example", "bob@studio.example"]), MESSAGE)
            == MessageSent()
        )
    [mail] = server.mails
    assert mail.message["Subject"] == f"[picwish-watchd {socket.gethostname()}] {MESSAGE.subject}"
    assert mail.message["To"] == "ada@studio.example, bob@studio.example"
    assert mail.message["Auto-Submitted"] == "auto-generated"
    assert "held-7-9" in mail.message["Message-ID"]
    assert mail.message.get_content().replace("\r\n", "\n") == MESSAGE.text + "\n"
    assert [each.split(">")[0] for each in mail.recipients] == ["TO:<ada@studio.example", "TO:<bob@studio.example"]


def test_a_mail_logs_in_with_the_password_of_its_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    with MailServer() as server:
        login = email_channel(server, user="ada", password_file=password)
        write_secret(password, "pass word \r\n")
        assert send_message(login, MESSAGE) == MessageSent()
        write_secret(password, "pässword")
        assert "outside ASCII" in failure_reason(send_message(login, MESSAGE))
    assert server.logins == ["\0ada\0pass word "]


@pytest.mark.parametrize(
    ("replies", "reason", "tried_again"),
    [
        ({"GREETING": b"554 no mail here\r\n"}, "554 no mail here", False),
        ({"GREETING": b"421 later\r\n"}, "421 later", True),
        ({"MAIL": b"452 full\r\n"}, "452 full", True),
        ({"RCPT": b"550 no such \x1b[31muser\r\n"}, "ada@studio.example (550", False),
        ({"RCPT": b"450 greylisted\r\n"}, "greylisted", True),
        ({"DATA": b"554 spam\r\n"}, "554 spam", False),
        ({"EHLO": b"nonsense without end" * 2000}, "500 Line too long", False),
    ],
)
def test_the_reply_of_a_mail_server_is_reported_and_decides_on_a_retry(
    replies: dict[str, bytes], reason: str, tried_again: bool
) -> None:
    with MailServer(replies) as server:
        outcome = send_message(email_channel(server), MESSAGE)
    assert reason in failure_reason(outcome)
    assert failure_reason(outcome).isprintable()
    assert may_retry(outcome) is tried_again


def test_a_failed_quit_does_not_send_the_mail_twice() -> None:
    with MailServer({"QUIT": b"500 what\r\n"}) as server:
        assert send_message(email_channel(server), MESSAGE) == MessageSent()
    assert len(server.mails) == 1


def test_an_endlessly_talking_mail_server_is_abandoned() -> None:
    with MailServer({"GREETING": b"220-and then\r\n" * 40_000}) as server:
        reason = failure_reason(send_message(email_channel(server), MESSAGE))
    assert "its replies have more than 256 KiB" in reason


def test_a_silent_mail_server_is_given_up_after_the_timeout() -> None:
    with MailServer({"GREETING": b""}) as server:
        outcome = send_message(email_channel(server, timeout=0.2), MESSAGE)
    gone = send_message(email_channel(server), MESSAGE)
    assert may_retry(outcome)
    assert (is_surely_undelivered(outcome), is_surely_undelivered(gone)) == (True, True)
    assert "127.0.0.1 cannot be reached: Connection refused" in failure_reason(gone)


def test_a_refused_password_is_not_quoted(tmp_path: Path) -> None:
    with MailServer({"AUTH": b"535 hunter2 is wrong\r\n"}) as server:
        outcome = send_message(
            email_channel(server, user="ada", password_file=write_secret(tmp_path / "p", "hunter2\n")), MESSAGE
        )
    assert "refuses user or password (535)" in failure_reason(outcome)
    assert "hunter2" not in failure_reason(outcome)


def test_starttls_comes_before_the_password_and_the_mail(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    file = write_secret(tmp_path / "p", "hunter2\n")
    with MailServer(tls=tls) as server:
        safe = email_channel(server, security="starttls", user="ada", password_file=file)
        assert "certificate of 127.0.0.1 cannot be trusted" in failure_reason(send_message(safe, MESSAGE))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send_message(safe, MESSAGE) == MessageSent()
    assert server.logins == ["\0ada\0hunter2"]
    assert [mail.encrypted for mail in server.mails] == [True]


def test_a_server_without_starttls_gets_neither_password_nor_mail(tmp_path: Path) -> None:
    with MailServer() as server:
        safe = email_channel(
            server, security="starttls", user="ada", password_file=write_secret(tmp_path / "p", "hunter2")
        )
        assert "STARTTLS" in failure_reason(send_message(safe, MESSAGE))
    assert (server.logins, server.mails) == ([], [])


def test_a_command_gets_json_a_few_variables_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PICWISH_API_KEY", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "MY_SECRET"):
        monkeypatch.setenv(name, "secret")
    program = write_program(
        tmp_path,
        "import json\n"
        "received = {'stdin': json.load(sys.stdin), 'env': dict(os.environ), 'args': sys.argv[1:],"
        " 'group': os.getpgid(0) == os.getpid()}\n"
        "open(FOLDER + '/heard', 'w').write(json.dumps(received))",
    )
    assert send_message(command_channel(program, "--urgent", "$HOME; echo *"), MESSAGE) == MessageSent()
    received = json.loads((tmp_path / "heard").read_text())
    assert received["args"] == ["--urgent", "$HOME; echo *"]
    assert received["group"] is True
    assert received["stdin"]["id"] == "held-7-9"
    facts = {name: value for name, value in received["env"].items() if name.startswith("PICWISH_")}
    assert facts == {
        "PICWISH_NOTICE_ID": "held-7-9",
        "PICWISH_EVENT": "held",
        "PICWISH_OVER": "0",
        "PICWISH_SUBJECT": MESSAGE.subject,
    }
    assert "secret" not in received["env"].values()


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    program = write_program(
        tmp_path,
        "child = os.fork()\n"
        "if child: open(FOLDER + '/child', 'w').write(str(child))\n"
        "while True: os.write(1, b'noise' * 10000) if child else time.sleep(60)",
    )
    began = time.monotonic()
    outcome = send_message(command_channel(program, timeout=0.5), MESSAGE)
    assert time.monotonic() - began < 4
    assert "did not end within 0.5 s and was killed" in failure_reason(outcome)
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not is_alive(child):
            break
        time.sleep(0.02)
    assert not is_alive(child)


def test_no_command_outlives_the_daemon(tmp_path: Path) -> None:
    program = write_program(tmp_path, "open(FOLDER + '/pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(send_message, command_channel(program, timeout=60), MESSAGE)
        for _ in range(500):
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                break
            time.sleep(0.02)
        kill_running_commands()
        assert "was killed by signal 9" in failure_reason(sending.result(10))
    assert not is_alive(int((tmp_path / "pid").read_text()))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("channel", "begin", "piece", "pause"),
    [
        ("http", b"HTTP/1.1 204 No Content\r\nX: ", b"a", 0.05),
        ("http", b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.0),
        ("mail", b"220-", b"a", 0.05),
    ],
)
def test_a_channel_that_drips_forever_is_abandoned_in_time(
    channel: str, begin: bytes, piece: bytes, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "DEADLINE_GRACE", 0.1)
    with ThreadPoolExecutor(1) as thread, DripServer(begin, piece, pause) as drip:
        url = f"http://127.0.0.1:{drip.port}/very-secret"
        slow = email_channel(drip, timeout=0.3) if channel == "mail" else webhook_channel(url, timeout=0.3)
        outcome = thread.submit(send_message, slow, MESSAGE).result(5)
    assert failure_reason(outcome) == "127.0.0.1 did not finish within 0.4 s and was disconnected"
    assert (may_retry(outcome), is_surely_undelivered(outcome)) == (True, False)


@pytest.mark.parametrize("host", ["a..b", ".studio.example", "a" * 64 + ".example"])
def test_an_invalid_host_name_is_reported_in_words(host: str) -> None:
    by_mail = Email.model_validate(
        {"to": "email", "server": host, "sender": "watchd@studio.example", "recipients": ["ada@studio.example"]}
    )
    for outcome in (
        send_message(webhook_channel(f"http://{host}/very-secret", allow_insecure=True), MESSAGE),
        send_message(by_mail, MESSAGE),
    ):
        assert failure_reason(outcome) == f"{host} is not a valid host name"
        assert not may_retry(outcome)


def test_the_failure_of_a_command_is_reported(tmp_path: Path) -> None:
    assert "ended with exit code 3" in failure_reason(
        send_message(command_channel(write_program(tmp_path, "sys.exit(3)")), MESSAGE)
    )
    assert "was killed by signal 9" in failure_reason(
        send_message(command_channel(write_program(tmp_path, "os.kill(os.getpid(), 9)")), MESSAGE)
    )
    missing = send_message(command_channel(tmp_path / "nothing"), MESSAGE)
    assert "nothing cannot be run: No such file" in failure_reason(missing)
    assert not may_retry(missing)
    program = write_program(tmp_path, "")
    program.chmod(0o644)
    assert "cannot be run: Permission denied" in failure_reason(send_message(command_channel(program), MESSAGE))


def test_an_apprise_that_was_uninstalled_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    services = Apprise.model_validate({"to": "apprise", "urls_file": tmp_path / "urls"})
    assert "apprise cannot be imported" in failure_reason(send_message(services, MESSAGE))


# Apprise and what it imports cause deprecation warnings.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_apprise_gets_title_and_text(tmp_path: Path) -> None:
    pytest.importorskip("apprise", reason="apprise is not installed")
    with WebhookReceiver() as webhook:
        urls = write_secret(tmp_path / "urls", f"json://127.0.0.1:{webhook.port}/secret\n")
        services = Apprise.model_validate({"to": "apprise", "urls_file": urls})
        assert send_message(services, MESSAGE) == MessageSent()
        write_secret(urls, "nonsense://secret")
        assert "line 1 of" in failure_reason(send_message(services, MESSAGE))
        write_secret(urls, "json://127.0.0.1:9/secret")
        assert "secret" not in failure_reason(send_message(services, MESSAGE))
    assert webhook.requests[0]["message"] == MESSAGE.text
