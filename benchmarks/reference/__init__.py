"""Two clients as an ordinary user would write them, to compare with; no part of the daemon uses them.

``watch.sh`` is the shell pipeline that questions about "run a command for each new file" are answered with:
``inotifywait -m -e close_write | while read``, a curl to submit, a curl a second until the state is 1, a curl to
download, a few pictures at a time. ``watch.py`` is the shape of watchdog's own quick start and of most posts after it:
``on_created`` hands the file to a pool of threads, each of which submits, asks every second and downloads. PicWish's
advice for this endpoint is one query a second, too. Both are written with some care: they wait until a new file is
written, and try again a second later when PicWish refuses a request, so that no picture is lost by a 429. Neither
knows of the rate that all requests share, keeps a journal, or looks at what lay in the folder before it was started.
"""
