#!/usr/bin/env bash
# transfer.sh INBOX OUTBOX: upload, query and download each image, AT_ONCE of them concurrently.
# Environment: API, KEY, RETURN_TYPE (1 URL, 2 base64), AT_ONCE. Nothing is checked, synced or recorded.
export inbox=$1 outbox=$2 tasks=$API/api/tasks/visual/scale-pro

transfer() {
    local task response=$outbox/.$1.json
    task=$(curl -s "$tasks" -H "X-API-KEY: $KEY" -F "image_file=@$inbox/$1" -F sync=0 -F return_type="$RETURN_TYPE" |
        jq -r .data.task_id)
    while
        curl -s -o "$response" "$tasks/$task" -H "X-API-KEY: $KEY"
        ! grep -q '"state": *1[,}]' "$response"
    do
        sleep 0.05
    done
    if [ "$RETURN_TYPE" = 1 ]; then
        curl -s -o "$outbox/$1" "$(jq -r .data.image "$response")"
    else
        jq -j .data.image "$response" | base64 -d >"$outbox/$1"
    fi
    rm "$response"
}
export -f transfer

ls "$inbox" | xargs -P "$AT_ONCE" -I {} bash -c 'transfer {}'
