"""Decide whose request goes next, when, and what may be spent.

* ``rate_limiter`` grants permits at ``api.qps``. ``rate`` lowers and restores the rate after a 429. ``request_log``
  keeps the times of the last requests over a restart.
* ``task_tracker`` follows the tasks at PicWish. ``duration_model`` predicts when a task is done, ``poll_queue`` orders
  the queries, ``download_slots`` bounds the downloads.
* ``fair_scheduler`` keeps rules from starving each other. ``credit_budget`` says what may still be spent today.
"""
