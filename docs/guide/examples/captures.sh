#!/bin/bash
# Makes the pictures of docs/guide/console.md and the outputs of docs/guide/cli.md anew, from three live sites.
#
#   docs/guide/examples/captures.sh [PATRONUS]     as root; needs tmux. PATRONUS is target/release/patronus if absent
#
# `patronus demo --console` runs in tmux, on 80 x 24 characters. On the pages, the info string of a block says what it is:
#
#   text tmux KEYS       the console after these keys, as `tmux send-keys` takes them; `@N` waits until N s after the start
#   console N            the block's first line is a command, run beside the first site's gateway; N lines of it are kept
#
# Blocks are replaced where they stand; what else is on the pages is nobody's but the writer's.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-$here/../../../target/release/patronus}")
[ "$(id -u)" = 0 ] || { echo "captures: needs root" >&2; exit 2; }
command -v tmux > /dev/null || { echo "captures: needs tmux: apt-get install tmux" >&2; exit 2; }
[ -x "$binary" ] || { echo "captures: no $binary: cargo build --release, or name the binary" >&2; exit 2; }

work=$(mktemp -d)
mkdir "$work/bin"
ln -s "$binary" "$work/bin/patronus"
printf 'set -g status off\nset -s escape-time 0\nset -g default-terminal screen-256color\n' > "$work/tmux.conf"
term() { tmux -u -L "captures-$$" -f "$work/tmux.conf" "$@"; }

clean_up() {
    local status=$?
    trap '' EXIT INT TERM
    # The demo sees its terminal go and takes everything down.
    term kill-server 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

fail() { echo "captures: $*" >&2; exit 1; }
screen() { term capture-pane -p -t demo; }
wait_for() { # TEXT
    for _ in $(seq 600); do
        screen | grep -qF -- "$1" && return
        sleep 0.2
    done
    screen >&2
    fail "the console never showed: $1"
}

term new-session -d -s demo -x 80 -y 24 "LC_ALL=C.UTF-8 '$binary' demo --console 2> '$work/log'"
wait_for '[1 Overview]'
begun=$SECONDS
wait_for '2 / 2'
pid=$(sed -n 's/^ *nsenter -t \([0-9]*\) .*gateway of site 1$/\1/p' "$work/log")
[ -n "$pid" ] || fail "the demo does not say where its first gateway is"

# The screen after some keys, once the gateway has answered what it asks for.
picture() { # KEYS
    local key
    for key in "$@"; do
        case $key in
            @*) while [ $((SECONDS - begun)) -lt "${key#@}" ]; do sleep 0.2; done ;;
            *) term send-keys -t demo "$key" ;;
        esac
    done
    sleep 2.5
    screen
}

output() { # LINES_MAX COMMAND
    local most=$1
    nsenter --target "$pid" --net --mount env PATH="$work/bin:$PATH" bash -c "$2" > "$work/output" 2>&1 || true
    head -n "$most" "$work/output"
    [ "$(wc -l < "$work/output")" -le "$most" ] || echo "…"
}

page() { # FILE
    local line words inside=''
    while IFS= read -r line; do
        case $inside$line in
            '```text tmux '*)
                read -r -a words <<< "${line#\`\`\`text tmux }"
                printf '%s\n' "$line"
                picture "${words[@]}"
                inside=skip ;;
            '```console '*)
                printf '%s\n' "$line"
                inside="command ${line#\`\`\`console } " ;;
            command*)
                printf '%s\n' "$line"
                output "${inside//[!0-9]/}" "${line#\$ }"
                inside=skip ;;
            skip'```') printf '%s\n' "$line"; inside='' ;;
            skip*) ;;
            *) printf '%s\n' "$line" ;;
        esac
    done < "$1" > "$work/page"
    cat "$work/page" > "$1"
}

page "$here/../console.md"
page "$here/../cli.md"
term send-keys -t demo q
for _ in $(seq 600); do
    grep -q 'balanced' "$work/log" && break
    sleep 0.1
done
grep -A1 '^.*down:' "$work/log" || fail "the demo did not end by q"
