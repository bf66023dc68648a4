//! The program `kolo`.

mod bench;
mod cause;
mod doctor;
mod failure;
mod launch;
mod plan;
mod ranks;
mod run;
mod status;
mod trace;
mod train;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  kolo run -n 4 -- ./my_program        start a program as four ranks
  kolo bench all_reduce -n 2 --check   measure a collective, and check every element
  kolo train --ranks 4 --tp 2 --pp 2   train on the text of this folder
  kolo plan show all_reduce --algorithm ring --ranks 4
  kolo status                          where each rank of a running job is, and who waits for whom
  kolo trace records                   who was to blame when a job failed
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
    /// Train a transformer whose parallelism runs through kolo's collectives
    Train(train::Options),
    /// Show, prove and price plans
    Plan(plan::Options),
    /// Where each rank of a running job is, and who waits for whom
    Status(status::Options),
    /// Merge what ranks wrote down when their calls failed, and name who is to blame
    Trace(trace::Options),
    /// What this machine offers, and why a transport is out
    Doctor(doctor::Options),
    /// Print completions for a shell
    Completions(Completions),
    /// (the launcher's own: keeps a job's process group)
    #[command(name = launch::KEEP, hide = true)]
    Keep,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  kolo completions bash > ~/.local/share/bash-completion/completions/kolo
  kolo completions zsh > ~/.zfunc/_kolo
  kolo completions fish > ~/.config/fish/completions/kolo.fish";

#[derive(Args, Debug)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
struct Completions {
    /// The shell
    shell: Shell,
}

fn completions(options: &Completions) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "kolo", &mut script);
    io::stdout().write_all(&script)?;
    Ok(0)
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_parse(&error).into(),
    };
    let code = match cli.command {
        Command::Run(options) => run::run(options),
        Command::Bench(options) => bench::bench(&options),
        Command::Train(options) => train::train(&options),
        Command::Plan(options) => plan::plan(&options),
        Command::Status(options) => status::status(&options),
        Command::Trace(options) => trace::trace(&options),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Completions(options) => completions(&options),
        Command::Keep => launch::keep(),
    };
    code.unwrap_or_else(|error| failure::report(&error)).into()
}
