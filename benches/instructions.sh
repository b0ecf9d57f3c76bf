#!/bin/sh
# Instructions of the fast path, and their change against the parent commit (against the last commit if something is not committed).
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR="$target"
version=$(sed -n '/^name = "gungraun"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
command -v valgrind >/dev/null || { echo "valgrind is not installed: apt-get install valgrind" >&2; exit 1; }
if ! [ -x "$target/tools/bin/gungraun-runner" ] ||
    ! "$target/tools/bin/gungraun-runner" --version | grep -q "$version"; then
    "$cargo" install --locked gungraun-runner --version "$version" --root "$target/tools"
fi
export GUNGRAUN_RUNNER="$target/tools/bin/gungraun-runner"
parent=HEAD
[ -n "$(git status --porcelain)" ] || parent=HEAD^
tree=$(mktemp -d)
trap 'git worktree remove --force "$tree"' EXIT
git worktree add --quiet --detach "$tree" "$parent"
if [ -f "$tree/benches/hot_path.rs" ]; then
    (cd "$tree" && "$cargo" bench --package skein-bench --bench hot_path -- --save-baseline=parent >/dev/null)
    "$cargo" bench --package skein-bench --bench hot_path -- --baseline=parent
else
    echo "$(git rev-parse --short "$parent") counts no instructions yet: there is nothing to compare with."
    "$cargo" bench --package skein-bench --bench hot_path
fi
