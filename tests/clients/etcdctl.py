"""Debian's etcdctl: the same commands against both servers, starting at an equal index.

Output, error output and exit status must be the same. On three nodes etcdctl finds the members by itself, as it does by
default, and uses a random one; every member has applied all earlier writes. Then the leader is killed, and the commands
run again. edgetcdctl runs in the same way on the three nodes and must print the same output as etcdctl.
"""

import concurrent.futures
import os
import re
import signal
import subprocess

from compare import ask, level, plain, until

# Commands in order. Each uses the results of earlier ones. The text before `|` is its standard input.
COMMANDS = """
set /a one
set /a two
get /a
get /none
get
set
set /b
in-value | set /b
set /ttl soon --ttl 1000
-o extended get /ttl
-o json get /ttl
-o extended get /a
-o json get /a
-o wrong get /a
get /a --quorum
set /a three --swap-with-value two
set /a four --swap-with-value wrong
set /a five --swap-with-index 1
set /none new --swap-with-value x
set /korean 사과
get /korean
set /html <b>&amp;</b>
-o json get /html
set /empty <EMPTY>
get /empty
mk /m made
mk /m again
mk /m/below no
mk /queue first --in-order
mk /queue second --in-order
mk /mt soon --ttl 1000
mkdir /d
mkdir /d
mkdir /a
mkdir /dt --ttl 1000
mkdir /d/e/f
get /d
ls
ls --sort
ls /
ls --sort --recursive /
ls --sort -r -p /
ls --sort -p
ls --sort /queue
ls /a
ls /none
-o json ls --sort --recursive /d
-o extended ls --sort /d
update /m changed
update /none changed
update /m brief --ttl 1000
update /d notafile
updatedir /d --ttl 1000
updatedir /none --ttl 1000
setdir /sd
setdir /sd
setdir /st --ttl 1000
setdir /a
rm /m
rm /m
rm /d
rm /d --dir
rm /dt --dir
rm /d --recursive
rm /a --with-value wrong
rm /a --with-value three
rm /b --with-index 1
-o json rm /b
-o extended rm /korean
rmdir /sd
rmdir /sd
rmdir /queue
rmdir /html
rm /queue -r
rm /
set / root
get /
--debug get /html
--no-sync set /a again
--no-sync get /a
--total-timeout 3s get /a
ls --sort --recursive
member list
cluster-health
nosuchcommand
--version
"""

# Watches: (arguments, the commands that cause events, number of lines before it gets SIGINT; 0: it ends by itself).
WATCHES = [
    ("watch /w", ["set /other 1", "set /w 1"], 0),
    ("-o json watch /w", ["set /w 2"], 0),
    ("-o extended watch /w", ["rm /w"], 0),
    ("watch /tree --recursive", ["set /tree/a 1"], 0),
    ("watch /tree --recursive --forever", ["set /tree/a 2", "set /tree/b 1", "rm /tree/a", "mkdir /tree/d", "set /tree/d/x 3"], 8),
    ("-o json watch -r -f /tree", ["update /tree/b 2", "rm /tree -r"], 2),
    ("exec-watch --recursive /x -- sh -c ENV", ["set /x/a 1", "set /x/b two words", "rm /x/a"], 3),
    ("exec-watch sh -c ENV /y", ["set /y 1", "set /y 2"], 2),
    ("exec-watch -r /xd -- sh -c ENV", ["mkdir /xd/d", "set /xd/d/a 1"], 1),
    ("watch --recursive --forever /fades", ["set /fades/a 1 --ttl 1"], 4),
]
SHOW_ENVIRONMENT = 'echo "$ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_MODIFIED_INDEX"'


class Client:
    """One of the programs against one node or three."""

    def __init__(self, nodes, program="etcdctl"):
        self.nodes = nodes
        self.program = program
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
        self.environment.update(ETCDCTL_API="2", ETCDCTL_ENDPOINTS=",".join(nodes.urls))
        self.member = self.index = None

    def run(self, words, standard_input=b""):
        words, variables = [self.filled(word) for word in words], {}
        while words and re.match("ETCDCTL_[A-Z]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if len(self.nodes.servers) > 1:
            self.nodes.caught_up()
        try:
            done = subprocess.run([self.program] + words, env=dict(self.environment, **variables),
                                  input=standard_input, capture_output=True, timeout=30)
        except subprocess.TimeoutExpired:
            return "%s does not end\n" % words
        return self.said(done.stdout, done.stderr, done.returncode)

    def filled(self, word):
        if "<MEMBER>" in word:
            word = word.replace("<MEMBER>", self.member_id())
        server = self.nodes.servers[0]
        return word.replace("<PEER>", server.peer_url).replace("<URL>", server.url).replace("<INDEX>", str(self.index))

    def member_id(self):
        if self.member is None:
            self.member = ask(self.nodes.servers[0].url + "/v2/members")["members"][0]["id"]
        return self.member

    def said(self, out, error, status):
        return "%s%sstatus %d\n" % (self.plain(out), "".join(
            "! %s" % line for line in self.plain(error).splitlines(keepends=True)), status)

    def plain(self, output):
        """The output without the parts that vary."""
        text = output.decode("utf-8", "replace")
        if text.startswith("Incorrect Usage"):
            text = text.splitlines(keepends=True)[0]            # the help follows
        # An added member is before or after the first one, depending on its id, which is random.
        text = re.sub(r'(?<=ETCD_INITIAL_CLUSTER=").*(?=")', lambda pairs: ",".join(sorted(pairs[0].split(","))), text)
        return plain(text, self.nodes)

    def watch(self, words, wake, lines):
        """Starts a watch, causes the events once it is registered, and returns its output."""
        until("no watch is open", lambda: self.nodes.watchers() == 0)
        if len(self.nodes.servers) > 1:
            self.nodes.caught_up()
        process = subprocess.Popen([self.program] + words, env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            until("%s watches" % words, lambda: self.nodes.watchers() == 1)
            for number, command in enumerate(wake):
                # A watch that continues polls again after each event. Wait for that, so that the order is the same.
                if number:
                    until("%s watches again" % words, lambda: self.nodes.watchers() == 1)
                self.run(split(command)[0])
            if lines:
                seen = b"".join(process.stdout.readline() for _ in range(lines))
                process.send_signal(signal.SIGINT)
                out, error = process.communicate(timeout=10)
                return self.said(seen + out, error, process.returncode)
            out, error = process.communicate(timeout=10)
            return self.said(out, error, process.returncode)
        except subprocess.TimeoutExpired:
            return "%s does not end\n" % words
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def split(line):
    """The words of a command line, and the text before ` | ` as its standard input."""
    standard_input, found, command = line.partition(" | ")
    if not found:
        standard_input, command = "", line
    words = [{"<EMPTY>": "", "ENV": SHOW_ENVIRONMENT}.get(word, word) for word in command.split()]
    standard_input = standard_input.replace("<CONTROL>", "\x01\x08\x0c\x7f\u2028")
    return words, standard_input.replace("\\n", "\n").encode()


def by_chance(words, said):
    """Sorts lines by name if their order is random."""
    if "--debug" in words:                              # the number of dead members that it tries before a live one varies
        lines = said.splitlines(keepends=True)
        said = "".join(line for number, line in enumerate(lines) if line not in lines[:number])
    listing = "ls" in words and "--sort" not in words or words[-2:] == ["member", "list"]
    if not listing and "cluster-health" not in words:
        return said
    return "".join(sorted(said.splitlines(keepends=True)))


def watches(clients, compare):
    for line, wake, lines in WATCHES:
        words = split(line)[0]
        compare(line, [client.watch(words, wake, lines) for client in clients])


def commands(clients, compare):
    """All at the same time, because each has its own nodes."""
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        for line in COMMANDS.strip().splitlines():
            words, standard_input = split(line)
            said = pool.map(lambda client: client.run(list(words), standard_input), clients)
            compare(line, [by_chance(words, text) for text in said])


def on_one_node(started, report, options):
    clients = [Client(started(line, 1)) for line in (options.reference, options.server)]
    level([client.nodes for client in clients])
    watches(clients, lambda line, said: report.compare("etcdctl " + line, *said))
    commands(clients, lambda line, said: report.compare("etcdctl " + line, *said))


def on_three_nodes(started, report, options):
    programs = [(options.reference, "etcdctl"), (options.server, "etcdctl"), (options.server, options.edgetcdctl)]
    clients = [Client(started(line, 3), program) for line, program in programs]
    where = "three nodes"

    def compare(line, said):
        report.compare("etcdctl, %s: %s" % (where, line), said[0], said[1])
        if line != "--version":                         # the version differs between the programs
            report.compare("edgetcdctl, %s: %s" % (where, line), said[0], said[2])

    level([client.nodes for client in clients])
    watches(clients, compare)
    commands(clients, compare)
    where = "two of three nodes"
    for client in clients:
        client.nodes.kill_leader()
        client.run("rm -r /m".split())
    level([client.nodes for client in clients])
    commands(clients, compare)


def trial(started, report, options):
    on_one_node(started, report, options)
    on_three_nodes(started, report, options)
