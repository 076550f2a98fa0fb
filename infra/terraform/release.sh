#!/usr/bin/env bash
# The committed code and every locked wheel -> one archive that nodes install without the internet, and what Terraform has to know.
set -Eeuo pipefail

usage() {
  cat <<'USAGE'
usage: release.sh VERSION [--upload s3://BUCKET/cluster/releases] [--output FOLDER] [--lock FILE]

Makes FOLDER/grok-batch-VERSION.tar of the commit that is checked out (release/) and of the wheels of the lock file (wheels/), and
prints release_version and release_sha256 for terraform.tfvars. With --upload it also puts the archive there, once: an existing
version is not replaced.

  --upload URL     `terraform output -raw releases_url`; needs the aws command
  --output FOLDER  default: build/
  --lock FILE      default: requirements-cuda12.lock
  --python X.Y     of the nodes; default: 3.12, Amazon Linux 2023's
USAGE
}

version='' upload='' python=3.12
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
output=$root/build lock=$root/requirements-cuda12.lock
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --upload) upload=${2:?--upload needs a URL} && shift 2 ;;
    --output) output=${2:?--output needs a folder} && shift 2 ;;
    --lock) lock=${2:?--lock needs a file} && shift 2 ;;
    --python) python=${2:?--python needs a version} && shift 2 ;;
    -*) echo "release.sh: unknown option $1; see --help" >&2 && exit 2 ;;
    *) version=$1 && shift ;;
  esac
done
[[ $version =~ ^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$ ]] || { echo "release.sh: expected a VERSION such as 0.1.0, got '$version'; see --help" >&2; exit 2; }
if [ -n "$(git -C "$root" status --porcelain --untracked-files=no)" ]; then
  echo "release.sh: there are changes that are not committed, and they would be missing; commit or stash them" >&2
  exit 1
fi

mkdir -p "$output"
archive=$(cd "$output" && pwd)/grok-batch-$version.tar
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/wheels"
git -C "$root" archive --prefix release/ HEAD | tar --extract --directory "$scratch"
# Everything that Linux on x86_64 with glibc 2.34 can use; pip compares each with the digest in the lock file.
platforms=(--platform linux_x86_64)
for ((glibc = 17; glibc <= 34; glibc++)); do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform any)
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
  --python-version "$python" "${platforms[@]}" --dest "$scratch/wheels" --requirement "$lock"

# Same commit, same lock, same bytes: names sorted, times and owners fixed.
tar --create --file "$archive" --directory "$scratch" --sort=name --mtime='1970-01-01 00:00Z' --owner=0 --group=0 --numeric-owner release wheels
sha256=$(sha256sum "$archive" | cut -d' ' -f1)

if [ -n "$upload" ]; then
  target=${upload%/}/$(basename "$archive")
  if aws s3 ls "$target" >/dev/null 2>&1; then
    echo "release.sh: $target is there already; releases are not replaced, choose another VERSION" >&2
    exit 1
  fi
  aws s3 cp --only-show-errors "$archive" "$target"
  echo "# $target" >&2
fi
printf 'release_version = "%s"\nrelease_sha256  = "%s"\n' "$version" "$sha256"
