#!/bin/bash
# Follows docs/guide/two-sites.md word for word, in network namespaces, and compares what it prints with the page.
#
#   docs/guide/examples/two-sites.sh [PATRONUS]     as root; PATRONUS is target/release/patronus if absent
#
# What to run, and where, is taken from the page: the second word of each block's info string names the machine. Lines
# of a block marked `prints` must all occur in what the block before printed; numbers, keys and spacing may differ.
# Everything happens in private mounts and namespaces without names, so that nothing can be left behind.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
page=$here/../two-sites.md
binary=$(realpath "${1:-$here/../../../target/release/patronus}")
[ "$(id -u)" = 0 ] || { echo "two-sites: needs root" >&2; exit 2; }
for tool in ip nsenter pgrep script sysctl unshare; do
    command -v "$tool" > /dev/null || { echo "two-sites: needs $tool" >&2; exit 2; }
done
[ -x "$binary" ] || { echo "two-sites: no $binary: cargo build --release, or name the binary" >&2; exit 2; }

# What takes milliseconds takes seconds on a machine that is busy with other things: only what hangs gets here.
patience=120

work=$(mktemp -d)
declare -A holder=() key=()
daemons=()

clean_up() {
    local status=$?
    # A reader that went away must not end this half-way.
    trap '' EXIT INT TERM PIPE
    set +e
    for pid in "${daemons[@]}" "${holder[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ "$status" != 0 ]; then
        for log in "$work"/*.log; do
            [ -e "$log" ] && { echo "--- $(basename "$log")"; tail -n 20 "$log"; } >&2
        done
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

fail() { echo "two-sites: $*" >&2; exit 1; }

# A machine: namespaces of its own, and its own of each folder that the page writes to.
machine() {
    local name=$1
    mkdir -p "$work/$name/etc" "$work/$name/target/release"
    cp -a /etc/. "$work/$name/etc/" 2>/dev/null || true
    rm -rf "$work/$name/etc/patronus"
    ln -s "$binary" "$work/$name/target/release/patronus"
    unshare --net --mount --propagation private bash -c '
        mount --bind "$1/etc" /etc
        for folder in /run /var/lib /usr/local/bin; do mount -t tmpfs none "$folder"; done
        ip link set lo up
        touch "$1/ready"
        exec sleep infinity' machine "$work/$name" &
    holder[$name]=$!
    for _ in $(seq $((patience * 10))); do
        [ -e "$work/$name/ready" ] && return
        kill -0 "${holder[$name]}" 2>/dev/null || break
        sleep 0.1
    done
    fail "cannot make a namespace"
}

# Runs its arguments on a machine, in the folder where the page's `target/release/patronus` is.
at() {
    local name=$1
    shift
    nsenter --target "${holder[$name]}" --net --mount --wd="$work/$name" "$@"
}

wire() { # MACHINE INTERFACE ADDRESS  MACHINE INTERFACE ADDRESS
    ip link add "$2" netns "${holder[$1]}" type veth peer name "$5" netns "${holder[$4]}"
    at "$1" ip address add "$3" dev "$2"
    at "$1" ip link set "$2" up
    at "$4" ip address add "$6" dev "$5"
    at "$4" ip link set "$5" up
}

# What may differ from one run to the next becomes `#`: numbers that are no addresses, keys, columns.
plain() {
    sed -E -e 's/[A-Za-z0-9+\/]{43}=/KEY/g' -e 's/([0-9]+(\.[0-9]+){3}):[0-9]+\b/\1:PORT/g' \
        -e 's/(^|[^0-9.A-Za-z])[0-9]+(\.[0-9]+)?( ?(ms|s|min|h))?($|[^0-9.])/\1#\5/g' \
        -e 's/(^|[^0-9.A-Za-z])[0-9]+(\.[0-9]+)?( ?(ms|s|min|h))?($|[^0-9.])/\1#\5/g' -e 's/ +/ /g'
}

says() { # whether every line of the file $1 occurs in the file $2
    local line
    plain < "$2" > "$work/said"
    while IFS= read -r line; do
        grep -qxF -- "$line" "$work/said" || { missing=$line; return 1; }
    done < <(plain < "$1")
}

run_block() { # MACHINE; the commands are in $work/block, what they print goes to $work/printed
    # A ping before the tunnel is up fails; who follows the page tries again.
    local deadline=$((SECONDS + patience))
    until at "$1" bash -eu < "$work/block" > "$work/printed" 2> "$work/$1-commands.log"; do
        [ "$SECONDS" -lt "$deadline" ] || {
            cat "$work/printed" "$work/$1-commands.log" >&2
            fail "on $1 this failed: $(cat "$work/block")"
        }
        sleep 1
    done
    local line
    line=$(grep -xE '[A-Za-z0-9+/]{43}=' "$work/printed" || true)
    [ -z "$line" ] || key[$1]=$line
}

# What the page says is printed. A tunnel takes a moment to come up, and ten operators would look twice: so does this.
expect_block() {
    local deadline=$((SECONDS + patience))
    until says "$work/block" "$work/printed"; do
        [ "$SECONDS" -lt "$deadline" ] || {
            cat "$work/printed" >&2
            fail "the page says that it prints, and it does not: $missing"
        }
        sleep 1
        cp "$work/block" "$work/expected"
        cp "$work/commands" "$work/block"
        run_block "$where"
        cp "$work/expected" "$work/block"
    done
    checked=$((checked + 1))
}

start() {
    # No function between: the process in the background has to be the gateway itself, so that it can be ended.
    nsenter --target "${holder[$1]}" --net --mount --wd="$work/$1" bash -eu -c "exec $(cat "$work/block")" \
        > "$work/$1-daemon.log" 2>&1 &
    daemons+=($!)
    # Who follows the page reads the line before going on.
    for _ in $(seq $((patience * 5))); do
        grep -qs 'gateway runs' "$work/$1-daemon.log" && return
        kill -0 "${daemons[-1]}" 2>/dev/null || fail "the gateway on $1 ended"
        sleep 0.2
    done
    fail "the gateway on $1 does not say that it runs"
}

# On a terminal of its own, until it shows something; then `q` has to end it.
console() {
    local keys console
    mkfifo "$work/keys"
    # Open at both ends, so that neither waits for the other and the keyboard never ends.
    exec {keys}<> "$work/keys"
    at "$1" timeout "$patience" script -qfec "stty rows 24 columns 80; $(cat "$work/block")" /dev/null \
        < "$work/keys" > "$work/printed" &
    console=$!
    for _ in $(seq $((patience * 10))); do
        grep -qs 'Throughput' "$work/printed" && break
        kill -0 "$console" 2>/dev/null || break
        sleep 0.1
    done
    grep -q 'Throughput' "$work/printed" || fail "the console showed no overview"
    printf q >&"$keys"
    wait "$console" || fail "the console did not end by q"
    exec {keys}>&-
    rm "$work/keys"
}

act() { # WORDS of the info string
    local kind=$1 machine=${2:-} how=${3:-} names name
    case $machine in
        both) names="hq branch" ;;
        host-hq) names=host_hq ;;
        host-branch) names=host_branch ;;
        *) names=$machine ;;
    esac
    case $kind:$machine in
        text:prints) expect_block; return ;;
        sh:) return ;; # what is done elsewhere, such as building
    esac
    for name in $names; do
        case $kind:$how in
            toml:*)
                sed -i -e "s|PUBLIC KEY OF HQ|${key[hq]}|" -e "s|PUBLIC KEY OF BRANCH|${key[branch]}|" "$work/block"
                at "$name" cp "$work/block" /etc/patronus/patronus.toml ;;
            sh:stays) start "$name" ;;
            sh:console) console "$name" ;;
            sh:) run_block "$name"; commands=$((commands + $(wc -l < "$work/block"))) ;;
            *) fail "the page has a block of an unknown kind: $kind $machine $how" ;;
        esac
        where=$name
    done
    [ "$kind" != sh ] || cp "$work/block" "$work/commands"
}

for name in hq branch host_hq host_branch; do machine "$name"; done
wire hq eth0 203.0.113.1/24 branch eth0 203.0.113.2/24
wire hq eth1 10.1.0.1/16 host_hq eth0 10.1.0.10/16
wire branch eth1 10.2.0.1/16 host_branch eth0 10.2.0.10/16

commands=0 checked=0 where='' missing='' block=''
while IFS= read -r line <&3; do
    case $block$line in
        '```'[a-z]*) block=${line#\`\`\`}; : > "$work/block" ;;
        *'```') act $block; block='' ;;
        *) [ -z "$block" ] || printf '%s\n' "$line" >> "$work/block" ;;
    esac
done 3< "$page"

# Step 9: both gateways end, and leave nothing behind.
for name in hq branch; do
    pid=$(at "$name" pgrep -x -f 'patronus run' --ns "${holder[$name]}" --nslist net) || fail "no gateway runs on $name"
    kill -TERM "$pid"
done
for _ in $(seq $((patience * 10))); do
    left=$(for name in hq branch; do at "$name" ip -o link show patronus0 2>/dev/null || true; done)
    [ -n "$left" ] || break
    sleep 0.1
done
[ -z "$left" ] || fail "the gateways left their interfaces behind: $left"

echo "two-sites: the page holds: $commands commands ran, $checked outputs are as it says"
