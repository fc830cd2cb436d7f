# shellcheck shell=bash
# A cluster on this machine: nodes n1, n2, …, each a folder and, while it runs, a process.
#
#   cluster.etcd/base-port    its first port: n1 has 2379 for clients and 2380 for peers, n2 has 2381 and 2382, …
#   cluster.etcd/running      there while the cluster is meant to run; `make cluster` ends when it goes
#   cluster.etcd/n2/command   what starts the node: a script to read, and to run by hand
#   cluster.etcd/n2/data      its data directory
#   cluster.etcd/n2/log       what it has said since the last `make cluster`; before that: log.before
#   cluster.etcd/n2/pid       its process: the id, and when it was born
#
# A node is a session of its own, so that a Ctrl-C meant for `make cluster` does not reach it, and one that
# `make restart` has started outlives that make. Ids of processes are used again; so a signal goes to one only if
# it was born when the file says. Linux tells that in /proc.
#
# Nothing is asked for that a bare Debian lacks: bash 5, coreutils, sed, util-linux's setsid. The nodes are talked
# to with edgetcdctl.

dir=${CLUSTER_DIR:-cluster.etcd}
server=${EDGETCD:-target/release/edgetcd}
client=${EDGETCDCTL:-target/release/edgetcdctl}
# The first port; nothing before the cluster is founded.
base=$(cat "$dir/base-port" 2>/dev/null) || true
# What further makes have to be told, so that they find this cluster.
same=${CLUSTER_DIR:+ CLUSTER_DIR=$CLUSTER_DIR}

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Says what is done, in the words with which a person would do it, and does it.
show() {
    printf '+ %s\n' "$*"
    "$@"
}

# Asks ten times a second, for some seconds, until a command succeeds.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# --- what is where

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

# Sets `born` to the time at which a process was started, and `letter` to the state that the kernel gives it.
# The name of the program, which may hold anything, stands in brackets before both.
read_birth() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    # shellcheck disable=SC2086 # the words are wanted
    set -- ${stat##*) }
    letter=$1 born=${20}
}

# Sets `pid` and `state` of a node, which is running, paused or dead; the status says whether it lives. A zombie is
# dead: where nobody collects the orphans, as in some containers, it stays.
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

# One make at a time starts nodes: two would write down the processes of one another, and lose the first. The lock is
# on the folder that the cluster's lies in, so that it is there before the cluster is.
lock() {
    mkdir -p "$(dirname "$dir")"
    exec 9<"$(dirname "$dir")/"
    flock --wait 60 9 || fail "Another make has been starting nodes of $dir for a minute."
}
unlock() { exec 9<&-; }

start_node() {
    local born='' letter
    setsid bash "$dir/n$1/command" </dev/null >>"$dir/n$1/log" 2>&1 9<&- &
    read_birth $! || true # it may have ended already
    echo "$! $born" >"$dir/n$1/pid"
    disown # so that bash does not tell of its end as well
}

# As an operator stops a node: it hands over its leadership first. A paused one hears that once it goes on.
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

# --- what the nodes say

# ctl NODE WORD…: edgetcdctl, through one node.
ctl() {
    "$client" --endpoints "$(client_url "$1")" "${@:2}"
}

# ctl_others NODE WORD…: through the first other one that runs and answers. A paused one would only be waited for.
ctl_others() {
    local node urls=
    list_nodes
    for node in "${nodes[@]}"; do
        if [ "$node" != "$1" ] && look_at "$node" && [ "$state" = running ]; then
            urls+=${urls:+,}$(client_url "$node")
        fi
    done
    [ -n "$urls" ] || fail "No node is running that could be asked. To start them all: make cluster$same"
    "$client" --endpoints "$urls" "${@:2}"
}

ctl_any() { ctl_others none "$@"; }

answers() { ctl "$1" ls / >/dev/null 2>&1; }
knows_leader() { ctl "$1" member list >/dev/null 2>&1; }

# The number of the node that leads; nothing, and a status other than 0, if none does.
leader() {
    ctl_any member list 2>/dev/null | sed -n 's/.* name=n\([0-9]*\) .*isLeader=true$/\1/p'
}

# The id of a node as a member. By its URL: it has no name before its first start.
member_id() {
    ctl_any member list | sed -n "s|^\([0-9a-f]*\).* peerURLs=$(peer_url "$1")\( .*\)*$|\1|p"
}

# --- how a node comes to be

# check_ports HINT NODE…: before anything is written.
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
    mkdir -p "$dir/n$1"
    cat >"$dir/n$1/command" <<END
exec ${server@Q} --name n$1 --data-dir ${dir@Q}/n$1/data \\
  --listen-client-urls $(client_url "$1") --advertise-client-urls $(client_url "$1") \\
  --listen-peer-urls $(peer_url "$1") --initial-advertise-peer-urls $(peer_url "$1") \\
  --initial-cluster-state $2 --initial-cluster $3 ${FLAGS:-}
END
}

# found NUMBER: the folders of a new cluster, which is there once its first port is written down.
found() {
    local node members=
    for ((node = 1; node <= $1; node++)); do
        members+=${members:+,}n$node=$(peer_url "$node")
    done
    for ((node = 1; node <= $1; node++)); do
        write_command "$node" new "$members"
    done
    echo "$base" >"$dir/base-port"
}

# Makes a node a member of the cluster that runs, and starts it. A cluster takes one change of its members at a time,
# and none before it has heard of those that run; so an addition is tried for some seconds.
join() {
    local said members
    echo "+ edgetcdctl member add n$1 $(peer_url "$1")"
    await 10 is_added "$1" || fail "$said" "The cluster does not take n$1. Is there a leader? make status$same"
    echo "$said"
    members=$(sed -n 's/^ETCD_INITIAL_CLUSTER="\(.*\)"$/\1/p' <<<"$said")
    write_command "$1" existing "$members"
    start_and_wait "$1"
}

# Ends a node's membership, if it has one.
leave() {
    local id
    id=$(member_id "$1") || return 1
    [ -n "$id" ] || return 0
    echo "+ edgetcdctl member remove $id"
    ctl_others "$1" member remove "$id"
}

is_added() { said=$(ctl_any member add "n$1" "$(peer_url "$1")" 2>&1); }

# A node that is alone answers nothing before a majority runs; that is no failure of its start.
start_and_wait() {
    local answer said=0
    # What it says from now on comes behind that.
    [ ! -e "$dir/n$1/log" ] || said=$(wc -c <"$dir/n$1/log")
    answer="and answers on $(client_url "$1")"
    start_node "$1"
    await 10 settled "$1" || answer="and does not answer yet: $(tail -n 1 "$dir/n$1/log")"
    look_at "$1" || fail "n$1 has ended again. The last it said:" "$(tail -c "+$((said + 1))" "$dir/n$1/log" | tail -n 3)"
    echo "n$1 runs as process $pid $answer"
}

settled() { is_gone "$1" || answers "$1"; }
