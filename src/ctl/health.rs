//! `edgetcdctl cluster-health`: asks each member for its health and computes the state of the cluster.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Stop;
use super::args::Opt;
use super::client::{Client, Settings};
use super::command::{Command, HELP, Run};
use super::endpoint::Endpoint;
use super::member::{self, Member};
use super::watch::end_well_on_interrupt;
use super::wire::Ask;

pub(super) const ALL: &[Command] = &[Command {
    name: "cluster-health",
    arguments: "",
    what: "ask each member for its health",
    examples: &["cluster-health", "cluster-health -f"],
    options: &[
        Opt::flag(&["forever", "f"], "repeat every ten seconds, until Ctrl-C"),
        HELP,
    ],
    run: cluster_health,
}];

const PAUSE: Duration = Duration::from_secs(10);

/// Asks the given endpoints for the members. Unlike in other commands, they are not first replaced by all endpoints
/// of the cluster, because this command must also work if that fails.
fn cluster_health(run: &mut Run) -> Result<(), Stop> {
    let forever = run.parsed.flag("forever");
    if forever {
        end_well_on_interrupt()?;
    }
    let client = run.globals.given_endpoints(run.world.stderr)?;
    // As in etcdctl, --debug prints the request for the members, but not the requests to each member.
    let settings = Settings {
        debug: false,
        ..client.settings.clone()
    };
    let quiet = Client::new(vec![], settings);
    let out = &mut run.world.stdout;
    let members = match member::known_to(&client) {
        Ok(members) => members,
        Err(failure) => {
            writeln!(out, "cluster may be unhealthy: failed to list members")?;
            return Err(Stop::Failed(failure));
        }
    };
    loop {
        let mut healthy = 0;
        for member in &members {
            healthy += usize::from(check(&quiet, member, out)?);
        }
        let all = healthy == members.len();
        let state = match healthy {
            _ if all => "healthy",
            0 => "unavailable",
            _ => "degraded",
        };
        writeln!(out, "cluster is {state}")?;
        if !forever {
            return if all { Ok(()) } else { Err(Stop::Unhealthy) };
        }
        writeln!(out, "\nnext check after 10 second...\n")?;
        thread::sleep(PAUSE);
    }
}

/// Tries one URL after another until one answers. Returns true if the member is healthy.
fn check(client: &Client, member: &Member, out: &mut dyn Write) -> Result<bool, Stop> {
    let id = &member.id;
    if member.client_urls.is_empty() {
        writeln!(
            out,
            "member {id} is unreachable: no available published client urls"
        )?;
        return Ok(false);
    }
    // For all its URLs together, so that a long list of them costs no more time.
    let deadline = Instant::now() + client.settings.total_timeout;
    for url in &member.client_urls {
        match ask(client, url, deadline) {
            Ok(healthy) => {
                let word = if healthy { "healthy" } else { "unhealthy" };
                writeln!(out, "member {id} is {word}: got {word} result from {url}")?;
                return Ok(healthy);
            }
            Err(why) => writeln!(
                out,
                "failed to check the health of member {id} on {url}: {why}"
            )?,
        }
    }
    let urls = member.client_urls.join(" ");
    writeln!(
        out,
        "member {id} is unreachable: [{urls}] are all unreachable"
    )?;
    Ok(false)
}

/// The response of one member to `/health`, with any status: `"true"` or, in some versions, `true`.
fn ask(client: &Client, url: &str, deadline: Instant) -> Result<bool, String> {
    let endpoint = Endpoint::parse(url)?;
    let answer = client
        .any_answer_of(&endpoint, &Ask::get("/health", vec![]), Some(deadline))
        .map_err(|miss| format!("Get \"{url}/health\": {}", miss.error))?;
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok(matches!(&body["health"], Value::Bool(true)) || body["health"] == "true")
}
