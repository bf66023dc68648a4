//! `kolo doctor`: what this machine offers, what the environment says, and why a transport is out.

mod environment;
mod machine;

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

pub(crate) use environment::{Where, reach};

const EXAMPLES: &str = "\
Examples:
  kolo doctor
  kolo doctor --json > machine.json
  kolo run -n 2 -- kolo doctor             what a rank sees";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Facts of one kind.
#[derive(Serialize)]
struct Section {
    title: &'static str,
    facts: Vec<Fact>,
}

/// One thing that was found out.
#[derive(Serialize)]
struct Fact {
    name: String,
    value: String,
    /// Whether it is as one would wish; `None` where there is nothing to wish.
    good: Option<bool>,
}

impl Fact {
    /// Something that is neither good nor bad.
    fn plain(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), good: None }
    }

    /// Something that is there, or why it is not.
    fn found<E: std::fmt::Display>(name: impl Into<String>, found: Result<String, E>) -> Self {
        let good = Some(found.is_ok());
        Self { name: name.into(), value: found.unwrap_or_else(|why| format!("no: {why}")), good }
    }
}

#[derive(Serialize)]
struct Findings {
    /// The version of this form.
    format: u32,
    kolo: &'static str,
    sections: Vec<Section>,
}

/// Looks around and tells.
pub(crate) fn doctor(options: &Options) -> Result<u8> {
    let section = |title, facts| Section { title, facts };
    let findings = Findings {
        format: 1,
        kolo: env!("CARGO_PKG_VERSION"),
        sections: vec![
            section("machine", machine::machine()),
            section("kernel", machine::kernel()),
            section("network", machine::network()),
            section("launcher", environment::launcher()),
            section("settings", environment::settings()),
            section("transports", environment::transports()),
            section("libfabric", environment::libfabric()),
            section("installed", environment::installed()),
        ],
    };
    let mut out = anstream::AutoStream::auto(io::stdout()).lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        print(&findings, &mut out)?;
    }
    Ok(0)
}

fn print(findings: &Findings, out: &mut impl Write) -> io::Result<()> {
    const GREEN: &str = "\x1b[32m";
    const RED: &str = "\x1b[31m";
    const BOLD: &str = "\x1b[1m";
    const OFF: &str = "\x1b[0m";
    writeln!(out, "{BOLD}kolo {}{OFF}", findings.kolo)?;
    for Section { title, facts } in &findings.sections {
        writeln!(out, "\n{BOLD}{title}{OFF}")?;
        let width = facts.iter().map(|fact| fact.name.chars().count()).max().unwrap_or(0);
        for Fact { name, value, good } in facts {
            let mark = match good {
                Some(true) => format!("{GREEN}✓{OFF}"),
                Some(false) => format!("{RED}✗{OFF}"),
                None => " ".to_owned(),
            };
            writeln!(out, "  {mark} {name:width$}  {value}")?;
        }
    }
    Ok(())
}
