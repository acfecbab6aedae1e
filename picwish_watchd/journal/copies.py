"""Jobs that wait for another one of the same content: one content, one charge."""

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader


def behind_another(journal: JournalReader) -> int:
    """Number of queued jobs that wait for nothing but another one of their content, queued earlier or delivering.

    `JournalReader.waiting_in_vain` and `floods` count none of them. Looks at each queued job.
    """
    rows = journal._rows(
        "SELECT rule, count(*) FROM job WHERE state = 'queued' AND flood = 0 AND (not_before IS NULL OR note IS NULL)"
        " AND EXISTS (SELECT 1 FROM job AS other WHERE other.sha256 = job.sha256 AND other.rule = job.rule"
        " AND (other.state = 'delivering' OR other.state = 'queued' AND other.id < job.id)) GROUP BY rule"
    )
    return sum(row[1] for row in rows if (State.QUEUED, row[0]) not in journal._pauses)
