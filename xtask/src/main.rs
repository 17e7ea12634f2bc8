//! Everything a person does more than once with this repository, one verb a file.

mod bench;
mod build;
mod checkout;
mod deb;
mod demo;
mod go_layouts;
mod image;
mod interrupt;
mod kubelet;
mod lint;
mod packages;
mod place;
mod pods;
mod rules;
mod run;
mod setup;
mod test;
mod validate;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Watch observer find the leak of a demo service: installs what is missing, builds, runs, stops again
    Demo(demo::Options),
    /// Run the tests: `unit` needs no root and no eBPF toolchain, `root` is the rest, both by
    /// default; `vm` boots other kernels, `pods` plays pods, `packages` installs the Debian package
    Test(test::Options),
    /// Install what demo and tests need, or with --check only say what that is
    Setup(setup::Options),
    /// Measure what observing costs, beside the same work unobserved (as root; prints a table, judges nothing)
    Bench(bench::Options),
    /// Build the container images, from local files only (as root)
    Image(image::Options),
    /// Check format, lints (with and without eBPF), licences and dependencies
    Lint(lint::Options),
    /// Check what deploy/ ships against the schemas of Kubernetes, the Prometheus operator and Grafana, offline
    Validate,
    /// Run the pods of deploy/ on a real kubelet, built from Debian's source (by hand: some minutes and 2 GB, once)
    Kubelet,
    /// Make the operator's PrometheusRule from deploy/prometheus/rules.yml
    Rules,
    /// Build the Debian package: program, service, manual, completions
    Deb(deb::Options),
    /// Read the Go runtime's struct offsets from installed toolchains into observer's table
    GoLayouts(go_layouts::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    interrupt::watch();
    let done = match &arguments.verb {
        Verb::Demo(options) => demo::demo(options),
        Verb::Test(options) => test::test(options),
        Verb::Setup(options) => setup::setup(options),
        Verb::Bench(options) => bench::bench(options),
        Verb::Image(options) => image::image(options),
        Verb::Lint(options) => lint::lint(options),
        Verb::Validate => validate::validate(),
        Verb::Kubelet => kubelet::kubelet(),
        Verb::Rules => rules::rules(),
        Verb::Deb(options) => deb::deb(options),
        Verb::GoLayouts(options) => go_layouts::go_layouts(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
