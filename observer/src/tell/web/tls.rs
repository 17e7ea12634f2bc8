//! `tls_server_config` of the web config: TLS 1.2 and 1.3 by rustls over ring.
//!
//! Reads certificates and keys, gives a `ServerConfig`. What the format has and rustls does not (TLS 1.0 and 1.1, CBC
//! suites, P-521, certificates asked for and not checked) is refused or left out with a line in the log, never quietly
//! weakened or strengthened into something else.

use std::fmt;
use std::io::{self, BufReader};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, NamedGroup, RootCertStore,
    ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};
use serde::Deserialize;

use super::reader::Reader;

/// Names of the format for the groups that are spoken here.
const CURVES: [(&str, NamedGroup); 3] = [
    ("X25519", NamedGroup::X25519),
    ("CurveP256", NamedGroup::secp256r1),
    ("CurveP384", NamedGroup::secp384r1),
];

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("{what}: {source}")]
    Pem { what: &'static str, source: pem::Error },
    #[error("{0}")]
    Setting(String),
    #[error("certificate and key: {0}")]
    Pair(Error),
    #[error("client_ca: {0}")]
    ClientCa(VerifierBuilderError),
}

/// As it is in the file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsSettings {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    client_auth_type: Option<String>,
    client_ca_file: Option<String>,
    client_allowed_sans: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Option<Vec<String>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<String>>,
}

impl TlsSettings {
    /// Something in it asks for TLS.
    pub(crate) fn is_given(&self) -> bool {
        [&self.cert, &self.key, &self.client_ca, &self.cert_file, &self.key_file, &self.client_auth_type]
            .into_iter()
            .chain([&self.client_ca_file])
            .any(|setting| setting.as_deref().is_some_and(|setting| !setting.is_empty()))
    }
}

/// The configuration, and whether who asks must show a certificate.
pub(crate) fn server_config(
    settings: &TlsSettings,
    reader: &mut Reader,
) -> Result<(Arc<ServerConfig>, bool), TlsError> {
    let provider = Arc::new(provider(settings)?);
    let versions = versions(settings)?;
    let speaks_12 = versions.iter().any(|version| version.version == TLS12.version);
    if speaks_12 && !provider.cipher_suites.iter().any(is_tls12) {
        return Err(TlsError::Setting(
            "cipher_suites leaves none for TLS 1.2: name one with GCM or CHACHA20, or set min_version: TLS13"
                .into(),
        ));
    }
    let missing = |name: &str| TlsError::Setting(format!("{name}_file (or {name}) is missing"));
    let certificates = pem_of("cert", settings.cert.as_deref(), settings.cert_file.as_deref(), reader);
    let key = pem_of("key", settings.key.as_deref(), settings.key_file.as_deref(), reader);
    // What is missing is said before what cannot be read.
    let (certificates, key) = match (certificates, key) {
        (Ok(None), _) => return Err(missing("cert")),
        (_, Ok(None)) => return Err(missing("key")),
        (Ok(Some(certificates)), Ok(Some(key))) => (certificates, key),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let certificates = certificates_of("cert_file", &certificates)?;
    let key = PrivateKeyDer::from_pem_reader(BufReader::new(key.as_slice()))
        .map_err(|source| TlsError::Pem { what: "key_file", source })?;
    let authorities =
        pem_of("client_ca", settings.client_ca.as_deref(), settings.client_ca_file.as_deref(), reader)?;
    let (verifier, asks) = client_verifier(settings, authorities.as_deref(), &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| TlsError::Setting(error.to_string()))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(TlsError::Pair)?;
    config.ignore_client_order = settings.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), asks))
}

/// Inline or in a file, not both.
fn pem_of(
    name: &str,
    inline: Option<&str>,
    file: Option<&str>,
    reader: &mut Reader,
) -> Result<Option<Vec<u8>>, TlsError> {
    let given = |setting: Option<&str>| setting.filter(|setting| !setting.is_empty()).map(str::to_owned);
    match (given(inline), given(file)) {
        (Some(_), Some(_)) => {
            Err(TlsError::Setting(format!("{name} and {name}_file are both given: keep one")))
        }
        (Some(inline), None) => Ok(Some(inline.into_bytes())),
        (None, Some(file)) => Ok(Some(reader.read(&file)?)),
        (None, None) => Ok(None),
    }
}

fn certificates_of(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_reader_iter(BufReader::new(pem))
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if certificates.is_empty() {
        return Err(TlsError::Pem { what, source: pem::Error::NoItemsFound });
    }
    Ok(certificates)
}

fn versions(settings: &TlsSettings) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let rank = |name: &str, value: Option<&str>, default: u8| match value.unwrap_or_default() {
        "" => Ok(default),
        "TLS12" => Ok(12),
        "TLS13" => Ok(13),
        old @ ("TLS10" | "TLS11") => {
            Err(TlsError::Setting(format!("{name}: {old} is not spoken here, use TLS12 or TLS13")))
        }
        other => Err(TlsError::Setting(format!("{name}: {other:?} is no version, use TLS12 or TLS13"))),
    };
    let least = rank("min_version", settings.min_version.as_deref(), 12)?;
    let most = rank("max_version", settings.max_version.as_deref(), 13)?;
    if least > most {
        return Err(TlsError::Setting("min_version is above max_version".into()));
    }
    let spoken = [(13, &TLS13), (12, &TLS12)];
    Ok(spoken.into_iter().filter(|(rank, _)| (least..=most).contains(rank)).map(|(_, v)| v).collect())
}

fn is_tls12(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_none()
}

/// Suites are chosen for TLS 1.2 only, as the format has it.
fn provider(settings: &TlsSettings) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if let Some(wanted) = settings.cipher_suites.as_deref().filter(|wanted| !wanted.is_empty()) {
        let mut chosen: Vec<_> = provider.cipher_suites.iter().filter(|s| !is_tls12(s)).copied().collect();
        for name in wanted {
            let named = |suite: &&SupportedCipherSuite| format!("{:?}", suite.suite()) == *name;
            // TLS 1.3 suites have another name here, and are spoken anyway.
            let of_tls13 = ["TLS_AES_", "TLS_CHACHA20_"].iter().any(|start| name.starts_with(start));
            match provider.cipher_suites.iter().find(named) {
                Some(suite) => chosen.push(*suite),
                None if of_tls13 => {}
                None if name.starts_with("TLS_") => {
                    tracing::warn!("web config: cipher suite {name:?} is not spoken here and left out");
                }
                None => return Err(TlsError::Setting(format!("cipher_suites: {name:?} is no cipher suite"))),
            }
        }
        provider.cipher_suites = chosen;
    }
    if let Some(wanted) = settings.curve_preferences.as_deref().filter(|wanted| !wanted.is_empty()) {
        let mut chosen = Vec::new();
        for name in wanted {
            let known = CURVES.iter().find(|(known, _)| known == name);
            let group = known.and_then(|(_, known)| provider.kx_groups.iter().find(|g| g.name() == *known));
            match group {
                Some(group) => chosen.push(*group),
                None if ["CurveP521", "X25519MLKEM768"].contains(&name.as_str()) => {
                    tracing::warn!("web config: curve {name} is not spoken here and left out");
                }
                None => {
                    let known = CURVES.map(|(name, _)| name).join(", ");
                    return Err(TlsError::Setting(format!(
                        "curve_preferences: {name:?} is no curve, use {known}"
                    )));
                }
            }
        }
        if chosen.is_empty() {
            return Err(TlsError::Setting("curve_preferences leaves none that is spoken here".into()));
        }
        provider.kx_groups = chosen;
    }
    Ok(provider)
}

type Verifier = Arc<dyn ClientCertVerifier>;

fn client_verifier(
    settings: &TlsSettings,
    authorities: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<(Option<Verifier>, bool), TlsError> {
    let sans = settings.client_allowed_sans.as_deref().unwrap_or_default();
    let kind = settings.client_auth_type.as_deref().unwrap_or_default();
    let mandatory = match kind {
        "" | "NoClientCert" if authorities.is_some() => {
            return Err(TlsError::Setting(
                "client_ca_file is given and client_auth_type is not: set RequireAndVerifyClientCert".into(),
            ));
        }
        // Asked for and then not looked at: the same for who asks us.
        "" | "NoClientCert" | "RequestClientCert" => None,
        "RequireAnyClientCert" | "RequireClientCert" => {
            return Err(TlsError::Setting(format!(
                "client_auth_type: {kind} lets in whoever has made a certificate: use RequireAndVerifyClientCert"
            )));
        }
        "VerifyClientCertIfGiven" => Some(false),
        "RequireAndVerifyClientCert" => Some(true),
        other => return Err(TlsError::Setting(format!("client_auth_type: {other:?} is none"))),
    };
    if !sans.is_empty() && mandatory != Some(true) {
        return Err(TlsError::Setting(
            "client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert".into(),
        ));
    }
    let Some(mandatory) = mandatory else { return Ok((None, false)) };
    let authorities = authorities.ok_or_else(|| {
        TlsError::Setting(format!(
            "client_auth_type: {kind} needs client_ca_file, whose certificates are taken"
        ))
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of("client_ca_file", authorities)? {
        roots.add(certificate).map_err(|error| TlsError::Setting(format!("client_ca_file: {error}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(TlsError::ClientCa)?;
    if sans.is_empty() {
        return Ok((Some(verifier), mandatory));
    }
    let names = sans.iter().map(|san| {
        ServerName::try_from(san.clone()).map_err(|_| {
            TlsError::Setting(format!(
                "client_allowed_sans: {san:?} is neither a DNS name nor an address (e-mail and URI are not compared here)"
            ))
        })
    });
    let names = names.collect::<Result<_, _>>()?;
    Ok((Some(Arc::new(OnlyNamed { inner: verifier, names })), mandatory))
}

/// Certificates of our authority, and of them those for one of some names. A wildcard in a certificate counts.
struct OnlyNamed {
    inner: Verifier,
    names: Vec<ServerName<'static>>,
}

impl fmt::Debug for OnlyNamed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("OnlyNamed").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for OnlyNamed {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if self.names.iter().any(|name| verify_server_name(&certificate, name).is_ok()) {
            Ok(verified)
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }
}
