"""Combinations of folders that would submit results again or lose originals."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from picwish_watchd.config.model import Config
from tests.support.fuse_share import mount_share
from tests.support.mounts import temporary_mount


def rules_yaml(*rules: str) -> str:
    """Return rules r0, r1, ... on lines 2, 3, ..., each given as ``inbox outbox [KEY=VALUE ...]``."""
    lines = ["rules:"]
    for index, text in enumerate(rules):
        inbox, outbox, *more = text.split()
        keys = ", ".join(["", *(pair.replace("=", ": ") for pair in more)])
        lines.append(f"- {{name: r{index}, inbox: {inbox}, outbox: {outbox}{keys}}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rules_yaml("/a /o", "/a /p"), '3: rules[1].inbox: found /a, which is the inbox of rule "r0" (/a)'),
        (rules_yaml("/a /o", "/a/b /p"), '3: rules[1].inbox: found /a/b, which is inside the inbox of rule "r0" (/a)'),
        (rules_yaml("/a/b /o", "/a /p"), '3: rules[1].inbox: found /a, which contains the inbox of rule "r0" (/a/b)'),
        (rules_yaml("/a /o", "/x/../a/ /p"), '3: rules[1].inbox: found /a, which is the inbox of rule "r0" (/a)'),
        (rules_yaml("/a /a"), '2: rules[0].outbox: found /a, which is the inbox of rule "r0" (/a)'),
        (rules_yaml("/a /a/out"), '2: rules[0].outbox: found /a/out, which is inside the inbox of rule "r0" (/a)'),
        (rules_yaml("/a/in /a"), '2: rules[0].outbox: found /a, which contains the inbox of rule "r0" (/a/in)'),
        (rules_yaml("/a /"), '2: rules[0].outbox: found /, which contains the inbox of rule "r0" (/a)'),
        (rules_yaml("/a /b", "/b /c"), '2: rules[0].outbox: found /b, which is the inbox of rule "r1" (/b)'),
        (
            rules_yaml("/a /o archive=/a/done"),
            '2: rules[0].archive: found /a/done, which is inside the inbox of rule "r0" (/a)',
        ),
        (rules_yaml("/a /o failed=/b", "/b /p"), '2: rules[0].failed: found /b, which is the inbox of rule "r1" (/b)'),
        (
            rules_yaml("/a/in /o archive=/a"),
            '2: rules[0].archive: found /a, which contains the inbox of rule "r0" (/a/in)',
        ),
        (rules_yaml("/a /o archive=/o"), '2: rules[0].archive: found /o, which is the outbox of rule "r0" (/o)'),
        (rules_yaml("/a /o", "/b /p failed=/o"), '3: rules[1].failed: found /o, which is the outbox of rule "r0" (/o)'),
        (
            rules_yaml("/a /o if_exists=overwrite archive=/o/originals"),
            '2: rules[0].archive: found /o/originals, which is inside the outbox of rule "r0" (/o)',
        ),
        (
            rules_yaml("/a /d/o if_exists=overwrite", "/b /p failed=/d"),
            '3: rules[1].failed: found /d, which contains the outbox of rule "r0" (/d/o)',
        ),
        (
            "journal: /a/x/j.db\n" + rules_yaml("/a /o"),
            '1: journal: found /a/x/j.db, which is inside the inbox of rule "r0"',
        ),
        ("journal: /a\n" + rules_yaml("/a /o"), '1: journal: found /a, which is inside the inbox of rule "r0"'),
        (
            "defaults:\n  archive: /b\n" + rules_yaml("/a /o", "/b /p archive=/c"),
            '2: defaults.archive: found /b, which is the inbox of rule "r1" (/b)',
        ),
    ],
)
def test_folders_that_would_feed_each_other_are_refused(
    config_errors: Callable[..., list[str]], text: str, expected: str
) -> None:
    (fault,) = config_errors(text)
    assert fault.startswith(expected + "; allowed: ")


def test_circles_of_rules_are_refused(config_errors: Callable[..., list[str]]) -> None:
    assert [fault.split(": found")[0] for fault in config_errors(rules_yaml("/a /b", "/b /a"))] == [
        "2: rules[0].outbox",
        "3: rules[1].outbox",
    ]


@pytest.mark.parametrize(
    "text",
    [
        rules_yaml("/a /o", "/b /o"),
        rules_yaml("/a /o", "/b /o/sub"),
        rules_yaml("/a /ab", "/a-b /o"),
        rules_yaml("/a /o archive=/d failed=/d", "/b /o archive=/d"),
        rules_yaml("/a /o archive=/o/originals"),
        rules_yaml("/a /o archive=/o/originals", "/b /p if_exists=overwrite"),
        "journal: /o/j.db\n" + rules_yaml("/a /o"),
    ],
)
def test_folders_that_only_share_or_look_alike_are_fine(load_text: Callable[..., Config], text: str) -> None:
    assert load_text(text).rules


def test_two_rules_have_two_names(config_errors: Callable[..., list[str]]) -> None:
    text = "rules:\n- {name: a, inbox: /a, outbox: /o}\n- {name: a, inbox: /b, outbox: /o}\n"
    assert config_errors(text) == [
        '3: rules[1].name: found "a", which is the name of rules[0] too; allowed: a name that no other rule has'
    ]


def test_folders_that_are_one_by_a_symbolic_link_are_detected(
    config_errors: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert [fault.split(";")[0] for fault in config_errors(rules_yaml("real /o", "link /p", "/c link/out"))] == [
        f'3: rules[1].inbox: found {tmp_path}/link, which is the inbox of rule "r0" ({tmp_path}/real)',
        f'4: rules[2].outbox: found {tmp_path}/link/out, which is inside the inbox of rule "r0" ({tmp_path}/real)',
        f'4: rules[2].outbox: found {tmp_path}/link/out, which is inside the inbox of rule "r1" ({tmp_path}/link)',
    ]


@pytest.mark.parametrize(
    ("bound", "inboxes", "expected"),
    [
        ("disk", "disk name", "{}/name, which is the inbox of rule"),
        ("disk", "name disk", "{}/disk, which is the inbox of rule"),
        ("disk", "disk name/sub", "{}/name/sub, which is inside the inbox of rule"),
        ("disk/sub", "disk name", "{}/name, which is inside the inbox of rule"),
        ("disk/sub", "name disk", "{}/disk, which contains the inbox of rule"),
    ],
)
def test_folders_that_are_one_by_a_mount_are_detected(
    config_errors: Callable[..., list[str]], tmp_path: Path, bound: str, inboxes: str, expected: str
) -> None:
    (tmp_path / "disk" / "sub").mkdir(parents=True)
    with temporary_mount(tmp_path / "name", tmp_path / bound):
        (fault,) = config_errors(rules_yaml(*(f"{inbox} /o" for inbox in inboxes.split())))
        assert expected.format(tmp_path) in fault
        (fault,) = config_errors(rules_yaml(inboxes))
        assert "rules[0].outbox" in fault


def test_folders_beside_each_other_on_one_mount_are_fine(load_text: Callable[..., Config], tmp_path: Path) -> None:
    for name in ("disk/a", "disk/ab"):
        (tmp_path / name).mkdir(parents=True)
    with temporary_mount(tmp_path / "name", tmp_path / "disk" / "a"):
        assert load_text(rules_yaml("name /o", "disk/ab /o"))


def test_share_folders_with_equal_inodes_are_distinguished(
    load_text: Callable[..., Config], config_errors: Callable[..., list[str]], tmp_path: Path
) -> None:
    """virtiofs and 9p show equal inodes where the host shares a folder that spans several disks."""
    with mount_share(tmp_path, "fold") as share, ExitStack() as disks:
        for name in ("scans", "photos"):
            disks.enter_context(temporary_mount(tmp_path / "share-backing" / name))
        assert os.path.samefile(share / "scans", share / "photos")
        assert load_text(rules_yaml("share/scans /o", "share/photos /o"))
        (fault,) = config_errors(rules_yaml("share/scans /o", "share/SCANS /o"))
        assert "share/SCANS, which is the inbox of rule" in fault


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "127.1.2.3:1", "[::1]:80"])
def test_http_to_this_machine_is_fine_and_does_not_warn(load_text: Callable[..., Config], host: str) -> None:
    assert load_text(f"api: {{base_url: 'http://{host}'}}\n" + rules_yaml("/a /o")).warnings == ()
