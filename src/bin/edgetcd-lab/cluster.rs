//! `edgetcd-lab cluster`: starts the nodes, serves the page, performs acts until a signal ends it.
//!
//! One thread owns the nodes. The page's requests reach it as events, in their order.

use crate::guard::Guard;
use crate::join::join;
use crate::links::Links;
use crate::nodes::{self, Node, Plan};
use crate::options::Options;
use crate::recording::Recorder;
use crate::site::{self, Event, Site};
use edgetcd::http1::{Answer, HttpServer, Ticket, listen};
use edgetcd::lab::acts;
use edgetcd::raft::NodeId;
use edgetcd::sim::Act;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// Longer than any timeout of a node.
const DELAY_MS_MAX: u64 = 10_000;

struct Cluster {
    plan: Plan,
    nodes: Vec<Node>,
    links: Arc<Links>,
    guard: Guard,
}

/// Runs the cluster until a signal ends this process.
pub fn run(options: Options) -> Result<(), String> {
    let (events, inbox) = mpsc::channel();
    end_at_signals(events.clone())?;
    let listener = listen(options.listen).map_err(|error| {
        format!(
            "cannot listen on {}: {error}; use another --listen ADDRESS",
            options.listen
        )
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    // Removed after the nodes have ended, because it is dropped after them.
    let mut temporary = None;
    let folder = match options.folder {
        Some(folder) => {
            nodes::empty_folder(&folder, "folder")?;
            folder
        }
        None => temporary.insert(Temporary::create()?).0.clone(),
    };
    if let Some(record) = &options.record {
        nodes::empty_folder(record, "record")?;
    }
    let plan = Plan {
        server: options.server,
        traces: options.record.unwrap_or_else(|| folder.clone()),
        folder,
        origin: format!("http://{address}"),
    };
    let (nodes, links) = nodes::plan(options.members)?;
    let mut cluster = Cluster {
        plan,
        nodes,
        links,
        guard: Guard::start()?,
    };
    let begun = cluster.begin();
    let clients: Vec<String> = cluster.nodes.iter().map(Node::client_url).collect();
    let traces = cluster
        .nodes
        .iter()
        .map(|node| node.trace(&cluster.plan))
        .collect();
    let site = Site::new(address, &clients, Recorder::new(traces), events.clone());
    let served = begun.and_then(|()| {
        HttpServer::open(vec![listener], 1, site::limits(), Arc::new(site))
            .map_err(|error| format!("cannot serve on {address}: {error}"))
    });
    if served.is_ok() {
        // The process that reads the output may have closed it.
        let _ = writeln!(
            std::io::stdout(),
            "page: http://{address}/; clients connect to {}",
            clients.join(" ")
        );
        cluster.serve(&inbox, &events);
    }
    nodes::stop(&mut cluster.nodes);
    served.map(drop)
}

/// A folder that only this user can read, with a name that others cannot know before. Dropping it removes it.
struct Temporary(PathBuf);

impl Temporary {
    fn create() -> Result<Temporary, String> {
        let name = format!("edgetcd-lab-{:016x}", RandomState::new().hash_one(0));
        let folder = std::env::temp_dir().join(name);
        // Fails if it exists, also if another user has created it.
        let created = DirBuilder::new().mode(0o700).create(&folder);
        created.map_err(|error| {
            format!(
                "cannot create {}: {error}; name a folder with --folder DIR",
                folder.display()
            )
        })?;
        Ok(Temporary(folder))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn end_at_signals(events: Sender<Event>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot wait for signals: {error}");
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let body = move || {
        for _ in signals.forever() {
            let _ = events.send(Event::Stop);
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(body)
        .map_err(failed)?;
    Ok(())
}

impl Cluster {
    fn begin(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            node.start(&self.plan, &self.guard)?;
        }
        Ok(())
    }

    /// Does what it is asked to do, until it is to end.
    fn serve(&mut self, inbox: &Receiver<Event>, events: &Sender<Event>) {
        for event in inbox {
            let (done, ticket) = match event {
                Event::State(ticket) => (Ok(()), ticket),
                Event::Act(act, ticket) => match self.added_by(&act) {
                    Some(member) => {
                        self.add(member, ticket, events.clone());
                        continue;
                    }
                    None => (self.act(&act), ticket),
                },
                Event::Added(member, id, ticket) => {
                    let start = |id| self.nodes[member].start_as(id, &self.plan, &self.guard);
                    (id.and_then(start), ticket)
                }
                Event::Stop => return,
            };
            match done {
                Ok(()) => self.tell(ticket),
                Err(why) => ticket.send(Answer::text(409, why + "\n")),
            }
        }
    }

    /// The member that `add N` names, if this is such an act.
    fn added_by(&self, act: &str) -> Option<usize> {
        let number: usize = act.strip_prefix("add ")?.trim().parse().ok()?;
        (1..=self.nodes.len()).contains(&number).then(|| number - 1)
    }

    /// Lets a node join again on another thread: the other nodes may take long to answer.
    fn add(&mut self, member: usize, ticket: Ticket, events: Sender<Event>) {
        if self.nodes[member].state() != "down" {
            let why = format!("{} runs: kill or wipe it first\n", self.nodes[member].name);
            return ticket.send(Answer::text(409, why));
        }
        let others = self
            .nodes
            .iter_mut()
            .filter_map(|node| (node.state() == "running").then(|| node.client_url()));
        let others: Vec<String> = others.collect();
        let (id, url) = (
            self.nodes[member].id.clone(),
            self.nodes[member].proxy_url.clone(),
        );
        let body = move || {
            let added = join(&others, &id, &url);
            let _ = events.send(Event::Added(member, added, ticket));
        };
        // Without a thread, the ticket is dropped, which answers 500.
        let _ = thread::Builder::new().name("join".into()).spawn(body);
    }

    /// Performs an act that is written as in the simulated lab.
    fn act(&mut self, text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let count = self.nodes.len();
        let member = |word: &str| {
            let number = word
                .parse()
                .ok()
                .filter(|number| (1..=count as u64).contains(number));
            number.ok_or_else(|| format!("{word}: the members are 1 to {count}"))
        };
        let link = |from: NodeId, to: NodeId| match from == to {
            true => Err("a member has no link to itself".to_owned()),
            false => Ok((place(from), place(to))),
        };
        match acts::parse(&words, &member)? {
            Act::Kill(n) => self.nodes[place(n)].kill(),
            Act::Pause(n) => self.nodes[place(n)].pause(),
            Act::Resume(n) => self.nodes[place(n)].resume(),
            Act::Restart(n) => {
                // Its process may have ended by itself.
                self.nodes[place(n)].state();
                self.nodes[place(n)].start(&self.plan, &self.guard)
            }
            Act::Wipe(n) => self.nodes[place(n)].wipe(&self.plan),
            Act::Cut(n, m) => link(n, m).map(|link| self.links.cut(link)),
            Act::Heal(n, m) => link(n, m).map(|link| self.links.heal(link)),
            Act::Delay(_, _, ms) if ms > DELAY_MS_MAX => {
                Err(format!("a delay has at most {DELAY_MS_MAX} ms"))
            }
            Act::Delay(n, m, ms) => {
                link(n, m).map(|link| self.links.delay(link, Duration::from_millis(ms)))
            }
            _ => Err(format!("{text}: only a simulated cluster can do that")),
        }
    }

    fn tell(&mut self, ticket: Ticket) {
        let plan = &self.plan;
        let members: Vec<_> = (self.nodes.iter_mut())
            .map(|node| {
                json!({"id": node.id, "name": node.name, "client_urls": [node.client_url()], "state": node.state(), "said": node.last_words(plan)})
            })
            .collect();
        let links: Vec<_> = (self.links.rules().into_iter())
            .map(|((from, to), rule)| {
                json!({"from": from + 1, "to": to + 1, "cut": rule.cut, "delay_ms": rule.delay.as_millis() as u64})
            })
            .collect();
        let answer = Answer::new(200)
            .header("Content-Type", "application/json")
            .header("X-Content-Type-Options", "nosniff")
            .header("Cache-Control", "no-store");
        ticket.send(answer.body(json!({"members": members, "links": links}).to_string()));
    }
}

/// The place of a member in the list. The members of an act are numbered from 1, and exist.
fn place(member: NodeId) -> usize {
    member.0 as usize - 1
}
