//! Completions and manual as they are generated: every command is in both, and neither steers anything.

use std::fs;

use crate::support::observer::{observer, run};

const VERBS: [&str; 7] = ["attach", "replay", "snapshot", "run", "doctor", "completions", "man"];

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&mut observer(&["completions", shell]));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        for verb in VERBS {
            assert!(ran.out.contains(verb), "{shell} does not know {verb}");
        }
        assert!(ran.out.contains("fail-on"), "{shell}");
    }
    run(&mut observer(&["completions", "csh"])).refused(2, &["csh", "bash"]);
}

#[test]
fn a_page_for_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let ran = run(&mut observer(&["man", path]));
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{}", ran.err);
    let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    for verb in VERBS {
        let text = page(&format!("observer-{verb}.1"));
        // As hyphens, which apropos wants; roff's own spelling of one.
        assert!(text.contains(&format!(".SH NAME\nobserver\\-{verb} \\- ")), "{text}");
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
        assert!(text.contains(".SH \"EXIT STATUS\""), "{text}");
    }
    let top = page("observer.1");
    assert!(top.contains("observer\\-attach(1)"), "{top}");
    assert!(!top.contains("observer\\-help"), "{top}");
    assert!(top.starts_with(".TH OBSERVER 1 \"\" \"observer "), "{top}");
    assert!(top.contains("/etc/observer/observer.toml"), "{top}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), VERBS.len() + 1);

    run(&mut observer(&["man", "/no-such-directory"])).refused(1, &["/no-such-directory"]);
}
