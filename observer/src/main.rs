//! Arguments, logging, exit code.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use observer::command::{self, Usage, attach, completions, doctor, man, replay, run, snapshot};
use observer::config::LogOptions;
use observer::process::memory::truncated;
use tracing_subscriber::EnvFilter;

/// Says who keeps a process's memory: which goroutines or threads hang where, how many, how fast they
/// grow, and what they hold. Reads the process from outside and changes nothing in it.
#[derive(Parser)]
#[command(name = "observer", version = command::VERSION, arg_required_else_help = true, max_term_width = 100,
    after_help = command::examples())]
struct Arguments {
    /// Log more: once for what is done, twice for details, three times for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 900)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch a process for a while and say who keeps its memory
    Attach(attach::Arguments),
    /// Give the diagnosis of what `attach --record` kept, again
    Replay(replay::Arguments),
    /// Show what a process's goroutines and threads are doing at this moment
    Snapshot(snapshot::Arguments),
    /// Watch processes for as long as they run: metrics for Prometheus, a page to look at, alerts
    Run(Box<run::Arguments>),
    /// Say what this machine, this kernel, these capabilities and a process allow
    Doctor(doctor::Arguments),
    /// Print the completions of this command line for a shell
    Completions(completions::Arguments),
    /// Write the manual pages, one a command
    Man(man::Arguments),
}

/// Exit code for wrong arguments.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    unblock_signals();
    if let Err(error) = truncated::survive() {
        // Nothing that anybody would miss, until somebody cuts a library short.
        let _ = writeln!(io::stderr(), "observer: SIGBUS stays deadly: {error}");
    }
    let result = execute(&arguments);
    match result {
        Ok(code) => code,
        // The reader of our output has seen enough (`observer snapshot 1 | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "observer: {}", observer::error_line::error_line(&error));
            if error.is::<Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn execute(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let log = || log_to_stderr(arguments.verbose, &LogOptions::default());
    match &arguments.command {
        Command::Attach(arguments) => {
            log();
            attach::run(arguments)
        }
        Command::Replay(arguments) => {
            log();
            replay::run(arguments)
        }
        Command::Snapshot(arguments) => {
            log();
            snapshot::run(arguments)
        }
        // How it logs is part of its configuration.
        Command::Run(run) => {
            let config = run.load()?;
            log_to_stderr(arguments.verbose.max(1), &config.log);
            run::run(run, &config)
        }
        Command::Doctor(arguments) => {
            log();
            doctor::run(arguments)
        }
        Command::Completions(arguments) => completions::run(arguments, Arguments::command()),
        Command::Man(arguments) => man::run(arguments, Arguments::command()),
    }
}

/// Wrong arguments in one line, as every other error; help and version as clap writes them.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let page = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if page {
        // Where nobody reads it, there is nobody to tell.
        let _ = error.print();
    } else {
        let _ = writeln!(
            io::stderr(),
            "observer: {}",
            observer::error_line::usage_line(&error.render().to_string())
        );
    }
    if error.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(USAGE) }
}

/// A parent that waits for signals with `sigwait` leaves them blocked in its children: Ctrl-C would do nothing.
fn unblock_signals() {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    if let Err(error) = signals.thread_unblock() {
        tracing::warn!(%error, "signals stay blocked: end observer with SIGKILL");
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// `RUST_LOG` decides where it is set, then the configuration, `--verbose` otherwise; warnings and errors always show.
fn log_to_stderr(verbose: u8, options: &LogOptions) {
    let level = match verbose {
        0 => "warn",
        1 => "observer=info,warn",
        2 => "observer=debug,info",
        _ => "trace",
    };
    let level = options.level.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    if options.json {
        log.json().init();
    } else {
        log.init();
    }
}
