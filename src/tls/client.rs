//! The configuration of connections to other members.

use super::reload::Reloading;
use super::server::{provider, unusable};
use super::{Error, Settings, files, verify};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Instant;

/// The configuration of connections to other members, which follows its files. This side presents its own certificate.
pub struct Client(Reloading<ClientConfig>);

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// A file is missing or cannot be used, or two settings contradict each other.
    pub fn open(settings: &Settings) -> Result<Client, Error> {
        Reloading::open(settings, build).map(Client)
    }

    /// The present configuration.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.config()
    }

    /// See [`Server::refresh`](super::Server::refresh).
    pub fn refresh(&self, now: Instant) {
        self.0.refresh(now);
    }
}

fn build(settings: &Settings) -> Result<ClientConfig, Error> {
    let provider = provider(settings);
    let verifier = verify::of_servers(settings, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| unusable(settings, &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match files::identity(settings)? {
        Some(files::Identity { chain, key }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(settings, &error))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
