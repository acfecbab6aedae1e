"""``spend``: show the credits used, by day, month or rule."""

import argparse
import json
import sys
import time
from collections import Counter

from picwish_watchd.cli.journal_views import open_journal_view
from picwish_watchd.cli.table import print_table
from picwish_watchd.journal.status_reader import SpendingBucket, StatusReader
from picwish_watchd.wording import pluralize

# Characters of the longest bar.
_BAR_WIDTH = 40


def run(args: argparse.Namespace) -> int:
    """Print the credits used. Credits in doubt count as used and are also shown in a column of their own."""
    reader = open_journal_view(args, StatusReader)
    used: Counter[str] = Counter()
    in_doubt: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for bucket in reader.spending_buckets():
        key = _group_key(bucket, args.by)
        used[key] += bucket.credits
        images[key] += bucket.images
        in_doubt[key] += bucket.in_doubt
    rows = [
        {args.by: key, "images": images[key], "credits": used[key], "credits_in_doubt": in_doubt[key]}
        for key in sorted(used)
    ]
    if args.json:
        print(json.dumps({"by": args.by, "credits": used.total(), "credits_in_doubt": in_doubt.total(), "rows": rows}))
        return 0
    most = max(used.values(), default=0)
    bars = sys.stdout.isatty()
    print_table(
        (args.by.upper(), "IMAGES", "CREDITS", "IN DOUBT", *([""] if bars else [])),
        [
            (*row.values(), *(["█" * round(_BAR_WIDTH * used[str(row[args.by])] / most)] if bars else []))
            for row in rows
        ],
        right=("IMAGES", "CREDITS", "IN DOUBT"),
    )
    print(f"\n{pluralize(used.total(), 'credit')} for {pluralize(images.total(), 'image')}")
    return 0


def _group_key(bucket: SpendingBucket, by: str) -> str:
    if by == "rule":
        return bucket.rule
    return time.strftime("%Y-%m-%d" if by == "day" else "%Y-%m", time.localtime(bucket.at))
