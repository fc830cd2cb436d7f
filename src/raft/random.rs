//! A small generator of random numbers, so that the same seed gives the same elections.

/// splitmix64 (Steele, Lea, Flood 2014): one addition and three xor-multiplies a number. Good
/// enough to spread timeouts; not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[from, from + width)`; `from` when the width is 0.
    pub(super) fn between(&mut self, from: u32, width: u32) -> u32 {
        let step = self.next() % u64::from(width.max(1));
        from + u32::try_from(step).expect("less than a u32")
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
        let drawn: Vec<u32> = (0..1000).map(|_| random.between(10, 10)).collect();
        assert_eq!(
            (drawn.iter().min(), drawn.iter().max()),
            (Some(&10), Some(&19))
        );
        assert_eq!(random.between(5, 0), 5);
    }
}
