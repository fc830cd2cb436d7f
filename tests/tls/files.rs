//! The module `tls`: files, the certificates that each side accepts, and files that change.

use crate::certificates::{Ca, DAY, Leaf, Pair, leaf, replace};
use edgetcd::tls::certificate::{Names, check_remote};
use edgetcd::tls::{self, Client, Server, Settings, auto, reason};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConnection, DigitallySignedStruct, HandshakeKind, ServerConnection, SignatureScheme,
};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

fn settings(pair: &Pair, ca: Option<&Ca>) -> Settings {
    Settings {
        cert_file: Some(pair.cert.clone()),
        key_file: Some(pair.key.clone()),
        trusted_ca_file: ca.map(|ca| ca.file.clone()),
        ..Settings::default()
    }
}

/// Runs a handshake in memory. Returns the reason of the side that fails first.
fn handshake(server: &Server, client: &Client, host: &str) -> Result<ServerConnection, String> {
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let mut client = ClientConnection::new(client.config(), name).expect("a client");
    let mut server = ServerConnection::new(server.config()).expect("a server");
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a vector takes all");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("read");
            let state = server.process_new_packets();
            state.map_err(|error| format!("server: {}", reason(&error)))?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("a vector takes all");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("read");
            let state = client.process_new_packets();
            state.map_err(|error| format!("client: {}", reason(&error)))?;
        }
    }
    // The ticket for another session.
    wire.clear();
    while server.wants_write() {
        server.write_tls(&mut wire).expect("a vector takes all");
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        client.read_tls(&mut rest).expect("read");
        client.process_new_packets().expect("a ticket");
    }
    Ok(server)
}

fn failure(server: &Server, client: &Client, host: &str) -> String {
    match handshake(server, client, host) {
        Ok(_) => "accepted".to_owned(),
        Err(why) => why,
    }
}

#[test]
fn each_side_refuses_what_it_should_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ca, other) = (
        Ca::new(folder.path(), "ca"),
        Ca::new(folder.path(), "other"),
    );
    let server_pair = ca.sign(&leaf("server"));
    let crl = ca.revoke(&[66]);
    let open = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings(&server_pair, Some(&ca));
        change(&mut settings);
        Server::open(&settings).expect("opened")
    };
    let server = open(&|settings| settings.crl_file = Some(crl.clone()));
    let client = |pair: &Pair| Client::open(&settings(pair, Some(&ca))).expect("opened");
    let good = client(&ca.sign(&leaf("good")));
    handshake(&server, &good, "localhost").expect("accepted");
    handshake(&server, &good, "127.0.0.1").expect("accepted");

    let old = ca.sign(&Leaf {
        until: SystemTime::now() - DAY / 2,
        ..leaf("old")
    });
    let why = failure(&server, &client(&old), "localhost");
    assert!(
        why.starts_with("server: its certificate has expired (it was valid until "),
        "{why}"
    );
    let early = ca.sign(&Leaf {
        from: SystemTime::now() + DAY,
        ..leaf("early")
    });
    let why = failure(&server, &client(&early), "localhost");
    assert!(
        why.starts_with("server: its certificate is not valid yet (it is valid from "),
        "{why}"
    );
    let stranger = client(&other.sign(&leaf("stranger")));
    let from_stranger = "server: its certificate does not come from a trusted CA";
    assert_eq!(failure(&server, &stranger, "localhost"), from_stranger);
    let revoked = ca.sign(&Leaf {
        serial: 66,
        ..leaf("revoked")
    });
    let revoked = client(&revoked);
    assert_eq!(
        failure(&server, &revoked, "localhost"),
        "server: its certificate is revoked"
    );
    let without = Settings {
        trusted_ca_file: Some(ca.file.clone()),
        ..Settings::default()
    };
    let without = Client::open(&without).expect("opened");
    assert_eq!(
        failure(&server, &without, "localhost"),
        "server: it has sent no certificate"
    );

    let named = open(&|settings| settings.allowed_cn = Some("good".to_owned()));
    handshake(&named, &good, "localhost").expect("accepted");
    assert_eq!(
        failure(&named, &revoked, "localhost"),
        "server: its certificate has another common name than the allowed \"good\""
    );
    let hosted = open(&|settings| settings.allowed_hostname = Some("n1.example".to_owned()));
    assert_eq!(
        failure(&hosted, &good, "localhost"),
        "server: its certificate is not valid for the allowed host \"n1.example\""
    );

    let wrong_host = "client: its certificate is for another host";
    assert_eq!(failure(&server, &good, "n2.example"), wrong_host);
    let of_stranger = Server::open(&settings(&other.sign(&leaf("server2")), None)).expect("opened");
    let why = failure(&of_stranger, &good, "localhost");
    assert_eq!(
        why,
        "client: its certificate does not come from a trusted CA"
    );
    let picky = Settings {
        allowed_cn: Some("n7".to_owned()),
        ..settings(&server_pair, Some(&ca))
    };
    let picky = Client::open(&picky).expect("opened");
    assert_eq!(
        failure(&server, &picky, "localhost"),
        "client: its certificate has another common name than the allowed \"n7\""
    );
    let blind = Settings {
        auto: true,
        ..settings(&server_pair, None)
    };
    let blind = Client::open(&blind).expect("opened");
    handshake(&of_stranger, &blind, "n9.example").expect("nobody is verified");
}

#[test]
fn names_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(2_600_000_000);
    let pair = ca.sign(&Leaf {
        common_name: "jürgen",
        hosts: vec![
            "n1.example".to_owned(),
            "10.0.0.1".to_owned(),
            "::1".to_owned(),
        ],
        until,
        ..leaf("n1")
    });
    let der = CertificateDer::from_pem_file(&pair.cert).expect("PEM");
    let names = Names::read(&der).expect("a certificate");
    let addresses: [IpAddr; 2] = [[10, 0, 0, 1].into(), "::1".parse().expect("an address")];
    assert_eq!(names.common_name, "jürgen");
    assert_eq!(
        (names.hosts, names.addresses),
        (vec!["n1.example".to_owned()], addresses.to_vec())
    );
    assert_eq!(names.not_after, 2_600_000_000);
    for cut in 0..der.len() {
        let part = CertificateDer::from(&der[..cut]);
        assert_eq!(Names::read(&part), None, "{cut} bytes");
    }
    for at in 0..der.len() {
        let mut damaged = der.to_vec();
        damaged[at] ^= 0x55;
        let _ = Names::read(&damaged.into());
    }
}

#[test]
fn the_address_of_a_client_is_compared_with_its_certificate() {
    let names = |hosts: &[&str], addresses: &[&str]| Names {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        addresses: addresses
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect(),
        ..Names::default()
    };
    let remote = "::ffff:10.0.0.1".parse().expect("an address");
    assert_eq!(check_remote(&names(&[], &[]), remote), Ok(()));
    assert_eq!(
        check_remote(&names(&[], &["10.0.0.2", "10.0.0.1"]), remote),
        Ok(())
    );
    assert_eq!(
        check_remote(&names(&["n2.example"], &["10.0.0.2"]), remote),
        Ok(())
    );
    assert_eq!(
        check_remote(&names(&[], &["10.0.0.2"]), remote),
        Err("its certificate is for 10.0.0.2, and the client's address is 10.0.0.1".to_owned())
    );
}

/// The error with the folder as `DIR`.
fn refused(settings: &Settings, folder: &Path) -> String {
    let Err(error) = Server::open(settings) else {
        panic!("it must be refused")
    };
    let text = format!("{}\n{}", error.message, error.hint);
    text.replace(&folder.display().to_string(), "DIR")
}

#[test]
fn errors_name_the_file_and_what_to_type() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let ca = Ca::new(dir, "ca");
    let (one, two) = (ca.sign(&leaf("one")), ca.sign(&leaf("two")));
    let change = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings(&one, Some(&ca));
        change(&mut settings);
        refused(&settings, dir)
    };
    assert_eq!(
        change(&|settings| settings.cert_file = Some(dir.join("none.pem"))),
        "open DIR/none.pem: no such file or directory (--cert-file)\n\
         see: ls -l DIR/none.pem; or type another file: --cert-file=FILE"
    );
    assert_eq!(
        change(&|settings| settings.key_file = None),
        "--cert-file and --key-file must both be present [key: none, cert: given]\n\
         type both: --cert-file=FILE --key-file=FILE"
    );
    let mixed = change(&|settings| settings.key_file = Some(two.key.clone()));
    assert_eq!(
        mixed.lines().next(),
        Some("DIR/one.pem and DIR/two-key.pem: the key does not belong to the certificate")
    );
    assert_eq!(
        change(&|settings| settings.key_file = Some(one.cert.clone())),
        "DIR/one.pem: no PEM text with BEGIN PRIVATE KEY: it contains none (--key-file)\n\
         look at it: grep -- ----- DIR/one.pem"
    );
    let locked = dir.join("locked.pem");
    fs::write(
        &locked,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .expect("written");
    let text = change(&|settings| settings.key_file = Some(locked.clone()));
    assert!(
        text.starts_with("DIR/locked.pem: the key is encrypted (--key-file)\n"),
        "{text}"
    );
    fs::write(
        dir.join("bad.pem"),
        "-----BEGIN PRIVATE KEY-----\nsecret!\n-----END PRIVATE KEY-----\n",
    )
    .expect("written");
    let text = change(&|settings| settings.key_file = Some(dir.join("bad.pem")));
    assert!(
        text.contains("a section is not base64") && !text.contains("secret"),
        "{text}"
    );
    assert_eq!(
        change(&|settings| {
            settings.trusted_ca_file = None;
            settings.client_cert_auth = true;
        })
        .lines()
        .last(),
        Some("type --trusted-ca-file=FILE")
    );
    fs::write(dir.join("crl.pem"), "nothing").expect("written");
    assert_eq!(
        change(&|settings| settings.crl_file = Some(dir.join("crl.pem")))
            .lines()
            .next(),
        Some("DIR/crl.pem: no PEM text with BEGIN X509 CRL: it contains none (--client-crl-file)")
    );
    let peers = Settings::peers();
    assert_eq!(
        refused(&peers, dir),
        "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided\n\
         type --peer-cert-file=FILE --peer-key-file=FILE, or --peer-auto-tls"
    );
}

/// A certificate of X.509 version 1, made with `openssl x509 -req` and no extensions. Go serves such a certificate, and so
/// do we. The first key belongs to it.
#[test]
fn a_certificate_of_version_1_is_served() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/version1");
    let with_key = |key: &str| Settings {
        cert_file: Some(folder.join("one.pem")),
        key_file: Some(folder.join(key)),
        ..Settings::default()
    };
    let server = Server::open(&with_key("one-key.pem"));
    let server = server.unwrap_or_else(|error| panic!("{}", error.message));
    let temporary = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(temporary.path(), "ca");
    let client = Client::open(&settings(&ca.sign(&leaf("client")), Some(&ca)));
    let client = client.unwrap_or_else(|error| panic!("{}", error.message));
    // Our clients do not accept it. The name shows that the server sent it.
    let name = ServerName::try_from("localhost").expect("a name");
    let verifier = Arc::new(Shown::default());
    let mut config = (*client.config()).clone();
    (config.dangerous()).set_certificate_verifier(Arc::clone(&verifier) as Arc<_>);
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut server = ServerConnection::new(server.config()).expect("a server");
    let mut wire = Vec::new();
    client.write_tls(&mut wire).expect("a vector takes all");
    server.read_tls(&mut &wire[..]).expect("read");
    server.process_new_packets().expect("no fault");
    wire.clear();
    while server.wants_write() {
        server.write_tls(&mut wire).expect("a vector takes all");
    }
    client.read_tls(&mut &wire[..]).expect("read");
    client
        .process_new_packets()
        .expect_err("the verifier refuses");
    assert_eq!(*verifier.0.lock().expect("the name"), "127.0.0.1");
    assert_eq!(
        refused(&with_key("two-key.pem"), &folder).lines().next(),
        Some("DIR/one.pem and DIR/two-key.pem: the key does not belong to the certificate")
    );
}

/// Refuses every certificate, and remembers the common name of the last one.
#[derive(Debug, Default)]
struct Shown(Mutex<String>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let names = Names::read(certificate).expect("a certificate");
        *self.0.lock().expect("the name") = names.common_name;
        Err(rustls::Error::General("refused".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("refused".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("refused".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The common name of the certificate that a server shows.
fn shown(server: &Server, client: &Client) -> String {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(client.config(), name).expect("a client");
    let mut server = ServerConnection::new(server.config()).expect("a server");
    while client.peer_certificates().is_none() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("a vector takes all");
        server.read_tls(&mut &wire[..]).expect("read");
        server.process_new_packets().expect("no fault");
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("a vector takes all");
        }
        client.read_tls(&mut &wire[..]).expect("read");
        client.process_new_packets().expect("no fault");
    }
    let chain = client.peer_certificates().expect("it was shown");
    Names::read(&chain[0]).expect("a certificate").common_name
}

#[test]
fn files_that_change_are_read_and_broken_ones_are_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let pair = ca.sign(&leaf("server"));
    let server = Server::open(&settings(&pair, None)).expect("opened");
    let client = Client::open(&settings(&pair, Some(&ca))).expect("opened");
    let mut now = Instant::now();
    let mut look = || {
        now += Duration::from_secs(2);
        server.refresh(now);
        shown(&server, &client)
    };
    assert_eq!(look(), "server");
    let renewed = Leaf {
        common_name: "renewed",
        ..leaf("server")
    };
    ca.sign(&renewed);
    assert_eq!(look(), "renewed");
    replace(&pair.cert, "half a file");
    assert_eq!([look(), look(), look()], ["renewed", "renewed", "renewed"]);
    let again = Leaf {
        common_name: "again",
        ..leaf("server")
    };
    ca.sign(&again);
    assert_eq!(look(), "again");
    ca.sign(&leaf("server"));
    server.refresh(now);
    assert_eq!(
        shown(&server, &client),
        "again",
        "files are not looked at twice in a second"
    );
}

#[test]
fn the_certificate_of_auto_tls_is_kept_while_it_is_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("fixtures").join("client");
    let hosts = ["127.0.0.1", "localhost"].map(str::to_owned);
    let now = SystemTime::now();
    let (cert, key) = auto::self_signed(&place, &hosts, now).expect("made");
    let first = fs::read(&cert).expect("a file");
    assert_eq!(fs::metadata(&key).expect("a file").mode() & 0o777, 0o600);
    let server = Settings {
        cert_file: Some(cert.clone()),
        key_file: Some(key.clone()),
        auto: true,
        ..Settings::peers()
    };
    let client = Client::open(&server).expect("opened");
    handshake(
        &Server::open(&server).expect("opened"),
        &client,
        "localhost",
    )
    .expect("accepted");
    auto::self_signed(&place, &hosts, now + 300 * DAY).expect("kept");
    assert_eq!(fs::read(&cert).expect("a file"), first);
    auto::self_signed(&place, &hosts, now + 365 * DAY).expect("made again");
    assert_ne!(fs::read(&cert).expect("a file"), first);
    fs::write(&key, "half").expect("written");
    auto::self_signed(&place, &hosts, now).expect("made again");
    Server::open(&server).expect("usable");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).expect("set");
}

#[test]
fn suites_limit_only_the_older_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let pair = ca.sign(&leaf("server"));
    let mut settings = settings(&pair, Some(&ca));
    settings.cipher_suites = vec![tls::SUITES[1].to_owned()];
    let config = Server::open(&settings).expect("opened").config();
    let suites = config.crypto_provider().cipher_suites.iter();
    let names: Vec<_> = suites.map(|suite| format!("{:?}", suite.suite())).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.contains(&tls::SUITES[1].to_owned()), "{names:?}");
}

#[test]
fn a_certificate_that_was_revoked_resumes_no_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let mut given = settings(&ca.sign(&leaf("server")), Some(&ca));
    given.crl_file = Some(ca.revoke(&[]));
    let server = Server::open(&given).expect("opened");
    let client = Client::open(&settings(&ca.sign(&leaf("client")), Some(&ca))).expect("opened");
    let kind = || handshake(&server, &client, "localhost").map(|server| server.handshake_kind());
    assert_eq!(kind(), Ok(Some(HandshakeKind::Full)));
    assert_eq!(kind(), Ok(Some(HandshakeKind::Resumed)));
    ca.revoke(&[1]);
    server.refresh(Instant::now() + Duration::from_secs(2));
    assert_eq!(kind(), Err("server: its certificate is revoked".to_owned()));
}
