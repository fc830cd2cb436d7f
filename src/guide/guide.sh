# shellcheck shell=bash
# The machines of the guide, simulated on one machine: n1, n2 and n3. Each has a settings file with variables, as a
# service has one (n1.env), a data directory (n1.etcd) and a log (n1.log). To try a page by hand, start bash in an
# empty folder and run:
#
#   . …/src/guide/guide.sh
#
# On your machines, `start n1` is `systemctl start edgetcd`, and `crash n1` is the failure.
#
# GUIDE_PORTS replaces the ports of the pages: client port and peer port of n1, of n2, of n3.

read -r -a ports <<<"${GUIDE_PORTS:-12379 12380 22379 22380 32379 32380}"
declare -A process

# port NODE: prints the client port.
port() { echo "${ports[$((2 * (${1#n} - 1)))]}"; }
peer_url() { echo "http://127.0.0.1:${ports[$((2 * (${1#n} - 1) + 1))]}"; }

# variables NODE MEMBERS: prints the settings of an initial member.
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

# found NODE…: writes the settings files of a new cluster of these nodes.
found() {
    local node members=
    for node in "$@"; do
        members+=${members:+,}$node=$(peer_url "$node")
    done
    for node in "$@"; do
        variables "$node" "$members" >"$node.env"
    done
}

# launch NODE [FLAG…]: starts the process and does not wait.
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

# Succeeds if the node serves clients. Before that, clients can connect, but they get no answer. The list of members
# needs no user.
answers() {
    local url
    # shellcheck source=/dev/null
    url=$(. "./$1.env" && echo "${ETCD_LISTEN_CLIENT_URLS##*,}")
    edgetcdctl --no-sync --timeout 1s --endpoints "$url" member list >/dev/null 2>&1
}

# await NODE: waits until the node serves or has ended, at most a minute. If it has ended, prints its last log lines.
await() {
    local end=$((SECONDS + 60))
    until answers "$1"; do
        if ! is_alive "$1"; then
            tail -n 2 "$1.log" | grep -v ' info ' # an error is one line, possibly with a line of advice below it
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

# start NODE…: starts all nodes at once, because none is ready before a majority runs.
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

# end SIGNAL NODE…: sends the signal and waits until the processes have ended.
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
