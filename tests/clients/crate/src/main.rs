//! Makes every call of the `etcd` crate against the servers at URLS, and prints each result.
//!
//!     etcd-crate-trial URL[,URL...]
//!
//! Two clusters that behave alike give the same output if both start at the same index. With several members, each
//! call goes to the next one ([`members::Members`]), and at the end the leader is killed while a client watches.

mod failover;
mod keys;
mod members;
mod users;
mod watches;

use etcd::{auth, stats};
use futures::Stream;
use members::Members;

fn main() {
    let urls = std::env::args().nth(1).expect("URL[,URL...]");
    let urls: Vec<&str> = urls.split(',').collect();
    let mut members = Members::new(&urls);
    keys::write_and_read(&mut members);
    keys::directories(&mut members);
    keys::compare(&mut members);
    keys::delete(&mut members);
    watches::watch(&mut members);
    ask_about_the_cluster(&mut members);
    users::manage(&mut members);
    not_connect();
    if urls.len() > 1 {
        failover::lose_the_leader(&mut members, &urls);
    }
}

fn ask_about_the_cluster(members: &mut Members) {
    let all = members.all();
    let health = members.wait(all.health().collect()).expect("all answer");
    let health: Vec<&str> = health.iter().map(|one| one.data.health.as_str()).collect();
    println!("health: {health:?}");
    let versions = members.wait(all.versions().collect()).expect("all answer");
    let versions: Vec<&str> = versions
        .iter()
        .map(|one| one.data.cluster_version.as_str())
        .collect();
    println!("cluster versions: {versions:?}");
    let told = members
        .wait(stats::self_stats(&all).collect())
        .expect("all answer");
    let mut states: Vec<&str> = told.iter().map(|one| one.data.state.as_str()).collect();
    states.sort_unstable();
    println!("states: {states:?}");
    let told = members
        .wait(stats::store_stats(&all).collect())
        .expect("all answer");
    println!("statistics of {} stores", told.len());
    let mut told: Vec<String> = (members.each().into_iter())
        .map(|member| match members.wait(stats::leader_stats(&member)) {
            Ok(told) => format!("{} followers", told.data.followers.len()),
            Err(error) => format!("{error:?}"),
        })
        .collect();
    told.sort_unstable();
    println!("statistics of the leader: {told:?}");
    println!(
        "auth: {}",
        members.wait(auth::status(&all)).expect("it answers").data
    );
    change_members(members);
}

/// The crate sends requests about members as a form, which no server accepts since etcd 2.
fn change_members(members: &mut Members) {
    let all = members.all();
    let listed = members
        .wait(etcd::members::list(&all))
        .expect("they are listed");
    for member in &listed.data {
        println!(
            "member {} {:?} {:?}",
            member.name, member.peer_urls, member.client_urls
        );
    }
    println!("cluster id: {}", listed.cluster_info.cluster_id.is_some());
    let peer = vec!["http://127.0.0.1:1".to_owned()];
    let own = listed.data[0].id.clone();
    let added = members.wait_here(|all| etcd::members::add(all, peer.clone()));
    println!("add: {added:?}");
    let updated = members.wait_here(|all| etcd::members::update(all, own, peer.clone()));
    println!("update: {updated:?}");
    for id in ["1234", "no-id"] {
        let deleted = members.wait(etcd::members::delete(&all, id.to_owned()));
        println!("delete: {deleted:?}");
    }
}

fn not_connect() {
    println!("no URL: {:?}", etcd::Client::new(&[], None).err());
    println!(
        "no URL: {:?}",
        etcd::Client::new(&["not a URL"], None).err()
    );
}
