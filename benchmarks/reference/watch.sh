#!/usr/bin/env bash
# watch.sh INBOX OUTBOX: enhances each new picture; see __init__.py for where the shape comes from.
# From the environment: API, KEY, SYNC (0 or 1), EVERY (seconds between two tries), AT_ONCE (pictures).
inbox=$1 outbox=$2

new_files() {
    if command -v inotifywait >/dev/null; then
        inotifywait -m -q -e close_write --format %f "$inbox"
    else  # without inotify-tools: a look every EVERY seconds
        touch "$outbox/.seen"
        while sleep "$EVERY"; do
            ls "$inbox" | grep -vxFf "$outbox/.seen" | tee -a "$outbox/.seen"
        done
    fi
}

submit() {
    curl -s "$API/api/tasks/visual/scale-pro" -H "X-API-KEY: $KEY" \
        -F "image_file=@$1" -F "sync=$SYNC" -F type=0 -F return_type=1
}

ask() {
    curl -s "$API/api/tasks/visual/scale-pro/$1" -H "X-API-KEY: $KEY"
}

enhance() {
    local name=$1 answer task
    while answer=$(submit "$inbox/$name"); task=$(jq -r '.data.task_id // empty' <<<"$answer"); [ -z "$task" ]; do
        sleep "$EVERY"
    done
    while state=$(jq -r '.data.state // empty' <<<"$answer"); [ "$state" != 1 ]; do
        if [ "${state:-0}" -lt 0 ]; then
            echo "$name: $(jq -r .data.state_detail <<<"$answer")" >&2
            return
        fi
        sleep "$EVERY"
        answer=$(ask "$task")
    done
    curl -s -o "$outbox/$name" "$(jq -r .data.image <<<"$answer")"
}

new_files | while read -r name; do
    while [ "$(jobs -rp | wc -l)" -ge "$AT_ONCE" ]; do
        wait -n
    done
    enhance "$name" &
done
