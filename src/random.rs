//! A small generator of random numbers, so that the same seed gives the same run: election timeouts, what a faulty disk
//! loses, everything in the simulator.

/// splitmix64 (Steele, Lea, Flood 2014): one addition and three xor-multiplies a number. Good enough to spread timeouts
/// and to choose faults; not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator whose numbers follow from `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A generator for seeds that follow each other: their first numbers have nothing in common.
    pub fn spread(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x51ed_270b)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A number in `[from, to]`.
    pub fn within(&mut self, (from, to): (u64, u64)) -> u64 {
        from + self.below(to - from + 1)
    }

    /// A number in `[from, from + width)`; `from` if `width` is 0.
    pub fn between(&mut self, from: u32, width: u32) -> u32 {
        let step = self.below(u64::from(width));
        from + u32::try_from(step).expect("less than a u32")
    }

    /// True once in `times`; never when `times` is 0.
    pub fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }

    /// True half the time.
    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// One of `from`; `None` if it is empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len() as u64) as usize).copied()
    }

    /// An index into `weights`, drawn in proportion to them.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut drawn = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if drawn < *weight {
                return index;
            }
            drawn -= weight;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_the_published_numbers() {
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn it_stays_within_bounds_and_reaches_them() {
        let mut random = Random::new(7);
        let drawn: Vec<u64> = (0..1000).map(|_| random.within((10, 19))).collect();
        assert_eq!(
            (drawn.iter().min(), drawn.iter().max()),
            (Some(&10), Some(&19))
        );
        assert_eq!(random.below(0), 0);
        assert_eq!(random.between(5, 0), 5);
        assert!(!random.one_in(0));
    }
}
