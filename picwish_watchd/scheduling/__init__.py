"""Decide whose request goes next, when, and what may be spent.

* ``rate_limiter`` grants permits at ``api.qps``; ``rate`` adapts it after a 429; ``request_log`` keeps the last second
  over a restart.
* ``duration_model`` predicts when a task is done; ``poll_queue`` orders the polls.
* ``fair_scheduler`` keeps rules from starving each other; ``credit_budget`` is what may still be spent today.
"""
