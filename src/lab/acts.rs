//! Acts as words: `crash 1`, `cut 1 2`, `write 3 k0`.

use crate::raft::NodeId;
use crate::sim::{Act, DiskState, Pace};

/// Every act, with what it does. The lab shows this list.
pub const WORDS: &[(&str, &str)] = &[
    (
        "crash N",
        "the power of N fails; bytes that are not synced are lost",
    ),
    (
        "tear N",
        "the power of N fails in the middle of a write; any part of those bytes is lost",
    ),
    ("kill N", "the process of N is killed; no byte is lost"),
    ("restart N", "N starts again from its disk"),
    ("pause N", "N stops as by SIGSTOP; everything for it waits"),
    ("resume N", "N continues"),
    ("wipe N", "N is killed, and its data directory is emptied"),
    ("stop N", "N receives the order to stop, as by SIGTERM"),
    ("cut N M", "messages of N to M are lost"),
    ("heal N M", "ends the cut and the delay from N to M"),
    (
        "delay N M MS",
        "messages of N to M take that many milliseconds longer",
    ),
    (
        "lose N M",
        "the first message on its way from N to M is lost, or else the next",
    ),
    ("duplicate N M", "that message arrives twice"),
    (
        "disk N good|slow|hung|full",
        "changes how the disk of N works",
    ),
    ("room N BYTES", "the disk of N has room for that many bytes"),
    (
        "clock N half|true|double",
        "the clock of N runs at this speed",
    ),
    (
        "fail-sync N",
        "the next sync of N fails; its bytes are lost with the power",
    ),
    (
        "forget N COUNT",
        "the disk of N loses its last entries before its next start, although it had confirmed them",
    ),
    ("write N kK", "a client asks N to set key K to a new value"),
    (
        "burst N kK COUNT",
        "that many clients ask N at once to set key K, each to a new value",
    ),
    (
        "lease N",
        "a client asks N to set a key of its own that lives for one second",
    ),
    ("read N kK", "a client asks N for a quorum read of key K"),
    ("add N", "asks N to add a new member"),
    ("remove N M", "asks N to remove M"),
    (
        "move N M",
        "asks N to give M a new peer URL; M has it from its next start on",
    ),
    (
        "transfer N M",
        "asks the leader N to transfer its leadership to M",
    ),
    ("watch N", "a client watches all keys at N"),
    (
        "intrude N",
        "a process that is no member sends N a heartbeat of a newer term",
    ),
    (
        "accuse N",
        "the first other member claims to N that it was removed, which is not true",
    ),
];

const DISKS: [(&str, DiskState); 4] = [
    ("good", DiskState::Good),
    ("slow", DiskState::Slow),
    ("hung", DiskState::Hung),
    ("full", DiskState::Full),
];

const PACES: [(&str, Pace); 3] = [
    ("half", Pace::Half),
    ("true", Pace::True),
    ("double", Pace::Double),
];

/// Reads an act. `member` gives the number of a member; a script also has names for them.
///
/// # Errors
/// A sentence for the person who wrote the words.
pub fn parse(words: &[&str], member: &dyn Fn(&str) -> Result<u64, String>) -> Result<Act, String> {
    let id = |word: &str| member(word).map(NodeId);
    Ok(match words {
        ["crash", n] => Act::Crash(id(n)?),
        ["tear", n] => Act::Tear(id(n)?),
        ["kill", n] => Act::Kill(id(n)?),
        ["restart", n] => Act::Restart(id(n)?),
        ["pause", n] => Act::Pause(id(n)?),
        ["resume", n] => Act::Resume(id(n)?),
        ["wipe", n] => Act::Wipe(id(n)?),
        ["stop", n] => Act::Stop(id(n)?),
        ["cut", n, m] => Act::Cut(id(n)?, id(m)?),
        ["heal", n, m] => Act::Heal(id(n)?, id(m)?),
        ["delay", n, m, ms] => {
            let ms = ms
                .parse()
                .map_err(|_| format!("{ms:?} is no number of ms"))?;
            Act::Delay(id(n)?, id(m)?, ms)
        }
        ["lose", n, m] => Act::Lose(id(n)?, id(m)?),
        ["duplicate", n, m] => Act::Duplicate(id(n)?, id(m)?),
        ["disk", n, state] => {
            let found = DISKS.iter().find(|(name, _)| name == state);
            let (_, state) = found
                .ok_or_else(|| format!("a disk is good, slow, hung or full, not {state:?}"))?;
            Act::Disk(id(n)?, *state)
        }
        ["room", n, bytes] => Act::Room(id(n)?, number(bytes)?),
        ["clock", n, pace] => {
            let found = PACES.iter().find(|(name, _)| name == pace);
            let (_, pace) =
                found.ok_or_else(|| format!("a clock is half, true or double, not {pace:?}"))?;
            Act::Clock(id(n)?, *pace)
        }
        ["fail-sync", n] => Act::FailSync(id(n)?),
        ["forget", n, count] => Act::Forget(id(n)?, number(count)?),
        ["burst", n, k, count] => Act::Burst(id(n)?, key(k)?, number(count)?),
        ["lease", n] => Act::Lease(id(n)?),
        ["write", n, k] => Act::Write(id(n)?, key(k)?),
        ["read", n, k] => Act::Read(id(n)?, key(k)?),
        ["add", n] => Act::Add(id(n)?),
        ["remove", n, m] => Act::Remove(id(n)?, id(m)?),
        ["move", n, m] => Act::Move(id(n)?, id(m)?),
        ["watch", n] => Act::Watch(id(n)?),
        ["intrude", n] => Act::Intrude(id(n)?),
        ["accuse", n] => Act::Accuse(id(n)?),
        ["transfer", n, m] => Act::Transfer(id(n)?, id(m)?),
        _ => return Err(format!("no act is {:?}", words.join(" "))),
    })
}

fn number(word: &str) -> Result<u64, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is not a number"))
}

fn key(word: &str) -> Result<u64, String> {
    let number = word
        .strip_prefix('k')
        .and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| format!("{word:?} is not a key such as k0"))
}

/// The words of an act, as [`parse`] reads them.
pub fn text(act: Act) -> String {
    let one = |word: &str, id: NodeId| format!("{word} {}", id.0);
    let two = |word: &str, n: NodeId, m: NodeId| format!("{word} {} {}", n.0, m.0);
    match act {
        Act::Crash(n) => one("crash", n),
        Act::Tear(n) => one("tear", n),
        Act::Kill(n) => one("kill", n),
        Act::Restart(n) => one("restart", n),
        Act::Pause(n) => one("pause", n),
        Act::Resume(n) => one("resume", n),
        Act::Wipe(n) => one("wipe", n),
        Act::Stop(n) => one("stop", n),
        Act::Cut(n, m) => two("cut", n, m),
        Act::Heal(n, m) => two("heal", n, m),
        Act::Delay(n, m, ms) => format!("{} {ms}", two("delay", n, m)),
        Act::Lose(n, m) => two("lose", n, m),
        Act::Duplicate(n, m) => two("duplicate", n, m),
        Act::Disk(n, state) => {
            let name = DISKS.iter().find(|(_, known)| *known == state);
            format!("{} {}", one("disk", n), name.map_or("", |(name, _)| name))
        }
        Act::Room(n, bytes) => format!("{} {bytes}", one("room", n)),
        Act::Clock(n, pace) => {
            let name = PACES.iter().find(|(_, known)| *known == pace);
            format!("{} {}", one("clock", n), name.map_or("", |(name, _)| name))
        }
        Act::FailSync(n) => one("fail-sync", n),
        Act::Forget(n, count) => format!("{} {count}", one("forget", n)),
        Act::Burst(n, key, count) => format!("{} k{key} {count}", one("burst", n)),
        Act::Lease(n) => one("lease", n),
        Act::Move(n, m) => two("move", n, m),
        Act::Watch(n) => one("watch", n),
        Act::Intrude(n) => one("intrude", n),
        Act::Accuse(n) => one("accuse", n),
        Act::Write(n, key) => format!("{} k{key}", one("write", n)),
        Act::Read(n, key) => format!("{} k{key}", one("read", n)),
        Act::Add(n) => one("add", n),
        Act::Remove(n, m) => two("remove", n, m),
        Act::Transfer(n, m) => two("transfer", n, m),
    }
}
