#!/usr/bin/env bash
# watch.sh INBOX OUTBOX: enhance each new image; __init__.py says where this shape comes from.
# Environment: API, KEY, SYNC (0 or 1), EVERY (seconds between two tries), AT_ONCE (images).
inbox=$1 outbox=$2

new_files() {
    if command -v inotifywait >/dev/null; then
        inotifywait -m -q -e close_write --format %f "$inbox"
    else
        # Without inotify-tools list the folder every EVERY seconds.
        touch "$outbox/.known"
        while sleep "$EVERY"; do
            ls "$inbox" | grep -vxFf "$outbox/.known" | tee -a "$outbox/.known"
        done
    fi
}

submit() {
    curl -s "$API/api/tasks/visual/scale-pro" -H "X-API-KEY: $KEY" \
        -F "image_file=@$1" -F "sync=$SYNC" -F type=0 -F return_type=1
}

query() {
    curl -s "$API/api/tasks/visual/scale-pro/$1" -H "X-API-KEY: $KEY"
}

enhance() {
    local name=$1 response task
    while response=$(submit "$inbox/$name"); task=$(jq -r '.data.task_id // empty' <<<"$response"); [ -z "$task" ]; do
        sleep "$EVERY"
    done
    while state=$(jq -r '.data.state // empty' <<<"$response"); [ "$state" != 1 ]; do
        if [ "${state:-0}" -lt 0 ]; then
            echo "$name: $(jq -r .data.state_detail <<<"$response")" >&2
            return
        fi
        sleep "$EVERY"
        response=$(query "$task")
    done
    curl -s -o "$outbox/$name" "$(jq -r .data.image <<<"$response")"
}

new_files | while read -r name; do
    while [ "$(jobs -rp | wc -l)" -ge "$AT_ONCE" ]; do
        wait -n
    done
    enhance "$name" &
done
