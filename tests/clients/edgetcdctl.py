"""Compares edgetcdctl with etcdctl: both programs against both servers. The expected output is that of etcdctl against
the reference.

In a usage error the help is ignored, because its text is our own. Command lines on which the programs differ on purpose
are in a separate table with the reason. For them, an equal output is the error.
"""

import concurrent.futures
import re

from compare import level
from etcdctl import COMMANDS, Client, by_chance, split, watches

# More command lines for comparing the two programs. `NAME=value` in front is a variable. <MEMBER> and <PEER> are the
# server's id and peer URL.
FURTHER = r"""
set /html <b>&amp;</b>
get /html extra words
get --quorum /none
get //html/
get /html/
get <EMPTY>
get /dir/../html
-o extended get /none
-o json get /none
-o extended get /
-o json ls --sort /
-o extended ls /
-o wrong ls
-o wrong rm /none
-o wrong mkdir /wrong
-o Simple get /html
-o <EMPTY> get /html
--output=json get /html
-output json get /html
set /minus -5
set -- /minus -6
set /minus -- -7
set /minus --unknown
set --swap-with-value <EMPTY> /minus 8
set /minus 9 --swap-with-value=8
set /minus 10 --swap-with-index -1
set /minus 11 --ttl -1
set /minus 12 --ttl 0x3e8
set /minus 13 --ttl 0
set //x/../y//z/ ü&=+%
get y/z
set /p'!*()$,;:@[] '!*()~$,;:@[]
get /p'!*()$,;:@[]
set <EMPTY> 1
set / 1
set /minus/below 1
two\nlines | set /lines
-o json get /lines
| set /lines
<CONTROL> | set /control
-o json get /control
-o extended set /ext 1
-o json set /ext 2
-o extended set /ext 3 --ttl 1000
-o json set /ext 4 --ttl 1000
-o extended set /ext 5 --swap-with-value 4
-o json set /ext 6 --swap-with-value 5
-o json set /ext 6 --swap-with-value 5
-o extended mk /ext 7
-o extended mk /ext2 1
-o json mk /ext3 1
-o json mk /exq 1 --in-order
-o extended mk /exq 2 --in-order --ttl 1000
| mk /ext4
in-value | mk /ext4
in-value | mk --in-order /exq
mk
mk /ext5
mk / 1
mk --in-order /ext 1
-o extended update /ext 8
-o json update /ext 9
update
update /ext
in-value | update /ext
update / 1
-o extended mkdir /exd
-o json mkdir /exd/e
-o json mkdir /exd/t --ttl 1000
mkdir
mkdir /
mkdir /ext/below
-o extended setdir /exs
-o json setdir /exs2
-o json setdir /ext2
setdir
setdir /
-o extended updatedir /exs --ttl 1000
-o json updatedir /exs
updatedir
updatedir /
updatedir /ext
-o json ls --sort -r /exd
-o extended ls --sort -r /exd
ls --sort -r /exd /exs
ls -p --sort exd
ls -p /ext
ls --recursive=false --sort
ls --recursive=maybe
ls -r=0 --sort /
rm
rm <EMPTY>
rm /none --with-value x
-o json rm /ext3 --with-index 1
-o extended rm /ext3 --with-value 1
-o json rm /exd
-o json rm /exd --dir
-o json rm /exd/e --dir
-o extended rm /exd -r
-o json rm /exs2 --recursive --dir
rm /ext4 --with-value in-value
rm /ext --with-index -1
rmdir
rmdir /exq
-o extended rmdir /exs
-o json rmdir /ext
rmdir /
--debug set /debug a_b&c=d
--debug set /debug <EMPTY> --ttl 1000 --swap-with-value x&y
--debug set /debug 1 --swap-with-index 5
--debug mk /debug 1
--debug mk --in-order /debugq v
--debug mkdir /debugd --ttl 1000
--debug setdir /debugd2
--debug updatedir /debugd --ttl 0
--debug update /debug z
--debug ls --sort -r -q /debugd
--debug ls --sort
--debug get -q --sort /debug
--debug get debug/
--debug get <EMPTY>
--debug rm /debug --with-value zz
--debug rm /debug --with-index 12
--debug rm /debug
--debug rmdir /debugd
--debug rm -r /debugq
--debug rm --dir -r /debugd2
--debug watch --after-index <INDEX> -r /
--debug member list
--debug member update <MEMBER> <PEER>
--debug cluster-health
--debug --no-sync get /none
--debug --endpoints http://127.0.0.1:1 get /none
watch
watch /a --after-index x
watch --after-index <INDEX> /never --bad=
watch --after-index <INDEX> -r /
watch --forever --after-index
-o json watch --after-index <INDEX> -r /
-o extended watch --after-index <INDEX> -r /
-o wrong watch --after-index <INDEX> -r /
exec-watch
exec-watch /a
exec-watch -r
get
get --nosuch /a
get ---a
get -=a
get --quorum=maybe /a
get /html --sort=x
set --ttl soon /a 1
set --ttl 1.5 /a 1
set --ttl= /a 1
set --ttl 99999999999999999999 /a 1
set --ttl
set --recursive /a 1
ls -z
--nosuch get /a
--endpoints
--timeout 5 get /a
--timeout soon get /a
--total-timeout= get /a
--timeout 1m0.5s get /html
--no-sync=false get /html
--debug=maybe get /html
help nosuch
member bogus
member --nosuch
member list x
member list --nosuch
member add
member add a
member add a b c
member add a b
member add a 127.0.0.1:1
member add a ftp://127.0.0.1:1
member add a http://127.0.0.1:1/
member add a <PEER>
member remove
member remove a b
member remove default
member remove 1234
member remove <EMPTY>
member update
member update a
member update a b c
member update default b
member update xyz http://127.0.0.1:1
member update 1234 http://127.0.0.1:1,
member update <MEMBER> <PEER>
-o json member list
--no-sync member list
cluster-health extra
-o json cluster-health
-u root:password get /html
--username root:pass:word get /html
-u : get /html
ETCDCTL_USERNAME=root:password get /html
--endpoint http://127.0.0.1:1 get /html
-C http://127.0.0.1:1 get /html
--peers http://127.0.0.1:1 get /html
ETCDCTL_ENDPOINTS= ETCDCTL_ENDPOINT=http://127.0.0.1:1 get /html
ETCDCTL_ENDPOINTS= ETCDCTL_PEERS=http://127.0.0.1:1 get /html
ETCDCTL_ENDPOINTS= -C http://127.0.0.1:1 get /html
ETCDCTL_ENDPOINTS= ETCDCTL_PEERS=http://127.0.0.1:1 --endpoint <URL> get /html
ETCDCTL_ENDPOINTS=http://127.0.0.1:1 --endpoints <URL> get /html
--endpoints <URL>/ get /html
--endpoints http://127.0.0.1:1 get /a
--endpoints http://127.0.0.1:1 rm /a
--endpoints http://127.0.0.1:1 watch /a
--endpoints http://127.0.0.1:1 cluster-health
--endpoints http://127.0.0.1:1 member list
--endpoints http://127.0.0.1:1 member add a http://127.0.0.1:1
--endpoints http://127.0.0.1:1 member remove 1234
--endpoints http://127.0.0.1:1 member update 1234 http://127.0.0.1:1
--no-sync --endpoints http://127.0.0.1:1 get /a
--no-sync --endpoints http://127.0.0.1:1 set /a 1
--no-sync --endpoints http://127.0.0.1:1 mk /a 1
--no-sync --endpoints http://127.0.0.1:1 mk --in-order /a 1
--no-sync --endpoints http://127.0.0.1:1 mkdir /a
--no-sync --endpoints http://127.0.0.1:1 setdir /a
--no-sync --endpoints http://127.0.0.1:1 updatedir /a
--no-sync --endpoints http://127.0.0.1:1 update /a 1
--no-sync --endpoints http://127.0.0.1:1 ls
--no-sync --endpoints http://127.0.0.1:1 rm /a
--no-sync --endpoints http://127.0.0.1:1 rmdir /a
--no-sync --endpoints http://127.0.0.1:1 watch /a
--no-sync --endpoints http://127.0.0.1:1 exec-watch true /a
--no-sync --endpoints http://127.0.0.1:1 member list
--no-sync --endpoints http://127.0.0.1:1 member add a http://127.0.0.1:1
--no-sync --endpoints http://127.0.0.1:1 member remove 1234
--no-sync --endpoints http://127.0.0.1:1 member update 1234 http://127.0.0.1:1
--no-sync --endpoints http://127.0.0.1:1,<URL> set /passed over
--no-sync --endpoints http://127.0.0.1:1,<URL> get /passed
"""

# Users, roles and rights. The text before `|` is the answer to the question for a password.
AUTH = r"""
auth bogus
auth disable
auth enable x
auth enable
user list
user list x
role list
role list x
user add
user add a b
user add root:pw
user add root:pw
user get
user get root
user get none
user add a
xyz | user add b
user add c:d:e
user add a/b:c
user add ü:c
user list
user remove
user remove none
user remove ü
user bogus
user passwd
user passwd none
new | user passwd b
user grant b
user grant --roles
user grant b --roles r1
user grant --roles r1 b
user grant --roles r1
user grant --roles r2,r3 --roles r4 b
user get b
user revoke --roles r9 b
user revoke --roles r1,r2 b
user revoke --roles r2,r3 --roles r4 b
role add
role add r1
role add r1
role add r2
role add a/b
role add root
role bogus
user grant --roles r2 b
user get b
user list
role list
role get
role get r1
role get none
role grant r1
role grant r1 --path /a --read
role grant --path a --read r1
role grant --path /a/ --read r1
role grant --path /a/../b/./c --read r1
role grant --path <EMPTY> --read r1
role grant --path / --write r1
role grant --path /a --read --write r1
role grant --path /a r1
role grant --path /a --read r1
role grant --path /b/* --rw r1
role grant --path /c/* --readwrite r1
role grant --path /c/* --readwrite none
role grant --path /c/* --readwrite
role grant --path /c/* --bad r1
role get r1
role revoke --path /z --read r1
role revoke --path /a --read r1
role revoke --path /b/* --write r1
role get r1
role get root
role grant --path /a --read root
role remove
role remove root
role remove none
--debug user add empty:
--debug user list
--debug user get b
--debug user grant --roles r1 b
--debug user revoke --roles r1 b
--debug role add r5
--debug role grant --path /x/<&>* --read r5
--debug role revoke --path /x/<&>* --read r5
--debug role get r5
--debug role list
--debug auth enable
--no-sync --debug user list
auth enable
auth disable
user list
role list
user get root
role get root
user add x:y
role add x
pw | user passwd b
user remove b
user grant --roles x b
role grant --path /a --rw r1
role revoke --path /a --rw r1
role remove x
set /a 1
get /a
member add x http://127.0.0.1:1
-u root:wrong user list
-u root:wrong role list
-u root:wrong set /a 1
-u nobody:x get /a
-u root:pw user list
ETCDCTL_USERNAME=root:pw user list
ETCDCTL_USERNAME=root:pw -u root:x user list
pw | ETCDCTL_USERNAME=root user list
-u root:pw role list
-u root:pw role revoke --path /* --rw guest
-u root:pw role revoke --path /* --rw guest
set /a 2
get /a
-o json get /a
-o json user list
watch /a
exec-watch /a -- true
-u root:pw set /a 3
pw | -u root user list
-u root: user list
-u : user list
-u :x get /a
-u root:pw user remove root
-u c:d:e get /a
ls
ls -r /
mk /q 1
rm /a
update /a 2
new word | -u root:pw user add new
-u root:pw user grant new --roles r1
new word | -u new get /c/x
new word | -u new set /c/x 1
new word | -u new get /c/x
new word | -u new ls /c
new word | -u new ls -r /c
-u root:pw auth enable
-u root:pw auth disable
auth disable
--endpoints http://127.0.0.1:1 user list
--endpoints http://127.0.0.1:1 user add x:y
--endpoints http://127.0.0.1:1 role add x
--endpoints http://127.0.0.1:1 auth enable
--no-sync --endpoints http://127.0.0.1:1 user list
--no-sync --endpoints http://127.0.0.1:1 user add x:y
--no-sync --endpoints http://127.0.0.1:1 user grant x --roles y
--no-sync --endpoints http://127.0.0.1:1 user get x
--no-sync --endpoints http://127.0.0.1:1 user remove x
--no-sync --endpoints http://127.0.0.1:1 role add x
--no-sync --endpoints http://127.0.0.1:1 role get x
--no-sync --endpoints http://127.0.0.1:1 role list
--no-sync --endpoints http://127.0.0.1:1 role grant --path /x --read x
--no-sync --endpoints http://127.0.0.1:1 auth enable
--no-sync --endpoints http://127.0.0.1:1 auth disable
"""

# A member is added that is never started. The reference then has no majority, but edgetcd has one. This test compares
# the two programs, not the servers.
AFTER_A_SECOND = """
member add second http://127.0.0.1:1
member list
cluster-health
get /passed
get -q /passed
set /passed by
mk /new 1
mk --in-order /new 1
mkdir /newdir
rm /passed
--timeout 500ms set /passed by
set /at @/no/such/file
set /at @@file
update /at @/etc/hostname
mk /at2 @/etc/hostname
set /at -
--total-timeout 1s set /passed by
--total-timeout 1s rm /passed
watch --after-index <INDEX> -r /
member update <MEMBER> <PEER>
"""

# Command lines on which the two programs differ on purpose, and the reasons.
ON_PURPOSE = {
    "--version": "says which program it is",
    "ls -r / --sort": "there, the word behind a flag is taken for the flag's, and the option behind it is lost",
    "mk --in-order /q value --ttl 1000": "the same: there, the value is --ttl",
    "set /b 2 --ttl": "there, the first argument is the value of an option that has none",
    "ETCDCTL_ENDPOINTS=127.0.0.1:1 get /a": "http:// may be left out here",
    "--endpoints ftp://127.0.0.1:1 get /a": "here, told at once as a bad argument",
    "--endpoints http://127.0.0.1:1 get": "the arguments are looked at before a server is",
    "--endpoints http://nohost.invalid:1 get /a": "which server of names was asked is not told",
    "-u root get /html": "there, the question goes to stdout, between what a script reads",
    "--cert-file /no/such get /a": "here, the message names the option and what to type",
    "--debug user add debug:secret": "here, no password is printed",
}


class Four:
    """Two programs and two servers. Each pair has its own server, because the commands write."""

    NAMES = ("edgetcdctl, reference", "etcdctl, edgetcd", "edgetcdctl, edgetcd")

    def __init__(self, started, report, options):
        self.report = report
        self.clients = [Client(started(line, 1), program)
                        for line in (options.reference, options.server)
                        for program in ("etcdctl", options.edgetcdctl)]
        self.level()

    def level(self):
        level([client.nodes for client in self.clients])

    def say(self, line):
        """All at the same time, because each has its own server."""
        words, standard_input = split(line)
        with concurrent.futures.ThreadPoolExecutor(len(self.clients)) as pool:
            said = pool.map(lambda client: client.run(list(words), standard_input), self.clients)
            return [by_chance(words, text) for text in said]

    def on_purpose(self):
        for number in range(20):
            self.say("set /r/%d many,so-that-an-order-by-chance-is-none-by-name" % number)
        for line in ON_PURPOSE:
            theirs, ours, _, ours_here = self.say(line)
            self.report.differ("%s: %s" % (self.NAMES[0], line), theirs, ours)
            self.report.differ("%s: %s" % (self.NAMES[2], line), theirs, ours_here)
        for key in ("/q", "/r", "/at", "/b"):
            self.say("rm -r " + key)
        self.level()
        for client in self.clients:
            client.index = client.nodes.index()         # the following output is the same everywhere

    def compare(self, line, said):
        """Compares all with etcdctl against the reference."""
        for name, other in zip(self.NAMES, said[1:]):
            self.report.compare("%s: %s" % (name, line), said[0], other)

    def compare_programs(self, line, said):
        theirs, ours, theirs_here, ours_here = said
        self.report.compare("%s: %s" % (self.NAMES[0], line), theirs, ours)
        self.report.compare("%s: %s" % (self.NAMES[2], line), theirs_here, ours_here)


def without_question(said):
    """The output without the question for a password, which etcdctl prints on stdout, and without the complaint of the
    program that it runs to hide what is typed."""
    return re.sub(r"^(! )?((New )?[Pp]assword: |stty: .*)\n", "", said, flags=re.MULTILINE)


def trial(started, report, options):
    four = Four(started, report, options)
    four.on_purpose()
    watches(four.clients, four.compare)
    for line in (COMMANDS + FURTHER).strip().splitlines():
        if line and line not in ON_PURPOSE:
            four.compare(line, four.say(line))
            if "member" in line:
                four.level()                            # the reference counts it as a write of a key
    for line in AUTH.strip().splitlines():
        four.compare(line, [without_question(text) for text in four.say(line)])
    for line in AFTER_A_SECOND.strip().splitlines():
        four.compare_programs(line, four.say(line))
