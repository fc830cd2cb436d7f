//! Member and cluster ids, derived as in etcd.
//!
//! An id is the first 8 bytes, big-endian, of a SHA-1. The id of a founding member is the hash of its sorted and
//! concatenated peer URLs, followed by the cluster token. For a member that is added later, the Unix time of its
//! addition in decimal seconds replaces the token, so the same URL added again gives another id. The id of the cluster
//! is the hash of the founders' ids, sorted as numbers, 8 bytes each. So all founders compute the same ids from the
//! same flags without communication. Ids are shown in lower-case hex without leading zeros.

use crate::raft::NodeId;
use crate::urls::Url;

/// The id of a member that belongs to the cluster from its first start on.
pub fn founder(peer_urls: &[Url], cluster_token: &str) -> NodeId {
    NodeId(hash_urls(peer_urls, cluster_token))
}

/// The id of a member added at run time, at `unix_seconds`.
pub fn latecomer(peer_urls: &[Url], unix_seconds: u64) -> NodeId {
    NodeId(hash_urls(peer_urls, &unix_seconds.to_string()))
}

/// The id of the cluster founded by these members, in any order.
pub fn cluster(founders: &[NodeId]) -> u64 {
    let mut ids: Vec<u64> = founders.iter().map(|id| id.0).collect();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    first_eight(&bytes)
}

/// An id in the form in which it is shown.
pub fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Parses an id of a request: hex digits of either case, with any number of leading zeros. `None` if the text is not
/// such a number or has more than 64 bits.
pub fn parse(text: &str) -> Option<u64> {
    // `from_str_radix` alone would accept a leading plus.
    text.bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u64::from_str_radix(text, 16).ok())?
}

/// The SHA-1 of these bytes, as hex.
pub fn digest(bytes: &[u8]) -> String {
    sha1_smol::Sha1::from(bytes).digest().to_string()
}

fn hash_urls(peer_urls: &[Url], suffix: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(Url::as_str).collect();
    urls.sort_unstable();
    first_eight((urls.concat() + suffix).as_bytes())
}

fn first_eight(bytes: &[u8]) -> u64 {
    let digest = sha1_smol::Sha1::from(bytes).digest().bytes();
    digest[..8]
        .iter()
        .fold(0, |id, &byte| id << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(urls: &str, token: &str) -> NodeId {
        founder(&Url::parse_list(urls).unwrap(), token)
    }

    /// Ids observed on running clusters of the reference.
    #[test]
    fn ids_are_those_of_the_reference() {
        let table = [
            (
                "http://192.168.56.101:2380",
                "etcd-cluster-1",
                "11796896800e7f4d",
            ),
            (
                "http://192.168.56.102:2380",
                "etcd-cluster-1",
                "b3a64181bea306fb",
            ),
            (
                "http://192.168.56.103:2380",
                "etcd-cluster-1",
                "4a84c8889f5d7a35",
            ),
            ("http://127.0.0.1:21021", "tok1", "e9f7ea66e338d192"),
            ("http://127.0.0.1:21022", "tok1", "61520bddc54224e5"),
            ("http://127.0.0.1:21023", "tok1", "2f61022d9b2d8d6f"),
            ("http://localhost:2380", "etcd-cluster", "8e9e05c52164694d"),
        ];
        for (urls, token, id) in table {
            assert_eq!(hex(id_of(urls, token).0), id, "{urls} {token}");
        }
        let founders = [
            0xe9f7_ea66_e338_d192,
            0x6152_0bdd_c542_24e5,
            0x2f61_022d_9b2d_8d6f,
        ]
        .map(NodeId);
        assert_eq!(hex(cluster(&founders)), "7dd4bd04f5146e69");
        let alone = [NodeId(0x8e9e_05c5_2164_694d)];
        assert_eq!(hex(cluster(&alone)), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_urls_does_not_matter_and_time_does() {
        let urls = Url::parse_list("http://b:1,http://a:1").unwrap();
        let turned: Vec<Url> = urls.iter().rev().cloned().collect();
        assert_eq!(founder(&urls, "t"), founder(&turned, "t"));
        assert_eq!(latecomer(&urls, 17), founder(&urls, "17"));
        assert_ne!(latecomer(&urls, 17), latecomer(&urls, 18));
    }

    #[test]
    fn an_id_is_read_as_the_reference_reads_it() {
        let table = [
            ("8e9e05c52164694d", Some(0x8e9e_05c5_2164_694d)),
            ("00000000000000000000F", Some(15)),
            ("0", Some(0)),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("0x1", None),
            ("xyz", None),
            ("11112222333344445", None),
        ];
        for (text, id) in table {
            assert_eq!(parse(text), id, "{text:?}");
        }
    }
}
