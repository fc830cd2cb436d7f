# shellcheck shell=bash
# The machines of the guide, on one: n1, n2 and n3, each with a file of variables as a service has one (n1.env), a data
# directory (n1.etcd) and a log (n1.log). To walk a page by hand: an empty folder, and in bash
#
#   . …/src/guide/guide.sh
#
# On machines of your own, `start n1` is `systemctl start edgetcd` there, and `crash n1` is what happened to it.
#
# GUIDE_PORTS names other ports than those of the pages: for clients and peers of n1, of n2, of n3.

read -r -a ports <<<"${GUIDE_PORTS:-12379 12380 22379 22380 32379 32380}"
declare -A process

# port NODE: for clients.
port() { echo "${ports[$((2 * (${1#n} - 1)))]}"; }
peer_url() { echo "http://127.0.0.1:${ports[$((2 * (${1#n} - 1) + 1))]}"; }

# variables NODE MEMBERS: what a founder is told.
variables() {
    local url
    url=http://127.0.0.1:$(port "$1")
    cat <<END
ETCD_NAME=$1
ETCD_DATA_DIR=$1.etcd
ETCD_LISTEN_CLIENT_URLS=$url
ETCD_ADVERTISE_CLIENT_URLS=$url
ETCD_LISTEN_PEER_URLS=$(peer_url "$1")
ETCD_INITIAL_ADVERTISE_PEER_URLS=$(peer_url "$1")
ETCD_INITIAL_CLUSTER=$2
ETCD_INITIAL_CLUSTER_STATE=new
END
}

# found NODE…: the variables of a new cluster of these.
found() {
    local node members=
    for node in "$@"; do
        members+=${members:+,}$node=$(peer_url "$node")
    done
    for node in "$@"; do
        variables "$node" "$members" >"$node.env"
    done
}

# launch NODE [FLAG…]: its process, and no waiting.
launch() {
    (
        set -a
        # shellcheck source=/dev/null
        . "./$1.env"
        exec edgetcd "${@:2}" >>"$1.log" 2>&1
    ) &
    process[$1]=$!
    disown
}

is_alive() { kill -0 "${process[$1]}" 2>/dev/null; }

# Ready to serve clients. Before that, they may connect, and wait.
answers() {
    edgetcdctl --no-sync --timeout 1s --endpoints "http://127.0.0.1:$(port "$1")" ls / >/dev/null 2>&1
}

# await NODE: until it serves, or has ended; a minute at most. The end is told with what it said last.
await() {
    local end=$((SECONDS + 60))
    until answers "$1"; do
        if ! is_alive "$1"; then
            tail -n 2 "$1.log" | grep -v ' info ' # an error is one line, or one with advice below
            echo "$1 has ended"
            return 1
        fi
        if ((SECONDS >= end)); then
            echo "$1 is not ready after a minute; see $1.log"
            return 1
        fi
        sleep 0.05
    done
    echo "$1 is ready"
}

# start NODE…: all at once, since a majority has to run before any is ready.
start() {
    local node status=0
    for node in "$@"; do
        launch "$node"
    done
    for node in "$@"; do
        await "$node" || status=1
    done
    return $status
}

# end SIGNAL NODE…, and until they have.
end() {
    local node
    for node in "${@:2}"; do
        kill "-$1" "${process[$node]}" 2>/dev/null
        while is_alive "$node"; do sleep 0.05; done
    done
}

stop() { end TERM "$@"; }
crash() { end KILL "$@"; }

found n1 n2 n3
ETCDCTL_ENDPOINTS=http://127.0.0.1:$(port n1),http://127.0.0.1:$(port n2),http://127.0.0.1:$(port n3)
export ETCDCTL_ENDPOINTS
