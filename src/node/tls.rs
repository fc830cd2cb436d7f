//! The certificates of the listeners, and of connections to other members.

use crate::config::{Config, Place, Stop};
use crate::dial::Tls;
use crate::http1::Security;
#[cfg(feature = "tls")]
use crate::tls::{self, Client, Server, Settings, auto};
#[cfg(feature = "tls")]
use crate::urls::Url;
#[cfg(feature = "tls")]
use std::{sync::Arc, time::Instant, time::SystemTime};

/// Certificates for listeners, if a URL of them has TLS.
#[derive(Default)]
pub(super) struct Listening {
    #[cfg(feature = "tls")]
    server: Option<Arc<Server>>,
}

/// Reads the certificates of `--cert-file`, or makes those of `--auto-tls`, which creates the data directory.
///
/// # Errors
/// A file cannot be used.
#[cfg(feature = "tls")]
pub(super) fn for_clients(config: &Config) -> Result<Listening, Stop> {
    let urls = &config.listen_client_urls;
    let mut all = urls.iter().chain(&config.listen_metrics_urls);
    if !all.any(|url| url.scheme().has_tls()) {
        return Ok(Listening::default());
    }
    Listening::open(&with_files(config, &config.client_tls, "client", urls)?)
}

/// The same for `--peer-cert-file` and `--peer-auto-tls`, and how this member connects to members with `https` URLs. A
/// member without a CA for them, and without `--peer-auto-tls`, connects to none.
///
/// # Errors
/// A file cannot be used.
#[cfg(feature = "tls")]
pub(super) fn for_members(config: &Config) -> Result<(Listening, Tls), Stop> {
    let urls = &config.listen_peer_urls;
    let settings = with_files(config, &config.peer_tls, "peer", urls)?;
    let listening = match urls.iter().any(|url| url.scheme().has_tls()) {
        true => Listening::open(&settings)?,
        false => Listening::default(),
    };
    if settings.trusted_ca_file.is_none() && !settings.auto {
        return Ok((listening, Tls::none()));
    }
    let client = Client::open(&settings).map_err(stop)?;
    let dialling = Tls::new(Arc::new(move || {
        client.refresh(Instant::now());
        Ok(client.config())
    }));
    Ok((listening, dialling))
}

/// Without TLS, no URL has it: `Config` refuses them.
#[cfg(not(feature = "tls"))]
pub(super) fn for_clients(_: &Config) -> Result<Listening, Stop> {
    Ok(Listening::default())
}

/// Without TLS, no URL has it: `Config` refuses them.
#[cfg(not(feature = "tls"))]
pub(super) fn for_members(_: &Config) -> Result<(Listening, Tls), Stop> {
    Ok((Listening::default(), Tls::none()))
}

impl Listening {
    #[cfg(feature = "tls")]
    fn open(settings: &Settings) -> Result<Listening, Stop> {
        let server = Server::open(settings).map_err(stop)?;
        Ok(Listening {
            server: Some(Arc::new(server)),
        })
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

/// The settings with the files of the self-signed certificate, if it is asked for. It is valid for the hosts of the
/// URLs.
#[cfg(feature = "tls")]
fn with_files(
    config: &Config,
    settings: &Settings,
    side: &str,
    urls: &[Url],
) -> Result<Settings, Stop> {
    if !settings.auto {
        return Ok(settings.clone());
    }
    let mut hosts: Vec<String> = urls.iter().map(|url| url.host().to_owned()).collect();
    hosts.sort_unstable();
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
