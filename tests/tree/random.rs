//! Seeded random numbers, and random commands over few names, so that they often meet the same key.

use edgetcd::tree::{Action, Bytes, ClusterTime, Command, Key, Stamp, WallTime};

/// xorshift64: the same numbers for the same seed on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A path of up to four names. Mostly there are few different names, sometimes many, so that directories of all
    /// sizes are created and removed.
    pub fn key(&mut self) -> Key {
        let mut path = String::new();
        for _ in 0..self.below(5) {
            path.push('/');
            match self.below(4) {
                0 => path.push_str(&format!("n{}", self.below(60))),
                1 => path.push_str(&format!(
                    "a-name-that-is-too-long-to-stand-in-place-{}",
                    self.below(3)
                )),
                _ => path.push_str(self.pick(&["a", "b", "_h"])),
            }
        }
        Key::new(path.as_bytes())
    }

    pub fn command(&mut self) -> Command {
        let action = self.pick(&[
            Action::Set,
            Action::Set,
            Action::Set,
            Action::Create,
            Action::CreateInOrder,
            Action::Update,
            Action::CompareAndSwap,
            Action::Delete,
            Action::CompareAndDelete,
        ]);
        let mut command = Command::new(action, self.key());
        command.value =
            Bytes::from(self.pick(&["", "1", "2", "a value of more than two and twenty bytes"]));
        command.dir = self.one_in(4);
        command.recursive = self.one_in(4);
        if self.one_in(3) {
            command.ttl = Some(self.pick(&[0, 1, 2, 3, 5, 30, 1_000_000_000, u64::MAX]));
        }
        command.refresh = self.one_in(8);
        if command.refresh {
            command.value = Bytes::new();
        }
        if self.one_in(2) {
            command.prev_value = Some(Bytes::from(self.pick(&["1", "2", ""])));
        }
        if self.one_in(3) {
            command.prev_index = Some(self.below(40));
        }
        command
    }
}

/// Both clocks at a number of seconds after their start.
pub fn stamp_at(seconds: u64) -> Stamp {
    let nanos = seconds * 1_000_000_000;
    let wall = WallTime(1_704_067_200_000_000_000 + nanos as i64);
    Stamp {
        cluster: ClusterTime(1_000_000_000_000 + nanos),
        wall,
    }
}
