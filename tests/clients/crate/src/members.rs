//! The members of a cluster, a client for each, and the event loop for the crate's futures.

use etcd::kv::{self, GetOptions, KeyValueInfo};
use etcd::{stats, Client, Error, Response};
use futures::{Future, Stream};
use hyper::client::HttpConnector;
use std::fmt::Debug;
use std::time::{Duration, Instant};
use tokio::runtime::{current_thread, Runtime};
use tokio::timer::Timeout;

pub type Member = Client<HttpConnector>;

/// The result of a write or a read of a key.
pub type Changed = Result<Response<KeyValueInfo>, Vec<Error>>;

const DEADLINE: Duration = Duration::from_secs(20);

/// The servers answer each request earlier than this, also if they cannot serve it.
const PATIENCE: Duration = Duration::from_secs(40);

pub struct Members {
    runtime: Runtime,
    urls: Vec<String>,
    all: Member,
    each: Vec<Member>,
    turn: usize,
}

impl Members {
    pub fn new(urls: &[&str]) -> Members {
        let each = urls.iter().map(|url| client(&[url]));
        Members {
            runtime: Runtime::new().expect("an event loop"),
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            all: client(urls),
            each: each.collect(),
            turn: 0,
        }
    }

    /// A client that knows all members, and uses the next one if one does not answer.
    pub fn all(&self) -> Member {
        self.all.clone()
    }

    pub fn each(&self) -> Vec<Member> {
        self.each.clone()
    }

    pub fn forget(&mut self, number: usize) {
        self.each.remove(number);
        self.urls.remove(number);
    }

    /// The next member, once it has applied all acknowledged writes. A quorum read waits for that. The crate has no
    /// such reads, but it leaves a query in the key unchanged.
    pub fn next(&mut self) -> Member {
        self.turn += 1;
        let member = self.each[self.turn % self.each.len()].clone();
        let read = kv::get(&member, "/none?quorum=true", GetOptions::default());
        self.wait(read).expect_err("this key is never set");
        member
    }

    /// The URL of the next member, which may not have applied all acknowledged writes.
    pub fn next_url(&mut self) -> String {
        self.turn += 1;
        self.urls[self.turn % self.urls.len()].clone()
    }

    /// Panics with the place of the call if there is no response in time.
    #[track_caller]
    pub fn wait<F>(&mut self, call: F) -> Result<F::Item, F::Error>
    where
        F: Future + Send + 'static,
        F::Item: Send + 'static,
        F::Error: Send + 'static,
    {
        let limited = Timeout::new(call, PATIENCE);
        self.runtime
            .block_on(limited)
            .map_err(|error| match error.into_inner() {
                Some(error) => error,
                None => panic!("no response within {PATIENCE:?}"),
            })
    }

    /// Some of the crate's futures must stay in their thread, so they get their own event loop and connections.
    pub fn wait_here<F: Future>(
        &self,
        make: impl FnOnce(&Member) -> F,
    ) -> Result<F::Item, F::Error> {
        let urls: Vec<&str> = self.urls.iter().map(String::as_str).collect();
        let mut runtime = current_thread::Runtime::new().expect("an event loop");
        runtime.block_on(make(&client(&urls)))
    }

    /// Makes a call to the next member and prints the result.
    pub fn call<F>(&mut self, what: &str, make: impl FnOnce(&Member) -> F) -> Changed
    where
        F: Future<Item = Response<KeyValueInfo>, Error = Vec<Error>> + Send + 'static,
    {
        let member = self.next();
        let result = self.wait(make(&member));
        show(what, &result);
        result
    }

    pub fn spawn<F>(&self, call: F) -> impl Future<Item = F::Item, Error = F::Error>
    where
        F: Future + Send + 'static,
        F::Item: Send + 'static,
        F::Error: Send + 'static,
    {
        futures::sync::oneshot::spawn(call, &self.runtime.executor())
    }

    /// Waits until this many watches are open on all members together.
    pub fn wait_for_watchers(&mut self, count: u64) {
        let end = Instant::now() + DEADLINE;
        while self.watchers() != count {
            assert!(Instant::now() < end, "there are never {count} watchers");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn watchers(&mut self) -> u64 {
        let asked = self.each().into_iter().map(|member| {
            let told = self.wait(stats::store_stats(&member).collect());
            told.expect("it answers")[0].data.watchers
        });
        asked.sum()
    }
}

fn client(urls: &[&str]) -> Member {
    Client::new(urls, None).expect("a client of these URLs")
}

/// The response as JSON, or an error with all its details.
pub fn show<E: Debug>(what: &str, result: &Result<Response<KeyValueInfo>, E>) {
    match result {
        Ok(answer) => {
            let info = &answer.cluster_info;
            let raft = info.raft_index.is_some() && info.raft_term.is_some();
            let json = serde_json::to_string(&answer.data).expect("it was JSON before");
            println!("{what}: {json} index={:?} raft={raft}", info.etcd_index);
        }
        Err(errors) => println!("{what}: {errors:?}"),
    }
}
