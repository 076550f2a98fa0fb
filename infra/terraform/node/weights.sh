#!/usr/bin/env bash
# A folder of weights in S3 -> a checked copy on this node's disk, and a mark that it is whole. usage: weights.sh URL FOLDER
# s3://BUCKET/PREFIX goes to FOLDER/BUCKET/PREFIX; replicas find it there by the URL (GROK_BATCH_WEIGHTS_CACHE).
# Only what is missing or of another size is fetched; the mark is made last, so that a half copy is never read.
set -Eeuo pipefail

url=${1:?usage: weights.sh URL FOLDER}
cache=${2:?usage: weights.sh URL FOLDER}
url=${url%/}
case $url in s3://?*/?*) ;; *) echo "weights: expected s3://BUCKET/PREFIX, got $url" >&2; exit 2 ;; esac

release=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
folder=$cache/${url#s3://}
mark=$folder.complete
python=${WEIGHTS_PYTHON:-$release/.venv/bin/python}

rm -f "$mark"
mkdir -p "$folder"
aws configure set default.s3.preferred_transfer_client crt # many connections at once: a p5 reads from S3 faster than one can
# Parts of 8 MB, the default, are 40,000 requests for 318 GB on every node.
aws configure set default.s3.multipart_chunksize 64MB
for attempt in 1 2 3; do
  # --delete: a file that the bucket has no more would be reported as not of this model.
  if aws s3 sync --only-show-errors --delete "$url/" "$folder"; then break; fi
  if ((attempt == 3)); then
    echo "weights: $url could not be copied in $attempt attempts; see the errors above" >&2
    exit 1
  fi
  sleep "${WEIGHTS_PAUSE_S:-20}"
done

deep=false
[ "${WEIGHTS_CHECK:-quick}" != deep ] || deep=true
# Names, sizes, structure and shapes in seconds; deep: every byte against the digests of the manifest, in minutes.
"$python" "$release/jobs/verify_checkpoint.py" --checkpoint "$folder" --model "${WEIGHTS_MODEL:-grok-1}" --deep "$deep"
printf '%s\n' "$url" >"$mark"
echo "weights: $folder is whole ($(du -sh "$folder" | cut -f1))"
