"""``export``: write jobs or spending as CSV or JSON lines, for accounting. Memory stays small with any number."""

import argparse
import csv
import io
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping

from picwish_watchd.cli.journal_views import open_journal_view
from picwish_watchd.errors import UsageError
from picwish_watchd.job_json import job_to_dict
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.wording import iso_utc, printable_path

Row = dict[str, object]

#: Beginnings of a cell that spreadsheets run as a formula (owasp.org/www-community/attacks/CSV_Injection).
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")
#: The same beginnings after a semicolon: where the comma is the decimal mark, spreadsheets split there even in quotes.
_FORMULA_AFTER_SEMICOLON = re.compile(r';(?=["\s]*[-=+@])')
#: Objects of `jobs --json` -> the parts that become columns of the CSV. PicWish's answer is left out.
_NESTED_COLUMNS = {
    "sent": ("format", "width", "height", "size"),
    "error": ("code", "message"),
    "result": ("format", "width", "height", "size", "sha256"),
}


def run(args: argparse.Namespace) -> int:
    """Write the rows that ``args`` selects, oldest first."""
    since, until = _parse_day(args.since), _parse_day(args.until)
    if since is not None and until is not None and until < since:
        raise UsageError(
            f"--until {args.until} is before --since {args.since}", hint="both days are included; swap them"
        )
    reader = open_journal_view(args, JournalReader)
    begin = 0.0 if since is None else time.mktime(since)
    end = float("inf") if until is None else time.mktime(_day_after(until))
    rows = (_iter_spending_rows if args.what == "spend" else _iter_job_rows)(reader, args.rule, begin, end)
    if args.json:
        for row in rows:
            print(json.dumps(row))
    else:
        _write_csv(rows, _CSV_COLUMNS[args.what])
    return 0


def _iter_job_rows(reader: JournalReader, rule: str | None, begin: float, end: float) -> Iterator[Row]:
    for job in reader.iter_jobs(rule):
        if begin <= job.created_at < end:
            yield job_to_dict(job)


def _iter_spending_rows(reader: JournalReader, rule: str | None, begin: float, end: float) -> Iterator[Row]:
    for charge in reader.iter_spending():
        if begin <= charge.at < end and rule in (None, charge.rule):
            yield {
                "at": iso_utc(charge.at),
                "day": time.strftime("%Y-%m-%d", time.localtime(charge.at)),
                "rule": charge.rule,
                "job": charge.job,
                "source": str(charge.source),
                "credits": charge.credits,
                "state": charge.state,
            }


_JOB_COLUMNS = (
    "id",
    "rule",
    "state",
    "source",
    "kind",
    "url",
    "task_id",
    "type",
    "return_type",
    "sync",
    "sha256",
    "size",
    "format",
    "width",
    "height",
    "sent_format",
    "sent_width",
    "sent_height",
    "sent_size",
    "credits",
    "credits_in_doubt",
    "attempts",
    "error_code",
    "error_message",
    "output",
    "result_format",
    "result_width",
    "result_height",
    "result_size",
    "result_sha256",
    "original",
    "note",
    "created_at",
    "submitted_at",
    "completed_at",
)
_CSV_COLUMNS = {"jobs": _JOB_COLUMNS, "spend": ("at", "day", "rule", "job", "source", "credits", "state")}


def _write_csv(rows: Iterator[Row], columns: tuple[str, ...]) -> None:
    """Write CSV as RFC 4180 defines it: a header, lines that end in CR LF; in UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    for row in rows:
        flat = _flatten_row(row)
        writer.writerow([_sanitize_cell(flat[column]) for column in columns])


def _flatten_row(row: Row) -> Row:
    flat = dict(row)
    for name, parts in _NESTED_COLUMNS.items():
        whole = flat.pop(name, None)
        for part in parts:
            flat[f"{name}_{part}"] = whole[part] if isinstance(whole, Mapping) else None
    return flat


def _sanitize_cell(value: object) -> object:
    """Return a value that is safe in a spreadsheet: no formula, and control characters escaped as in `jobs`.

    An apostrophe is put before a formula. JSON keeps the text unchanged.
    """
    if not isinstance(value, str):
        return value
    # There may be a million rows, and escaping looks at every character.
    text = value if value.isprintable() else printable_path(value)
    if ";" in text:
        text = _FORMULA_AFTER_SEMICOLON.sub(";'", text)
    return f"'{text}" if text.startswith(_FORMULA_PREFIXES) else text


def _parse_day(text: str | None) -> time.struct_time | None:
    """Return the local midnight at which a day begins, for `time.mktime`. Raises `UsageError` for other texts."""
    if text is None:
        return None
    try:
        return time.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise UsageError(f"{text} is not a date", hint="write dates as 2026-01-31") from None


def _day_after(day: time.struct_time) -> time.struct_time:
    return time.struct_time((day.tm_year, day.tm_mon, day.tm_mday + 1, 0, 0, 0, 0, 0, -1))
