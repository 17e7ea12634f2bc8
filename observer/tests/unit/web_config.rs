//! `--web.config.file` as clients meet it: passwords, TLS, certificates, and what happens when the file changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use observer::tell::web::web_config::asks_for_tls;
use observer::tell::web::{Options, Server};

use crate::support::shown::{self, Site};

const PASSWORD: &str = "correct horse";

fn hashed(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn with_config(directory: &Path, text: &str) -> Site {
    let file = directory.join("web.yml");
    fs::write(&file, text).unwrap();
    Site::start(|options| options.web_config_file = Some(file))
}

/// Until it holds, within a minute.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn passwords_and_headers() {
    let directory = tempfile::tempdir().unwrap();
    let site = with_config(
        directory.path(),
        &format!(
            "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=60\n    X-Frame-Options: deny\n\
             basic_auth_users:\n  alice: {}\n  bob: {}\n",
            hashed(PASSWORD),
            hashed("other")
        ),
    );
    let asked = |path: &str, given: &str| site.ask("GET", path, &[("Authorization", given)]);
    for path in ["/metrics", "/healthz", "/api/v1/targets", "/nothing"] {
        let answer = site.get(path);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Basic realm="));
    }
    for given in [
        basic("alice", "wrong"),
        basic("alice", ""),
        basic("alice", "other"),
        basic("mallory", PASSWORD),
        basic("", PASSWORD),
        "Basic x".to_owned(),
        format!("Bearer {PASSWORD}"),
    ] {
        assert_eq!(asked("/metrics", &given).status, 401, "{given}");
    }
    for _ in 0..3 {
        let answer = asked("/metrics", &basic("alice", PASSWORD));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=60"));
        assert_eq!(answer.header("x-frame-options"), Some("deny"), "the file's word counts");
        // A password that was right does not open the door for a wrong one.
        assert_eq!(asked("/metrics", &basic("alice", "wrong")).status, 401);
        assert_eq!(asked("/metrics", &basic("bob", PASSWORD)).status, 401);
    }
    let rebound =
        site.ask("GET", "/metrics", &[("Host", "x.example"), ("Authorization", &basic("bob", "other"))]);
    assert_eq!(rebound.status, 200, "a stranger's page has no password");
}

#[test]
fn the_web_config_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    let site = with_config(directory.path(), &format!("basic_auth_users: {{alice: {}}}\n", hashed(PASSWORD)));
    let status =
        |password: &str| site.ask("GET", "/metrics", &[("Authorization", &basic("alice", password))]).status;
    assert_eq!(status(PASSWORD), 200);
    fs::write(&file, format!("basic_auth_users: {{alice: {}}}\n", hashed("new"))).unwrap();
    eventually("the new password", || status("new") == 200);
    assert_eq!(status(PASSWORD), 401, "the old one is no longer taken");
    // What is broken, and what no longer protects, leaves what was.
    for broken in ["basic_auth_users: {alice: plain}\n", "basic_auth_users: [\n", ""] {
        fs::write(&file, broken).unwrap();
        for _ in 0..25 {
            assert_eq!(status("new"), 200);
            assert_eq!(site.get("/metrics").status, 401, "{broken:?} opened the door");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, format!("basic_auth_users: {{alice: {}}}\n", hashed("newest"))).unwrap();
    eventually("the newest password", || status("newest") == 200);
}

#[test]
fn a_web_config_that_is_wrong_is_said_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    fs::write(&file, "basic_auth_users:\n  alice: plain\n").unwrap();
    let options = Options { web_config_file: Some(file.clone()), ..Options::default() };
    let Err(error) = Server::start(options, shown::shown()) else { panic!("taken") };
    let said = error.to_string();
    assert!(said.contains(file.to_str().unwrap()) && said.contains("bcrypt"), "{said}");
}

#[test]
fn requests_are_limited_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let site = with_config(directory.path(), "rate_limit:\n  interval: 1h\n  burst: 2\n");
    assert_eq!([(); 3].map(|()| site.get("/healthz").status), [200, 200, 429]);
}

/// An authority, and certificates that it made: the server's, a client's, and one of another authority.
struct Pki {
    directory: tempfile::TempDir,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority();
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let pki = Self { directory, authority };
        pki.write("server", &["localhost", "127.0.0.1"]);
        pki
    }

    /// NAME.crt and NAME.key, by this authority.
    fn write(&self, name: &str, sans: &[&str]) {
        let (certificate, key) = self.make(sans);
        fs::write(self.path(&format!("{name}.key")), key).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate).unwrap();
    }

    fn make(&self, sans: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = sans.iter().map(|san| (*san).to_owned()).collect();
        let certificate =
            rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &self.authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A client that trusts this authority, with or without a certificate of its own.
    fn agent(&self, own: Option<(String, String)>) -> ureq::Agent {
        use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
        let root = Certificate::from_pem(self.authority.pem().as_bytes()).unwrap();
        let own = own.map(|(certificate, key)| {
            let certificate = Certificate::from_pem(certificate.as_bytes()).unwrap();
            ClientCert::new_with_certs(&[certificate], PrivateKey::from_pem(key.as_bytes()).unwrap())
        });
        let tls =
            TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root])).client_cert(own).build();
        ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .max_idle_connections(0)
            .build()
            .into()
    }
}

fn authority() -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

fn status(agent: &ureq::Agent, site: &Site, user: Option<&str>) -> Result<u16, ureq::Error> {
    let mut request = agent.get(format!("https://localhost:{}/api/v1/targets", site.address.port()));
    if let Some(user) = user {
        request = request.header("Authorization", user);
    }
    let mut answer = request.call()?;
    answer.body_mut().read_to_vec()?;
    Ok(answer.status().as_u16())
}

#[test]
fn tls_with_a_password_and_a_certificate_that_is_renewed() {
    let pki = Pki::new();
    let site = with_config(
        pki.directory.path(),
        &format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\nbasic_auth_users:\n  alice: {}\n",
            hashed(PASSWORD)
        ),
    );
    assert!(asks_for_tls(&pki.path("web.yml")) && !asks_for_tls(&pki.path("server.crt")));
    let client = pki.agent(None);
    assert_eq!(status(&client, &site, Some(&basic("alice", PASSWORD))).unwrap(), 200);
    assert_eq!(status(&client, &site, None).unwrap(), 401);
    // Who trusts somebody else does not talk to us, and who forgot the s is told.
    assert!(status(&Pki::new().agent(None), &site, None).is_err());
    let plain = site.get("/metrics");
    assert_eq!(plain.status, 400);
    assert!(plain.text().contains("https://"), "{}", plain.text());

    // A renewed pair of another authority is used at once; half of one is not.
    let other = Pki::new();
    let (certificate, key) = other.make(&["localhost"]);
    fs::write(pki.path("server.crt"), certificate).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(
        status(&client, &site, None).unwrap(),
        401,
        "certificate and key do not fit: the old pair serves"
    );
    fs::write(pki.path("server.key"), key).unwrap();
    eventually("the new certificate", || status(&other.agent(None), &site, None).is_ok());
    assert!(status(&client, &site, None).is_err());
}

#[test]
fn certificates_of_clients() {
    let pki = Pki::new();
    let site = with_config(
        pki.directory.path(),
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: ca.pem\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [prometheus.example, 10.1.2.3]\n  \
         min_version: TLS13\n",
    );
    let with = |pair: (String, String)| status(&pki.agent(Some(pair)), &site, None);
    assert_eq!(with(pki.make(&["prometheus.example"])).unwrap(), 200);
    assert_eq!(with(pki.make(&["10.1.2.3"])).unwrap(), 200);
    assert!(with(pki.make(&["other.example"])).is_err(), "of the authority, and for another name");
    assert!(with(Pki::new().make(&["prometheus.example"])).is_err(), "of another authority");
    assert!(status(&pki.agent(None), &site, None).is_err(), "none at all");
}

#[test]
fn tls_settings_that_cannot_be_honoured_are_refused() {
    let pki = Pki::new();
    let with = |more: &str| {
        let file = pki.path("web.yml");
        let text = format!("tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  {more}\n");
        fs::write(&file, text).unwrap();
        let options = Options { web_config_file: Some(file), ..Options::default() };
        match Server::start(options, shown::shown()) {
            Ok(server) => {
                server.stop();
                String::new()
            }
            Err(error) => error.to_string(),
        }
    };
    for taken in [
        "max_version: TLS12",
        "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]",
        "curve_preferences: [CurveP521, CurveP256]",
        "prefer_server_cipher_suites: false",
        "client_auth_type: NoClientCert",
    ] {
        assert_eq!(with(taken), "", "{taken}");
    }
    for (refused, words) in [
        ("min_version: TLS10", "TLS12"),
        ("min_version: SSL3", "SSL3"),
        ("max_version: TLS11", "TLS12"),
        ("min_version: TLS13\n  max_version: TLS12", "above"),
        ("cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]", "cipher_suites"),
        ("cipher_suites: [ROT13]", "ROT13"),
        ("curve_preferences: [CurveP521]", "none"),
        ("curve_preferences: [Bezier]", "Bezier"),
        ("client_auth_type: RequireAnyClientCert", "RequireAndVerifyClientCert"),
        ("client_auth_type: RequireAndVerifyClientCert", "client_ca_file"),
        ("client_auth_type: Sometimes", "Sometimes"),
        ("client_ca_file: ca.pem", "client_auth_type"),
        ("client_allowed_sans: [a.example]", "client_auth_type"),
        ("client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: server.key", "client_ca_file"),
        ("cert: inline", "keep one"),
    ] {
        let said = with(refused);
        assert!(said.contains(words), "{refused}: {said:?}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn the_example_is_whole() {
    let pki = Pki::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/web-config.example.yml");
    let text = fs::read_to_string(example).unwrap();
    fs::rename(pki.path("server.crt"), pki.path("observer.crt")).unwrap();
    fs::rename(pki.path("server.key"), pki.path("observer.key")).unwrap();
    let site = with_config(pki.directory.path(), &text);
    assert_eq!(status(&pki.agent(None), &site, None).unwrap(), 401);
    assert_eq!(status(&pki.agent(None), &site, Some(&basic("prometheus", "change me"))).unwrap(), 200);
    // What stands there as a comment is taken too.
    let all = text
        .lines()
        .map(|line| line.strip_prefix("#   ").map_or(line.to_owned(), |line| format!("  {line}")));
    let all: Vec<String> = all.collect();
    fs::rename(pki.path("ca.pem"), pki.path("clients.pem")).unwrap();
    let site = with_config(pki.directory.path(), &(all.join("\n") + "\n"));
    let own = pki.agent(Some(pki.make(&["prometheus.example.com"])));
    assert_eq!(status(&own, &site, Some(&basic("prometheus", "change me"))).unwrap(), 200);
    assert!(status(&pki.agent(None), &site, None).is_err(), "it asks for a certificate");
}
