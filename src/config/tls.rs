//! The flags for certificates, and the checks of URLs with TLS.

use super::values::Values;
use super::{Config, Stop};
use crate::tls::{self, Settings};

/// Reads `--cert-file` and the other flags for clients.
pub(super) fn clients(values: &Values) -> Result<Settings, Stop> {
    read(values, "", "client-")
}

/// Reads `--peer-cert-file` and the other flags for members.
pub(super) fn peers(values: &Values) -> Result<Settings, Stop> {
    read(values, "peer-", "peer-")
}

/// The names of most flags begin with `prefix`. Those that only concern the certificates of the other side begin with
/// `other` and name it.
fn read(values: &Values, prefix: &'static str, other: &str) -> Result<Settings, Stop> {
    let text = |name: &str| values.some_text(name).map(str::to_owned);
    let file = |name: &str| values.some_text(&format!("{prefix}{name}")).map(Into::into);
    let suites = tls::check_suites(values.text("cipher-suites"));
    let settings = Settings {
        cert_file: file("cert-file"),
        key_file: file("key-file"),
        trusted_ca_file: file("trusted-ca-file"),
        crl_file: values
            .some_text(&format!("{other}crl-file"))
            .map(Into::into),
        client_cert_auth: values.boolean(&format!("{prefix}client-cert-auth"))?,
        allowed_cn: match prefix {
            "" => None,
            _ => text("peer-cert-allowed-cn"),
        },
        checks_address: match prefix {
            "" => false,
            _ => !values.boolean("experimental-peer-skip-client-san-verification")?,
        },
        allowed_hostname: text(&format!("{other}cert-allowed-hostname")),
        cipher_suites: suites.map_err(|error| Stop::fatal(error.message, &error.hint))?,
        auto: values.boolean(&format!("{prefix}auto-tls"))?,
        flags: prefix,
    };
    Ok(Settings {
        // As in the reference, given files replace the self-signed certificate.
        auto: settings.auto && !settings.is_given(),
        ..settings
    })
}

/// Checks that every URL with TLS has its certificate.
pub(super) fn check(config: &Config) -> Result<(), Stop> {
    let clients = config
        .listen_client_urls
        .iter()
        .chain(&config.listen_metrics_urls);
    if let Some(url) = clients.into_iter().find(|url| url.scheme().has_tls()) {
        check_certificate(&config.client_tls, || {
            format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            )
        })?;
    }
    if let Some(url) = config
        .listen_peer_urls
        .iter()
        .find(|url| url.scheme().has_tls())
    {
        check_certificate(&config.peer_tls, || {
            format!(
                "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
                url.authority()
            )
        })?;
    }
    Ok(())
}

fn check_certificate(settings: &Settings, message: impl Fn() -> String) -> Result<(), Stop> {
    if !tls::IS_BUILT_IN {
        let hint = "build it with: cargo build --release --features tls; or type http:// URLs";
        return Err(Stop::fatal("this program was built without TLS", hint));
    }
    if settings.is_given() || settings.auto {
        return Ok(());
    }
    let flags = settings.flags;
    let hint = format!(
        "type --{flags}cert-file=FILE --{flags}key-file=FILE, or --{flags}auto-tls for a self-signed certificate"
    );
    Err(Stop::fatal(message(), &hint))
}

/// Warns about flags that have no effect, in the reference's words.
pub(super) fn warnings(config: &Config, values: &Values) -> Result<Vec<String>, Stop> {
    let mut warnings = Vec::new();
    let sides = [
        ("client", &config.client_tls, &config.listen_client_urls),
        ("peer", &config.peer_tls, &config.listen_peer_urls),
    ];
    for (side, settings, urls) in sides {
        let flags = settings.flags;
        if values.boolean(&format!("{flags}auto-tls"))? && settings.is_given() {
            warnings.push(format!("ignoring {side} auto TLS since certs given"));
        }
        for url in urls.iter().filter(|url| !url.scheme().has_tls()) {
            if settings.is_given() || settings.auto {
                warnings.push(format!(
                    "The scheme of {side} url {url} is HTTP while {side} key/cert files are presented. Ignored {side} \
                     key/cert files."
                ));
            }
            if settings.client_cert_auth {
                warnings.push(format!(
                    "The scheme of {side} url {url} is HTTP while client cert auth (--{flags}client-cert-auth) is \
                     enabled. Ignored client cert auth for this url."
                ));
            }
        }
    }
    Ok(warnings)
}
