//! The program `kolo`.

mod bench;
mod failure;
mod launch;
mod plan;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  kolo run -n 4 -- ./my_program        start a program as four ranks
  kolo doctor                          what this machine offers";

/// Collective communication: launch, measure, explain, train
#[derive(Parser, Debug)]
#[command(name = "kolo", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a program as the ranks of a job on this machine
    Run(run::Options),
    /// Measure a collective, and check every element
    Bench(bench::Options),
    /// Show, prove and price plans
    Plan(plan::Options),
    /// (the launcher's own: keeps a job's process group)
    #[command(name = launch::KEEP, hide = true)]
    Keep,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_parse(&error).into(),
    };
    let code = match cli.command {
        Command::Run(options) => run::run(options),
        Command::Bench(options) => bench::bench(&options),
        Command::Plan(options) => plan::plan(&options),
        Command::Keep => launch::keep(),
    };
    code.unwrap_or_else(|error| failure::report(&error)).into()
}
