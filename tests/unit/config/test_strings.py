"""Single text values: paths, URLs, names, templates."""

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picwish_watchd.config import strings
from picwish_watchd.config.strings import ResolveContext
from picwish_watchd.config.units import InvalidValueError

HOME = ResolveContext(Path("/etc/pw"), {"HOME": "/home/ada", "NAS": "/srv/nas", "EMPTY": "", "REL": "in"})


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/srv/in", "/srv/in"),
        ("in", "/etc/pw/in"),
        ("../in/./x/", "/etc/in/x"),
        ("//srv//in", "/srv/in"),
        ("~", "/home/ada"),
        ("~/in", "/home/ada/in"),
        ("${NAS}/in", "/srv/nas/in"),
        ("${REL}/${REL}", "/etc/pw/in/in"),
        ("in/~", "/etc/pw/in/~"),
        ("$NAS", "/etc/pw/$NAS"),
    ],
)
def test_paths_are_absolute_expanded_and_relative_to_the_file(written: object, path: str) -> None:
    assert strings.parse_path(written, HOME) == Path(path)


def test_the_home_of_a_user_is_looked_up() -> None:
    me = pwd.getpwuid(os.getuid())
    assert strings.parse_path(f"~{me.pw_name}/in", HOME) == Path(me.pw_dir, "in")


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ("${NOT_THERE}/in", "NOT_THERE is not set, or empty"),
        ("${EMPTY}/in", "EMPTY is not set, or empty"),
        ("${NAS", "a variable written"),
        ("${}", "a variable written"),
        ("${N-x}", "a variable written"),
        ("~nobody-of-that-name/in", "there is no user 'nobody-of-that-name'"),
        ("", "text"),
        (None, "text"),
        (5, "put it in quotes"),
        (False, "put it in quotes"),
        ("/srv/in\n", "without line breaks"),
        ("/srv/\ud800", "without line breaks"),
        (["/srv"], "text"),
    ],
)
def test_a_path_that_leads_nowhere_certain_is_refused(written: object, allowed: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        strings.parse_path(written, HOME)
    assert allowed in caught.value.allowed


def test_a_tilde_without_a_home_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="HOME is not set"):
        strings.parse_path("~/in", ResolveContext(Path("/"), {}))


def test_without_a_file_paths_are_absolute_and_taken_literally() -> None:
    assert strings.parse_path("/srv/${NAS}", None) == Path("/srv/${NAS}")
    assert strings.parse_path(Path("/a/b"), None) == Path("/a/b")
    for written in ("in", "~", "", None, 5):
        with pytest.raises(InvalidValueError, match="an absolute path"):
            strings.parse_path(written, None)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://techhk.aoscdn.com", "https://techhk.aoscdn.com"),
        ("https://techhk.aoscdn.com/", "https://techhk.aoscdn.com"),
        ("HTTPS://host:8443/a/b//", "HTTPS://host:8443/a/b"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("https://${REL}.example", "https://in.example"),
    ],
)
def test_a_base_url_has_a_host_and_no_final_slash(written: str, url: str) -> None:
    assert strings.parse_base_url(written, HOME) == url


@pytest.mark.parametrize(
    "written",
    [
        "techhk.aoscdn.com",
        "ftp://host",
        "https://",
        "https:///path",
        "http://[::1",
        "http://host:port",
        "http://a b",
        "",
        5,
        "http://host:99999",
        "https://:443",
    ],
)
def test_what_is_no_base_url_is_refused(written: object) -> None:
    with pytest.raises(InvalidValueError):
        strings.parse_base_url(written, HOME)


@pytest.mark.parametrize(
    "written", ["https://u:secret@host", "https://u@host", "https://@host", "https://h?secret", "https://h#x"]
)
def test_secrets_in_a_base_url_are_refused_and_not_quoted(written: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        strings.parse_base_url(written, HOME)
    assert caught.value.found is not None
    assert "secret" not in caught.value.found + caught.value.allowed


@pytest.mark.parametrize(
    "url", ["http://localhost:8080", "http://127.0.0.1", "http://127.9.8.7", "http://[::1]", "https://host"]
)
def test_https_and_this_machine_are_safe(url: str) -> None:
    assert not strings.is_insecure_url(url)


@pytest.mark.parametrize(
    "url",
    ["http://host", "HTTP://host", "http://10.0.0.1", "http://[::2]", "http://localhost.evil", "http://127.0.0.1.evil"],
)
def test_http_to_another_host_is_seen(url: str) -> None:
    assert strings.is_insecure_url(url)


@pytest.mark.parametrize("written", ["", "a b", "a/b", "ä", ".", "a\n", None, 2024, True])
def test_a_rule_name_is_letters_digits_underscore_and_hyphen(written: object) -> None:
    assert strings.parse_rule_name("Scans_2-x") == "Scans_2-x"
    with pytest.raises(InvalidValueError):
        strings.parse_rule_name(written)


@pytest.mark.parametrize(
    "template",
    ["{stem}.{ext}", "{date}/{rule}/{name}", "{job_id}", "{{{stem}}}", "x-{task_id}", ".{stem}", "...{stem}"],
)
def test_templates_that_distinguish_results_are_accepted(template: str) -> None:
    assert strings.parse_filename_template(template) == template


@pytest.mark.parametrize(
    ("template", "allowed"),
    [
        ("{stm}.jpg", "the fields {stem}"),
        ("{}", "the fields {stem}"),
        ("{0}", "the fields {stem}"),
        ("{stem.__class__}", "the fields {stem}"),
        ("{stem[0]}", "the fields {stem}"),
        ("{stem:>9}", "{stem} alone"),
        ("{stem:{ext}}", "{stem} alone"),
        ("{stem!r}", "{stem} alone"),
        ("{stem", "braces pair up"),
        ("stem}", "braces pair up"),
        ("../{stem}", "without .."),
        ("{stem}/..", "without .."),
        ("a/../{stem}", "without .."),
        ("/{stem}", "without a leading /"),
        ("{stem}/", "none of them empty"),
        ("a//{stem}", "none of them empty"),
        ("./{stem}", "none of them empty"),
        ("{date}.{ext}", "at least one of {stem}, {name}, {job_id}, {task_id}"),
        ("result.jpg", "at least one of"),
        ("{stem}\n", "without line breaks"),
        ("", "text"),
        (None, "text"),
    ],
)
def test_templates_that_leave_the_outbox_or_make_no_sense_are_refused(template: object, allowed: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        strings.parse_filename_template(template)
    assert allowed in caught.value.allowed


def test_a_misspelt_field_is_recognised() -> None:
    with pytest.raises(InvalidValueError) as caught:
        strings.parse_filename_template("{stm}.jpg")
    assert caught.value.suggestion == "{stem}"


@given(st.text(alphabet="{}/.:!stemx"))
def test_an_accepted_template_formats_and_stays_below_the_outbox(template: str) -> None:
    try:
        strings.parse_filename_template(template)
    except InvalidValueError:
        return
    name = template.format_map(dict.fromkeys(strings.FILENAME_FIELDS, "x"))
    assert os.path.normpath(os.path.join("/out", name)) == f"/out/{name}"
