# shellcheck shell=bash
# A cluster on this machine: nodes n1, n2, … Each node has a folder and, while it runs, a process.
#
#   cluster.etcd/base-port    its first port: n1 has 2379 for clients and 2380 for peers, n2 has 2381 and 2382, …
#   cluster.etcd/fast         exists if its nodes, also later ones, do not wait for the disk (`make cluster FAST=1`)
#   cluster.etcd/running      exists while the cluster should run; `make cluster` ends when it is removed
#   cluster.etcd/n2/command   the script that starts the node; users can read it and run it by hand
#   cluster.etcd/n2/data      its data directory
#   cluster.etcd/n2/log       its log since the last `make cluster`; the log before that is log.before
#   cluster.etcd/n2/pid       its process: the id and the start time
#
# Each node runs in its own session, so a Ctrl-C for `make cluster` does not reach it, and a node started by
# `make restart` continues after that make has ended. Process ids are reused, so the scripts send a signal only if the
# process has the start time in the file. On Linux, /proc contains the start time.
#
# The scripts need only programs that a minimal Debian has: bash 5, coreutils, sed, util-linux's setsid. They talk to
# the nodes with edgetcdctl.

dir=${CLUSTER_DIR:-cluster.etcd}
server=${EDGETCD:-target/release/edgetcd}
client=${EDGETCDCTL:-target/release/edgetcdctl}
# The first port. Empty before the cluster is created.
base=$(cat "$dir/base-port" 2>/dev/null) || true
# The variable that other make commands need to find this cluster.
same=${CLUSTER_DIR:+ CLUSTER_DIR=$CLUSTER_DIR}

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Sets `is_fast` to yes or no: whether the user wants a throw-away cluster, whose nodes do not wait for the disk.
read_fast() {
    case ${FAST:-no} in
        1 | yes | on | true) is_fast=yes ;;
        0 | no | off | false) is_fast=no ;;
        *) fail "FAST=$FAST is neither yes nor no. For example: make ${GOAL:-cluster} FAST=1" ;;
    esac
}

# Prints a command as the user would type it, and runs it.
show() {
    printf '+ %s\n' "$*"
    "$@"
}

# await SECONDS COMMAND…: retries a command ten times per second until it succeeds or the time is over.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# --- files and ports

# Sets `nodes` to the numbers of all nodes that have a folder, in order.
list_nodes() {
    local number
    nodes=()
    for number in {1..99}; do
        [ ! -e "$dir/n$number/command" ] || nodes+=("$number")
    done
}

client_port() { echo $((base + 2 * ($1 - 1))); }
client_url() { echo "http://127.0.0.1:$(client_port "$1")"; }
peer_url() { echo "http://127.0.0.1:$(($(client_port "$1") + 1))"; }

# --- processes

# Sets `born` to the start time of a process and `letter` to its kernel state. The program name may contain any
# character. It is in parentheses before both fields.
read_birth() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    # word splitting is intended
    set -- ${stat##*) }
    letter=$1 born=${20}
}

# Sets `pid` and `state` of a node (running, paused or dead). The exit status is 0 if the node lives. A zombie counts
# as dead: it stays if no process collects it, as in some containers.
look_at() {
    local recorded born letter
    pid=- state=dead
    { read -r pid recorded <"$dir/n$1/pid"; } 2>/dev/null || return 1
    if ! read_birth "$pid" || [ "$born" != "$recorded" ] || [ "$letter" = Z ]; then
        pid=-
        return 1
    fi
    state=running
    [ "$letter" != T ] || state=paused
}

is_gone() { ! look_at "$1"; }

any_lives() {
    local node
    list_nodes
    for node in "${nodes[@]}"; do
        ! look_at "$node" || return 0
    done
    return 1
}

# Takes a lock, so that only one make at a time starts nodes. Otherwise two of them could overwrite each other's pid
# files, and lose the first process. The lock is on the parent folder, which exists before the cluster's folder.
lock() {
    mkdir -p "$(dirname "$dir")"
    exec 9<"$(dirname "$dir")/"
    flock --wait 60 9 || fail "Another make has been starting nodes of $dir for a minute. Wait until it ends, then try again."
}
unlock() { exec 9<&-; }

start_node() {
    local born='' letter
    setsid bash "$dir/n$1/command" </dev/null >>"$dir/n$1/log" 2>&1 9<&- &
    read_birth $! || true # it may have ended already
    echo "$! $born" >"$dir/n$1/pid"
    disown # so that bash does not print a message when it ends
}

# Stops nodes with SIGTERM, as an operator does: a leader transfers its leadership first. SIGCONT lets a paused node
# receive the SIGTERM.
stop_nodes() {
    local node
    for node in "$@"; do
        if look_at "$node"; then
            { kill -TERM "$pid" && kill -CONT "$pid"; } 2>/dev/null || true
        fi
    done
    for node in "$@"; do
        if ! await 10 is_gone "$node" && look_at "$node"; then
            echo "n$node does not end: kill -9 $pid"
            kill -KILL "$pid" || true
        fi
    done
}

stop_cluster() {
    list_nodes
    rm -f "$dir/running"
    stop_nodes "${nodes[@]}"
}

# --- requests to the nodes

# ctl NODE WORD…: runs edgetcdctl through one node.
ctl() {
    "$client" --endpoints "$(client_url "$1")" "${@:2}"
}

# ctl_others NODE WORD…: runs edgetcdctl through the first other node that runs and answers. Skips paused nodes, which
# would only cost a timeout.
ctl_others() {
    local node urls=
    list_nodes
    for node in "${nodes[@]}"; do
        if [ "$node" != "$1" ] && look_at "$node" && [ "$state" = running ]; then
            urls+=${urls:+,}$(client_url "$node")
        fi
    done
    [ -n "$urls" ] || fail "No node is running. To start them all: make cluster$same"
    "$client" --endpoints "$urls" "${@:2}"
}

ctl_any() { ctl_others none "$@"; }

answers() { ctl "$1" ls / >/dev/null 2>&1; }
knows_leader() { ctl "$1" member list >/dev/null 2>&1; }

# Prints the number of the leader. Prints nothing and fails if there is no leader.
leader() {
    ctl_any member list 2>/dev/null | sed -n 's/.* name=n\([0-9]*\) .*isLeader=true$/\1/p'
}

# Prints the member id of a node. Finds it by its URL, because a member has no name before its first start.
member_id() {
    ctl_any member list | sed -n "s|^\([0-9a-f]*\).* peerURLs=$(peer_url "$1")\( .*\)*$|\1|p"
}

# --- new nodes

# check_ports HINT NODE…: fails if a port of these nodes is in use. Called before anything is written.
check_ports() {
    local node port
    for node in "${@:2}"; do
        port=$(client_port "$node")
        for port in "$port" $((port + 1)); do
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
                fail "Port $port, which n$node needs, is in use. $1"
            fi
        done
    done
}

# write_command NODE STATE MEMBERS: STATE and MEMBERS are for --initial-cluster-state and --initial-cluster.
write_command() {
    local fast=
    [ ! -e "$dir/fast" ] || fast=--unsafe-no-fsync
    mkdir -p "$dir/n$1"
    cat >"$dir/n$1/command" <<END
exec ${server@Q} --name n$1 --data-dir ${dir@Q}/n$1/data \\
  --listen-client-urls $(client_url "$1") --advertise-client-urls $(client_url "$1") \\
  --listen-peer-urls $(peer_url "$1") --initial-advertise-peer-urls $(peer_url "$1") \\
  --initial-cluster-state $2 --initial-cluster $3 ${fast:+$fast }${FLAGS:-}
END
}

# found NUMBER: creates the folders of a new cluster. The cluster exists once its first port is written. `is_fast`: its
# nodes do not wait for the disk.
found() {
    local node members=
    mkdir -p "$dir"
    rm -f "$dir/fast"
    [ "$is_fast" = no ] || touch "$dir/fast"
    for ((node = 1; node <= $1; node++)); do
        members+=${members:+,}n$node=$(peer_url "$node")
    done
    for ((node = 1; node <= $1; node++)); do
        write_command "$node" new "$members"
    done
    echo "$base" >"$dir/base-port"
}

# Adds a node as a member of the running cluster, and starts it. A cluster allows one member change at a time, and
# none before a new leader has heard from the running members. So this retries for some seconds.
join() {
    local said members
    echo "+ edgetcdctl member add n$1 $(peer_url "$1")"
    await 10 is_added "$1" || fail "$said" "The cluster refuses to add n$1. Check whether it has a leader: make status$same"
    echo "$said"
    members=$(sed -n 's/^ETCD_INITIAL_CLUSTER="\(.*\)"$/\1/p' <<<"$said")
    write_command "$1" existing "$members"
    start_and_wait "$1"
}

# Removes a node from the members, if it is one.
leave() {
    local id
    id=$(member_id "$1") || return 1
    [ -n "$id" ] || return 0
    echo "+ edgetcdctl member remove $id"
    ctl_others "$1" member remove "$id"
}

is_added() { said=$(ctl_any member add "n$1" "$(peer_url "$1")" 2>&1); }

# A node that is alone does not answer before a majority runs. This is not a failed start.
start_and_wait() {
    local answer said=0
    # The log lines of this start begin after this many bytes.
    [ ! -e "$dir/n$1/log" ] || said=$(wc -c <"$dir/n$1/log")
    answer="and answers on $(client_url "$1")"
    start_node "$1"
    await 10 settled "$1" || answer="and does not answer yet: $(tail -n 1 "$dir/n$1/log")"
    look_at "$1" || fail "n$1 has ended again. Its last log lines:" "$(tail -c "+$((said + 1))" "$dir/n$1/log" | tail -n 3)"
    echo "n$1 runs as process $pid $answer"
}

settled() { is_gone "$1" || answers "$1"; }
