//! Replaces the `tests/test.rs` of the crate's own tests: a client of the server under test.
//!
//! The original knows one server with the host name `etcd`, needs TLS, and ignores futures that end in an error.

use etcd::{kv, Client};
use futures::Future;
use hyper::client::HttpConnector;
use std::ops::Deref;
use tokio::runtime::Runtime;

/// Cleans up after each test if it was created by [`TestClient::new`].
#[allow(dead_code)]
pub struct TestClient {
    client: Client<HttpConnector>,
    cleans_up: bool,
    runtime: Runtime,
}

#[allow(dead_code)]
impl TestClient {
    pub fn new() -> TestClient {
        let mut client = TestClient::no_destructor();
        client.cleans_up = true;
        client
    }

    pub fn no_destructor() -> TestClient {
        let urls = std::env::var("ETCD_URLS").expect("ETCD_URLS");
        let urls: Vec<&str> = urls.split(',').collect();
        TestClient {
            client: Client::new(&urls, None).expect("a client of these URLs"),
            cleans_up: false,
            runtime: Runtime::new().expect("an event loop"),
        }
    }

    /// The tests that call this are skipped.
    pub fn https(_with_certificate: bool) -> TestClient {
        unreachable!("it is built without TLS")
    }

    pub fn run<F, O, E>(&mut self, future: F)
    where
        F: Future<Item = O, Error = E> + Send + 'static,
        O: Send + 'static,
        E: Send + 'static,
    {
        let ended = self.runtime.block_on(future.map(|_| ()).map_err(|_| ()));
        assert!(ended.is_ok(), "it ends in an error");
    }
}

impl Drop for TestClient {
    fn drop(&mut self) {
        if self.cleans_up {
            let _ = self
                .runtime
                .block_on(kv::delete(&self.client, "/test", true));
        }
    }
}

impl Deref for TestClient {
    type Target = Client<HttpConnector>;

    fn deref(&self) -> &Client<HttpConnector> {
        &self.client
    }
}
