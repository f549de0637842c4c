#!/bin/sh
# A job with nothing but curl (and jq to read answers): a resumable upload, start, poll, download.
#   curl-job.sh URL KEY FILE.blend OUT [FRAMES]
set -eu
url=$1 key=$2 file=$3 out=$4 frames=${5:-}

call() { curl --silent --show-error --fail-with-body --header "Authorization: Bearer $key" "$@"; }
json() { call --header 'Content-Type: application/json' "$@"; }

size=$(wc -c <"$file")
upload=$(json --data "$(jq -n --arg name "$(basename "$file")" --argjson size "$size" '{name: $name, size: $size}')" \
    "$url/api/v1/uploads" | jq -r .id)

# Half of the file, then ask for the length so far, then the rest: as after a broken connection.
head -c $((size / 2)) "$file" | call --output /dev/null -X PATCH --header 'Upload-Offset: 0' --data-binary @- \
    "$url/api/v1/uploads/$upload"
offset=$(call "$url/api/v1/uploads/$upload" | jq -r .offset)
tail -c +$((offset + 1)) "$file" | call --output /dev/null -X PATCH --header "Upload-Offset: $offset" --data-binary @- \
    "$url/api/v1/uploads/$upload"
call --output /dev/null -X POST "$url/api/v1/uploads/$upload/finish"

job=$(json --data "$(jq -n --arg id "$upload" --arg frames "$frames" \
    '{source: {upload: {id: $id}}} + (if $frames == "" then {} else {frames: $frames} end)')" \
    "$url/api/v1/jobs" | jq -r .id)

for _ in $(seq 600); do
    state=$(call "$url/api/v1/jobs/$job" | jq -r .state)
    case $state in completed) break ;; failed | cancelled) call "$url/api/v1/jobs/$job" | jq .reason >&2; exit 1 ;; esac
    sleep 0.2
done
[ "$state" = completed ] || { echo "job $job is still $state" >&2; exit 1; }

call "$url/api/v1/jobs/$job/outputs?after=0&limit=1000" | jq -r '.outputs[].files[].path' | while read -r path; do
    mkdir -p "$out/$(dirname "$path")"
    call --output "$out/$path" "$url/api/v1/jobs/$job/files/$path"
done
echo "$job"
