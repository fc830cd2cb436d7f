//! Requests through an HTTP proxy.
//!
//! The library asks each proxy for a tunnel (`CONNECT`), which most proxies allow only for TLS. For `http` the usual
//! way is a request whose first line contains the complete URI. The connection in this module rewrites the line when it
//! is sent.

use super::overhead::Counting;
use super::{Addresses, Overhead};
use crate::urls::Url;
use std::io;
use ureq::Agent;
use ureq::config::Config;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};

/// An agent that sends every request for `base` (`http://host:port`) to a proxy. `header` is added to its head and
/// contains complete lines or nothing. `overhead` counts what its connections receive.
///
/// # Errors
/// The proxy's name has no address.
pub fn by_proxy(
    config: Config,
    proxy: &Url,
    base: &str,
    header: &str,
    overhead: &Overhead,
) -> io::Result<Agent> {
    let whole = WholeUri {
        base: base.to_owned(),
        header: header.to_owned(),
    };
    let connector = DefaultConnector::default()
        .chain(whole)
        .chain(Counting(overhead.clone()));
    Ok(Agent::with_parts(
        config,
        connector,
        Addresses(proxy.resolve()?),
    ))
}

/// Opens connections to the proxy.
#[derive(Debug)]
struct WholeUri {
    base: String,
    header: String,
}

impl<In: Transport> Connector<In> for WholeUri {
    type Out = ToProxy<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<ToProxy<In>>, ureq::Error> {
        Ok(chained.map(|inner| ToProxy {
            inner,
            base: self.base.clone(),
            header: self.header.clone(),
            is_head: true,
        }))
    }
}

/// A connection to a proxy.
#[derive(Debug)]
struct ToProxy<In> {
    inner: In,
    base: String,
    header: String,
    /// Whether the next bytes begin with the first line of a request.
    is_head: bool,
}

impl<In> ToProxy<In> {
    /// The head of a request with the complete URI and the additional lines. If `head` is no such head, it is
    /// unchanged.
    fn changed(&self, head: &[u8]) -> Vec<u8> {
        let target = head.iter().position(|byte| *byte == b' ');
        let line = head.windows(2).position(|pair| pair == b"\r\n");
        let (Some(space), Some(end)) = (target, line) else {
            return head.to_vec();
        };
        let (method, rest) = head.split_at(space + 1);
        let (line, rest) = rest.split_at(end + 2 - method.len());
        [
            method,
            self.base.as_bytes(),
            line,
            self.header.as_bytes(),
            rest,
        ]
        .concat()
    }
}

impl<In: Transport> Transport for ToProxy<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if !std::mem::take(&mut self.is_head) {
            return self.inner.transmit_output(amount, timeout);
        }
        let head = self.inner.buffers().output()[..amount].to_vec();
        // The changed head is longer and may not fit into the buffer at once.
        let head = self.changed(&head);
        let mut rest = head.as_slice();
        while !rest.is_empty() {
            let output = self.inner.buffers().output();
            let (now, later) = rest.split_at(rest.len().min(output.len()));
            output[..now.len()].copy_from_slice(now);
            self.inner.transmit_output(now.len(), timeout)?;
            rest = later;
        }
        Ok(())
    }

    /// A caller that waits for an answer has sent its complete request. The next request may use the same connection.
    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.is_head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
