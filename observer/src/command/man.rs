//! `observer man`: the manual pages, from the same description as `--help`, and what a manual has besides.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::EXAMPLES;

#[derive(clap::Args)]
pub struct Arguments {
    /// The directory for them (such as /usr/local/share/man/man1), which is there
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// For all commands.
const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "Done, also when the process ended meanwhile."),
    ("1", "Failed: one line on standard error says what, where and what to do."),
    ("2", "Wrong usage, or a configuration that cannot be."),
    ("3", "The verdict is the one that --fail-on names."),
];

const DOCTOR_EXIT_STATUS: [(&str, &str); 3] =
    [("0", "All good."), ("1", "Works, with limits."), ("2", "Does not work here, or wrong usage.")];

const FILES: [(&str, &str); 2] = [
    ("/etc/observer/observer.toml", "The configuration of the service, with every key and its default."),
    ("/var/lib/observer", "Where the service may keep history."),
];

const ENVIRONMENT: [(&str, &str); 3] = [
    ("OBSERVER_CONFIG", "The configuration of observer run, where --config names none."),
    (
        "OBSERVER_EXE, OBSERVER_COMM, OBSERVER_CGROUP, OBSERVER_CMDLINE, OBSERVER_LISTEN, OBSERVER_INTERVAL, ...",
        "Keys of the configuration, where neither flags nor the file have them. The file lists all.",
    ),
    ("RUST_LOG", "What to log, before --verbose and the configuration."),
];

const SIGNALS: [(&str, &str); 2] = [
    ("SIGTERM, SIGINT", "End in order: what is due is told and written first, for some seconds at most."),
    ("SIGHUP", "Read the configuration anew. One that cannot be is logged, and the old one goes on."),
];

pub fn run(arguments: &Arguments, mut command: Command) -> Result<ExitCode> {
    // Without `help` as a command, which has no page.
    command = command.disable_help_subcommand(true);
    command.build();
    page(&command, None, &arguments.directory)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        page(verb, Some(verb.get_name()), &arguments.directory)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: &Command, verb: Option<&str>, directory: &Path) -> Result<()> {
    let name = verb.map_or_else(|| "observer".to_owned(), |verb| format!("observer-{verb}"));
    let man = Man::new(command.clone());
    // By hand, for the quotes around no date: without them what follows would move to its place.
    let title = name.to_uppercase();
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(".TH {title} 1 \"\" \"observer {version}\" \"User Commands\"\n").into_bytes();
    // whatis and apropos want this one line to have the page's own name, and no more than a line.
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let about = about.split([':', '.']).next().unwrap_or_default();
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]).text([roman(format!("{name} - {about}"))]);
    roff.to_writer(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if verb.is_none() {
        man.render_subcommands_section(&mut text)?;
    }
    match verb {
        Some("doctor") => section(&mut text, "EXIT STATUS", &DOCTOR_EXIT_STATUS)?,
        _ => section(&mut text, "EXIT STATUS", &EXIT_STATUS)?,
    }
    if matches!(verb, None | Some("run")) {
        section(&mut text, "FILES", &FILES)?;
        section(&mut text, "ENVIRONMENT", &ENVIRONMENT)?;
    }
    if verb == Some("run") {
        section(&mut text, "SIGNALS", &SIGNALS)?;
    }
    if verb.is_none() {
        section(&mut text, "EXAMPLES", &EXAMPLES)?;
    } else {
        let mut roff = Roff::new();
        roff.control("SH", ["SEE ALSO"]).text([bold("observer"), roman("(1)")]);
        roff.to_writer(&mut text)?;
    }
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

fn section(text: &mut Vec<u8>, title: &str, entries: &[(&str, &str)]) -> Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (what, meaning) in entries {
        roff.control("TP", []).text([bold(*what)]).text([roman(*meaning)]);
    }
    Ok(roff.to_writer(text)?)
}
