//! The passwords that wait for their thread, and who has to give way if there are too many.
//!
//! New passwords, which only `root` can set while authentication is enabled, have a limit of their own and go first. So
//! guesses do not keep `root` from changing a password. Comparisons are shared between the networks from which they come:
//! if all places are taken, a network with few comparisons displaces one of the network with the most, and no network has
//! two turns in a row while another waits. So a client that guesses does not keep others out, and delays them by one
//! comparison, unless it has many networks.

use std::collections::VecDeque;
use std::net::IpAddr;

/// Number of passwords of each kind that wait: about a second of work, and some seconds on a small device.
pub(super) const WAITING_MAX: usize = 16;

/// Where a client is: an IPv4 address, or the first half of an IPv6 address, because one client may have all addresses
/// with the same first half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(u64);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(address) => Network(u32::from(address).into()),
            IpAddr::V6(address) => Network((u128::from(address) >> 64) as u64),
        }
    }
}

/// `C` is a comparison, `H` a new password.
pub(super) struct Waiting<C, H> {
    comparisons: VecDeque<(Network, C)>,
    hashes: VecDeque<H>,
    /// The network of the last comparison that was taken out.
    last: Option<Network>,
}

/// What to do next.
pub(super) enum Job<C, H> {
    Compare(C),
    Hash(H),
}

impl<C, H> Default for Waiting<C, H> {
    fn default() -> Waiting<C, H> {
        Waiting {
            comparisons: VecDeque::new(),
            hashes: VecDeque::new(),
            last: None,
        }
    }
}

impl<C, H> Waiting<C, H> {
    /// The comparisons that wait.
    pub fn comparisons(&mut self) -> impl Iterator<Item = &mut C> {
        self.comparisons
            .iter_mut()
            .map(|(_, comparison)| comparison)
    }

    /// Adds a comparison. Returns the one for which there is no place: another one, or this one.
    pub fn compare(&mut self, from: Network, comparison: C) -> Option<C> {
        let displaced = match self.comparisons.len() < WAITING_MAX {
            true => None,
            false => match self.longest(from) {
                Some(at) => self.comparisons.remove(at),
                None => return Some(comparison),
            },
        };
        self.comparisons.push_back((from, comparison));
        displaced.map(|(_, displaced)| displaced)
    }

    /// The newest comparison of the network with the most, if that has more than `from` has with one more.
    fn longest(&self, from: Network) -> Option<usize> {
        let count = |network: Network| {
            let networks = self.comparisons.iter().map(|(network, _)| *network);
            networks.filter(|other| *other == network).count()
        };
        let networks = self.comparisons.iter().map(|(network, _)| *network);
        let most = networks.max_by_key(|network| count(*network))?;
        let newest = self
            .comparisons
            .iter()
            .rposition(|(network, _)| *network == most);
        newest.filter(|_| count(most) > count(from) + 1)
    }

    /// Adds a new password. Returns it if there is no place.
    pub fn hash(&mut self, hash: H) -> Option<H> {
        if self.hashes.len() >= WAITING_MAX {
            return Some(hash);
        }
        self.hashes.push_back(hash);
        None
    }

    /// Takes the next one out: of the comparisons, the oldest of another network than the last one's.
    pub fn next(&mut self) -> Option<Job<C, H>> {
        if let Some(hash) = self.hashes.pop_front() {
            return Some(Job::Hash(hash));
        }
        let mut networks = self.comparisons.iter().map(|(network, _)| Some(*network));
        let other = networks.position(|network| network != self.last);
        let (network, comparison) = self.comparisons.remove(other.unwrap_or(0))?;
        self.last = Some(network);
        Some(Job::Compare(comparison))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse::<IpAddr>().expect("an address").into()
    }

    /// Takes everything out: comparisons as their numbers, new passwords as negative ones.
    fn rest(mut waiting: Waiting<i32, i32>) -> Vec<i32> {
        let next = std::iter::from_fn(move || waiting.next());
        next.map(|job| match job {
            Job::Compare(number) => number,
            Job::Hash(number) => -number,
        })
        .collect()
    }

    #[test]
    fn a_client_that_guesses_gives_way_to_others() {
        let mut waiting = Waiting::<i32, i32>::default();
        let [guesser, other, third] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(network);
        for number in 0..16 {
            assert_eq!(waiting.compare(guesser, number), None);
        }
        assert_eq!(waiting.compare(guesser, 16), Some(16), "no place");
        // The newest of the guesser goes, one for each of the others', until all have about the same.
        for (number, displaced) in (100..107).zip((9..16).rev()) {
            assert_eq!(waiting.compare(other, number), Some(displaced));
        }
        assert_eq!(waiting.compare(other, 107), Some(8));
        assert_eq!(waiting.compare(other, 108), Some(108), "eight each");
        assert_eq!(waiting.compare(third, 200), Some(107));
        // They take turns. The third one comes after those of the others that are older.
        let order = [
            0, 100, 1, 101, 2, 102, 3, 103, 4, 104, 5, 105, 6, 106, 7, 200,
        ];
        assert_eq!(rest(waiting), order);
    }

    #[test]
    fn a_client_waits_for_one_comparison_of_another() {
        let mut waiting = Waiting::<i32, i32>::default();
        for number in 0..16 {
            assert_eq!(waiting.compare(network("10.0.0.1"), number), None);
        }
        assert!(matches!(waiting.next(), Some(Job::Compare(0))));
        assert_eq!(waiting.compare(network("10.0.0.2"), 100), None);
        assert!(matches!(waiting.next(), Some(Job::Compare(100))));
        assert!(matches!(waiting.next(), Some(Job::Compare(1))));
    }

    #[test]
    fn new_passwords_have_their_own_places_and_go_first() {
        let mut waiting = Waiting::<i32, i32>::default();
        for number in 1..=16 {
            assert_eq!(waiting.compare(network("10.0.0.1"), number), None);
        }
        for number in 1..=16 {
            assert_eq!(waiting.hash(number), None);
        }
        assert_eq!(waiting.hash(17), Some(17));
        let order: Vec<i32> = (1..=16).map(|number| -number).chain(1..=16).collect();
        assert_eq!(rest(waiting), order);
    }

    #[test]
    fn one_client_may_have_many_addresses_of_ipv6() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
    }
}
