//! A process without the right certificate sends no peer message, although everything else about the message is right: a
//! stranger who has read the incarnation of a member from its disk, while that member is away.

use std::time::SystemTime;

use crate::harness::certificates::{Ca, DAY, Leaf, leaf};
use crate::harness::closed::{self, Pki};
use crate::harness::json::Json;
use crate::harness::secure::{Config, config};
use crate::harness::{Cluster, Connection};
use crate::stranger::{Claim, incarnation_in, vote};
use crate::support::{WITHIN, alone};

/// The id of a member, as the API has it.
fn id(cluster: &Cluster, through: usize, node: usize) -> u64 {
    let url = closed::peer_url(cluster.node(node));
    let members = cluster.members(through);
    let has_url = |member: &&Json| member.at("/peerURLs/0").and_then(Json::text) == Some(&url);
    let member = members.iter().find(has_url).expect("a member");
    let text = member.get("id").and_then(Json::text).expect("an id");
    u64::from_str_radix(text, 16).expect("an id")
}

#[test]
fn who_has_no_right_certificate_sends_no_peer_message() {
    let _alone = alone();
    let pki = Pki::new();
    let now = SystemTime::now();
    let expired = pki.ca.sign(&Leaf {
        until: now - DAY / 2,
        ..leaf("member-before")
    });
    let revoked = pki.ca.sign(&Leaf {
        serial: 7,
        ..leaf("withdrawn")
    });
    let other = Ca::new(pki.folder(), "other").sign(&leaf("stranger"));
    let list = pki.ca.revoke(&[7]);
    let flags = [
        format!("--peer-crl-file={}", list.display()),
        "--election-timeout=4000".to_owned(),
    ];
    let mut cluster = closed::prepare(3, &pki, &["https"], &flags);
    closed::ask_with(&mut cluster, &pki.anonymous());
    cluster.launch();
    let leader = cluster.wait_leader();
    let (away, other_member) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    let answer = cluster.node(leader).ask("GET", "/v2/members", None);
    let text = answer.header("X-Etcd-Cluster-Id").expect("its cluster");
    let claim = Claim {
        cluster: u64::from_str_radix(text, 16).expect("an id"),
        id: id(&cluster, leader, away),
        incarnation: incarnation_in(cluster.node(away).data()),
    };
    let own_url = closed::peer_url(cluster.node(away));
    cluster.kill(away);
    let term = cluster.term(leader);

    // The status of the answer to a request for a stream, on which a message follows at once. None: no answer.
    let status = |node: usize, config: Option<&Config>| {
        let address = cluster.node(node).peer_address();
        let request = claim.request(address, id(&cluster, leader, node), &own_url);
        let message = claim.frame(&vote(term + 10));
        // A client may hear only after its request that it is refused.
        let mut connection = Connection::open_with(address, config).ok()?;
        connection
            .write(&[request.as_bytes(), &message].concat())
            .ok()?;
        connection.head(false, WITHIN).ok().map(|head| head.status)
    };
    let ca = &pki.ca.file;
    for node in [leader, other_member] {
        for (what, client) in [
            ("no certificate", Some(pki.anonymous())),
            ("an expired certificate", Some(config(ca, Some(&expired)))),
            ("a revoked certificate", Some(config(ca, Some(&revoked)))),
            ("one of another CA", Some(config(ca, Some(&other)))),
            ("no TLS", None),
        ] {
            assert_eq!(status(node, client.as_ref()), None, "n{node}, {what}");
        }
    }
    assert_eq!(cluster.wait_leader(), leader);
    assert_eq!(cluster.term(leader), term);
    cluster.put(leader, "/undisturbed", "1");

    // Nothing else was wrong with the request.
    let member = config(ca, Some(&pki.member));
    assert_eq!(status(other_member, Some(&member)), Some(101));
}
