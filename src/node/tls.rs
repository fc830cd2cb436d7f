//! The certificates of the listeners.

use crate::config::{Config, Place, Stop};
use crate::http1::Security;
#[cfg(feature = "tls")]
use crate::tls::{self, Server, Settings, auto};
#[cfg(feature = "tls")]
use std::{sync::Arc, time::SystemTime};

/// Certificates for clients, if a URL for clients has TLS.
#[derive(Default)]
pub(super) struct ForClients {
    #[cfg(feature = "tls")]
    server: Option<Arc<Server>>,
}

impl ForClients {
    /// Reads the certificates of `--cert-file`, or makes those of `--auto-tls`, which creates the data directory.
    ///
    /// # Errors
    /// A file cannot be used.
    #[cfg(feature = "tls")]
    pub fn open(config: &Config) -> Result<ForClients, Stop> {
        let mut urls = config
            .listen_client_urls
            .iter()
            .chain(&config.listen_metrics_urls);
        if !urls.any(|url| url.scheme().has_tls()) {
            return Ok(ForClients::default());
        }
        let hosts = config
            .listen_client_urls
            .iter()
            .map(|url| url.host().to_owned());
        let settings = with_files(config, &config.client_tls, "client", hosts.collect())?;
        let server = Server::open(&settings).map_err(stop)?;
        Ok(ForClients {
            server: Some(Arc::new(server)),
        })
    }

    /// Without TLS, no URL has it: `Config` refuses them.
    #[cfg(not(feature = "tls"))]
    pub fn open(_: &Config) -> Result<ForClients, Stop> {
        Ok(ForClients::default())
    }

    /// For the clients of a place.
    #[cfg(feature = "tls")]
    pub fn security<P>(&self, place: &Place<P>) -> Security {
        match self.server.clone().filter(|_| place.is_tls) {
            None => Security::plain(),
            Some(server) if place.is_plain => Security::optional(server),
            Some(server) => Security::tls(server),
        }
    }

    #[cfg(not(feature = "tls"))]
    pub fn security<P>(&self, _: &Place<P>) -> Security {
        Security::plain()
    }
}

/// The settings with the files of the self-signed certificate, if it is asked for.
#[cfg(feature = "tls")]
fn with_files(
    config: &Config,
    settings: &Settings,
    side: &str,
    mut hosts: Vec<String>,
) -> Result<Settings, Stop> {
    if !settings.auto {
        return Ok(settings.clone());
    }
    hosts.sort();
    hosts.dedup();
    let folder = config.data_dir.join("fixtures").join(side);
    let made = auto::self_signed(&folder, &hosts, SystemTime::now());
    let (cert, key) = made.map_err(stop)?;
    Ok(Settings {
        cert_file: Some(cert),
        key_file: Some(key),
        ..settings.clone()
    })
}

#[cfg(feature = "tls")]
fn stop(error: tls::Error) -> Stop {
    Stop::fatal(error.message, &error.hint)
}
