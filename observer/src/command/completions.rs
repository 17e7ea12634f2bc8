//! `observer completions`: what a shell needs to complete this command line. Reads nothing but the command line's own
//! description.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;

#[derive(clap::Args)]
pub struct Arguments {
    /// Whose: in bash, `source <(observer completions bash)`
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub fn run(arguments: &Arguments, mut command: clap::Command) -> Result<ExitCode> {
    // The generator panics where nobody reads.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "observer", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
