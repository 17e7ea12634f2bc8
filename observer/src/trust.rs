//! Whom our clients trust by TLS.
//!
//! The machine says it, so that an authority of one's own counts: `SSL_CERT_FILE`, else the system's bundle. Where there
//! is none, in an empty image, the roots that are built in.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ureq::tls::{PemItem, RootCerts, parse_pem};

/// Where distributions keep their bundle.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A bundle has some 300 KiB.
const MOST_BYTES: u64 = 8 << 20;

pub(crate) fn of_the_machine() -> RootCerts {
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    first(given.into_iter().chain(BUNDLES.iter().map(PathBuf::from)))
}

/// The certificates of the first bundle that has any.
pub(crate) fn first(bundles: impl Iterator<Item = PathBuf>) -> RootCerts {
    for path in bundles {
        match certificates(&path) {
            Ok(certificates) if !certificates.is_empty() => {
                return RootCerts::new_with_certs(&certificates);
            }
            Ok(_) => tracing::warn!(path = %path.display(), "no certificate in it: not used"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), "not used: {error}"),
        }
    }
    RootCerts::WebPki
}

/// All of a file.
pub(crate) fn certificates(path: &Path) -> std::io::Result<Vec<ureq::tls::Certificate<'static>>> {
    let mut pem = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut pem)?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    Ok(parse_pem(&pem).filter_map(certificate).collect())
}
