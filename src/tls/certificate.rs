//! The names in a certificate.

use rustls::pki_types::CertificateDer;
use std::net::IpAddr;
use yasna::models::{ObjectIdentifier, TaggedDerValue};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, BERReaderSeq, Tag};

/// The parts of a certificate that are used: its names, its last second, and its public key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// The common name of the subject, or empty. etcd's auth takes it as the name of the user.
    pub common_name: String,
    /// Host names among the alternative names.
    pub hosts: Vec<String>,
    /// Addresses among the alternative names.
    pub addresses: Vec<IpAddr>,
    /// The last second of its validity, in seconds since 1970.
    pub not_after: i64,
    /// The version of X.509, from 1 on.
    pub version: u8,
    /// The public key: SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

impl Names {
    /// Reads a certificate. Its signature is not looked at. `None` if it is malformed.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Names> {
        yasna::parse_der(certificate, |reader| {
            reader.read_sequence(|parts| {
                let names = parts.next().read_sequence(read_body)?;
                parts.next().read_der()?;
                parts.next().read_der()?;
                Ok(names)
            })
        })
        .ok()
    }
}

/// The reference's check of a client's address: if its certificate has alternative names, one of them must be the
/// client's. Host names are not resolved here, so a certificate with one is accepted.
///
/// # Errors
/// The reason.
pub fn check_remote(names: &Names, remote: IpAddr) -> Result<(), String> {
    let remote = remote.to_canonical();
    let is_listed = names
        .addresses
        .iter()
        .any(|address| address.to_canonical() == remote);
    if is_listed || !names.hosts.is_empty() || names.addresses.is_empty() {
        return Ok(());
    }
    let listed: Vec<_> = names.addresses.iter().map(IpAddr::to_string).collect();
    Err(format!(
        "its certificate is for {}, and the client's address is {remote}",
        listed.join(", ")
    ))
}

/// TBSCertificate (RFC 5280 §4.1).
fn read_body(parts: &mut BERReaderSeq<'_, '_>) -> ASN1Result<Names> {
    let mut names = Names::default();
    let version = parts
        .read_optional(|version| version.read_tagged(Tag::context(0), |number| number.read_u8()))?;
    names.version = version.unwrap_or(0).saturating_add(1);
    for _ in ["serial number", "signature", "issuer"] {
        parts.next().read_der()?;
    }
    names.not_after = parts.next().read_sequence(|validity| {
        validity.next().read_der()?;
        read_time(validity.next())
    })?;
    names.common_name = read_common_name(parts.next())?;
    names.public_key = parts.next().read_der()?;
    for tag in [1, 2] {
        parts.read_optional(|id| {
            id.read_tagged_implicit(Tag::context(tag), |bits| bits.read_bitvec_bytes())
        })?;
    }
    parts.read_optional(|extensions| {
        extensions.read_tagged(Tag::context(3), |list| {
            list.read_sequence_of(|extension| read_extension(extension, &mut names))
        })
    })?;
    Ok(names)
}

fn read_time(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    let time = if reader.lookahead_tag()? == yasna::tags::TAG_UTCTIME {
        *reader.read_utctime()?.datetime()
    } else {
        *reader.read_generalized_time()?.datetime()
    };
    Ok(time.unix_timestamp())
}

/// The last common name of a distinguished name, as Go takes it.
fn read_common_name(subject: BERReader<'_, '_>) -> ASN1Result<String> {
    let common_name = ObjectIdentifier::from_slice(&[2, 5, 4, 3]);
    let mut found = String::new();
    subject.read_sequence_of(|part| {
        part.read_set_of(|attribute| {
            attribute.read_sequence(|pair| {
                let kind = pair.next().read_oid()?;
                let value = pair.next().read_tagged_der()?;
                if kind == common_name {
                    found = text(value.value())?;
                }
                Ok(())
            })
        })
    })?;
    Ok(found)
}

fn read_extension(extension: BERReader<'_, '_>, names: &mut Names) -> ASN1Result<()> {
    let alternative_names = ObjectIdentifier::from_slice(&[2, 5, 29, 17]);
    extension.read_sequence(|parts| {
        let kind = parts.next().read_oid()?;
        parts.read_default(false, |is_critical| is_critical.read_bool())?;
        let value = parts.next().read_bytes()?;
        if kind == alternative_names {
            yasna::parse_der(&value, |list| {
                list.read_sequence_of(|name| add_name(&name.read_tagged_der()?, names))
            })?;
        }
        Ok(())
    })
}

fn add_name(name: &TaggedDerValue, names: &mut Names) -> ASN1Result<()> {
    let (tag, value) = (name.tag(), name.value());
    if tag == Tag::context(2) {
        names.hosts.push(text(value)?);
    } else if tag == Tag::context(7) {
        let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
        let address = four.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from));
        names.addresses.push(address.map_err(|_| malformed())?);
    }
    Ok(())
}

fn text(bytes: &[u8]) -> ASN1Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed())
}

fn malformed() -> ASN1Error {
    ASN1Error::new(ASN1ErrorKind::Invalid)
}
