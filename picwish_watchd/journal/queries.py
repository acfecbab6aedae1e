"""Queries that are used in more than one place, or are long."""

from picwish_watchd.state import State

#: The columns of a job, with the sums of its rows in the ledger.
JOB_COLUMNS = """*,
  (SELECT coalesce(sum(credits), 0) FROM charge WHERE charge.job = job.id AND charge.state = 'spent') AS credits,
  (SELECT coalesce(sum(credits), 0) FROM charge WHERE charge.job = job.id AND charge.state = 'doubtful')
    AS credits_in_doubt,
  (SELECT charge.state = 'spent' FROM charge WHERE charge.job = job.id ORDER BY charge.id DESC LIMIT 1) AS paid"""
SELECT_JOB = f"SELECT {JOB_COLUMNS} FROM job "
SELECT_CHARGE = (
    "SELECT charge.id, charge.at, charge.rule, charge.credits, charge.state, charge.job, job.source"
    " FROM charge JOIN job ON job.id = charge.job "
)

#: One content, one charge: true for a queued job unless an earlier job of the same content is queued, or another one is
#: under way (also if that one is later, after a `retry`) or has an id of the list that is filled in. Jobs that came in
#: a flood wait for a person.
NO_DUPLICATE_AHEAD = """AND flood = 0 AND NOT EXISTS (SELECT 1 FROM job AS first WHERE first.sha256 = job.sha256
  AND first.rule = job.rule AND first.id < job.id AND first.state = 'queued')
  AND NOT EXISTS (SELECT 1 FROM job AS other WHERE +other.sha256 = job.sha256 AND other.rule = job.rule
  AND (other.state IN ('submitting', 'pending', 'fetching', 'delivering')))
  AND NOT EXISTS (SELECT 1 FROM job AS other WHERE +other.sha256 = job.sha256 AND other.rule = job.rule
  AND other.id IN ({}))"""

#: Rule, state, number of jobs, last event, last job. Each pair of rule and state is looked up in the index and counted
#: alone, which takes 7 ms with 100,000 jobs; grouping all rows of the index takes 16 ms.
COUNT_JOBS = f"""
WITH RECURSIVE
  known (state) AS (VALUES {", ".join(f"('{state}')" for state in State)}),
  pair (state, rule) AS (
    SELECT state, (SELECT min(rule) FROM job WHERE job.state = known.state) FROM known
    UNION ALL
    SELECT state, (SELECT min(rule) FROM job WHERE job.state = pair.state AND job.rule > pair.rule)
    FROM pair WHERE rule IS NOT NULL
  )
SELECT rule, state, (SELECT count(*) FROM job WHERE job.state = pair.state AND job.rule = pair.rule),
  (SELECT max(id) FROM event), (SELECT max(id) FROM job)
FROM pair WHERE rule IS NOT NULL"""

#: Each rule that has a job in a state, found without reading all of its jobs.
RULES_WITH_STATE = """WITH RECURSIVE found (rule) AS (
  SELECT min(rule) FROM job WHERE state = :state
  UNION ALL SELECT (SELECT min(rule) FROM job WHERE state = :state AND rule > found.rule) FROM found
  WHERE found.rule IS NOT NULL) SELECT rule FROM found WHERE rule IS NOT NULL"""

#: Each rule that has an original to move or delete, found without reading all of its jobs.
RULES_WITH_WAITING_ORIGINALS = """WITH RECURSIVE found (rule) AS (
  SELECT min(rule) FROM job WHERE original = 'waiting'
  UNION ALL SELECT (SELECT min(rule) FROM job WHERE original = 'waiting' AND rule > found.rule) FROM found
  WHERE found.rule IS NOT NULL) SELECT rule FROM found WHERE rule IS NOT NULL"""
