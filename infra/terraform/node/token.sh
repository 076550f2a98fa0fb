#!/usr/bin/env bash
# Ray's token from SSM Parameter Store -> a file that its owner alone may read. usage: token.sh FILE
# The first head of a cluster makes the token, so that it stands in no Terraform state; workers wait until it is there.
set -Eeuo pipefail

file=${1:?usage: token.sh FILE}
attempts=${TOKEN_ATTEMPTS:-60}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fetch() {
  aws ssm get-parameter --name "$TOKEN_PARAMETER" --with-decryption --query Parameter.Value --output text 2>"$scratch/error"
}

make() {
  # Without --overwrite: of two heads one wins, and both read what it wrote. By a file, so that no list of processes shows it.
  printf '{"Name": "%s", "Type": "SecureString", "KeyId": "%s", "Value": "%s"}' \
    "$TOKEN_PARAMETER" "$KMS_KEY_ARN" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >"$scratch/request"
  aws ssm put-parameter --cli-input-json "file://$scratch/request" >/dev/null 2>"$scratch/error" || true # read again in any case
}

umask 077
for ((attempt = 1; attempt <= attempts; attempt++)); do
  if token=$(fetch) && [ -n "$token" ]; then
    printf %s "$token" >"$file.new"
    mv "$file.new" "$file"
    echo "token: $file"
    exit 0
  fi
  if [ "$ROLE" = head ]; then make; fi
  sleep "${TOKEN_PAUSE_S:-10}"
done
echo "token: $TOKEN_PARAMETER could not be read in $attempts attempts; is the head up, and may this role read it? $(tr '\n' ' ' <"$scratch/error")" >&2
exit 1
