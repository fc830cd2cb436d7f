//! Lengths and distances of repetitions in deflate (RFC 1951, section 3.2.5).

/// The smallest length of each length symbol from 257 on, and how many bits follow.
pub fn lengths() -> impl Iterator<Item = (usize, u32)> {
    let short = (3..11).map(|length| (length, 0));
    let long = (0..20).map(|class: u32| {
        let extra = class / 4 + 1;
        (3 + ((4 + class as usize % 4) << extra), extra)
    });
    short.chain(long).chain([(258, 0)])
}

/// The smallest distance of each distance symbol, and how many bits follow.
pub fn distances() -> impl Iterator<Item = (usize, u32)> {
    let short = (1..5).map(|distance| (distance, 0));
    let long = (0..26).map(|class: u32| {
        let extra = class / 2 + 1;
        (1 + ((2 + class as usize % 2) << extra), extra)
    });
    short.chain(long)
}
