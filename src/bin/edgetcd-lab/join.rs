//! Lets a node without data join again, as an operator does: it is removed from the cluster and added as a new member.

use edgetcd::identity::ids;
use serde_json::{Value, json};
use std::time::Duration;
use ureq::Agent;

/// A change of the members needs a leader. Longer than an election.
const PATIENCE: Duration = Duration::from_secs(8);

/// Removes the member `id` and adds another one with this peer URL, through the first of these nodes that can. Returns the
/// id of the new member.
///
/// # Errors
/// The answers of the nodes.
pub fn join(clients: &[String], id: &str, peer_url: &str) -> Result<String, String> {
    let config = Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false);
    let agent = config.build().new_agent();
    let mut why = "no other node runs".to_owned();
    for client in clients {
        match join_through(&agent, client, id, peer_url) {
            Ok(id) => return Ok(id),
            Err(error) => why = format!("{client}: {error}"),
        }
    }
    Err(why)
}

fn join_through(agent: &Agent, client: &str, id: &str, peer_url: &str) -> Result<String, String> {
    let members = format!("{client}/v2/members");
    let text = |error: ureq::Error| error.to_string();
    let mut removed = agent
        .delete(format!("{members}/{id}"))
        .call()
        .map_err(text)?;
    // 410: an earlier attempt has removed it.
    if !matches!(removed.status().as_u16(), 204 | 404 | 410) {
        return Err(removed.body_mut().read_to_string().map_err(text)?);
    }
    let member = json!({"peerURLs": [peer_url]}).to_string();
    let request = agent
        .post(&members)
        .header("Content-Type", "application/json");
    let mut added = request.send(member).map_err(text)?;
    let body = added.body_mut().read_to_string().map_err(text)?;
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    match answer["id"].as_str().and_then(ids::parse) {
        Some(id) if added.status() == 201 => Ok(ids::hex(id)),
        _ => Err(body),
    }
}
