"""Two clients as a user would write them, for comparison; no part of the daemon uses them.

``watch.sh`` is the shell pipeline with which questions about "run a command for each new file" are answered:
``inotifywait -m -e close_write | while read``, curl to submit, curl every second until the state is 1, curl to
download, a few images at a time. ``watch.py`` has the shape of watchdog's quick start and of most articles after it:
``on_created`` passes the file to a pool of threads, each of which submits, queries every second and downloads.
PicWish's own advice for this endpoint is one query a second, too.

Both are written with some care: they wait until a new file is written, and try again a second later when PicWish
refuses a request, so that no image is lost by a 429. Neither knows of the rate that all requests share, keeps a
journal, or looks at files that were in the folder before its start.
"""
