//! Our example of a web config, held against the tool that those who write one have.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "needs root"]
fn promtool_takes_the_example() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/web-config.example.yml");
    let directory = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(directory.path().join("observer.crt"), key.cert.pem()).unwrap();
    fs::write(directory.path().join("observer.key"), key.signing_key.serialize_pem()).unwrap();
    let file = directory.path().join("web-config.yml");
    fs::copy(example, &file).unwrap();
    let checked = Command::new("promtool").args(["check", "web-config"]).arg(&file).output();
    let checked = checked.unwrap_or_else(|error| panic!("promtool: {error}: run `cargo xtask setup`"));
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
