//! How the program ends when it cannot do what was asked: one line, and an exit code.

use std::fmt;
use std::io::{self, Write};

/// The exit code of what the person at the terminal can mend; everything else that fails exits with 1.
pub(crate) const USAGE: i32 = 2;

/// A wrong command line.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that says what is wrong with the command line.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Says what went wrong, on one line, and returns the exit code. A closed pipe is no failure: whoever
/// read has seen enough. What another rank says better is not said again.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if closed_pipe(error) {
        return 0;
    }
    if !said_elsewhere(error) {
        say(&format!("{error:#}"));
    }
    if error.chain().any(is_usage) { USAGE as u8 } else { 1 }
}

/// Whether an error only tells of the failure of another rank.
pub(crate) fn is_echo(error: &anyhow::Error) -> bool {
    said_elsewhere(error)
        || error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<kolo::Error>())
            .any(|error| error.kind() == kolo::Kind::PeerLost)
}

/// The same for what the command line's parser refused; help and version are asked for, not refused.
pub(crate) fn report_parse(error: &clap::Error) -> u8 {
    if !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        let _ = error.print();
        return error.exit_code() as u8;
    }
    say(&one_line(&error.render().to_string()));
    USAGE as u8
}

fn said_elsewhere(error: &anyhow::Error) -> bool {
    error.downcast_ref::<kolo_trainer::Error>().is_some_and(kolo_trainer::Error::is_echo)
}

fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<Usage>()
        || cause.downcast_ref::<kolo::Error>().is_some_and(|error| error.kind() == kolo::Kind::Usage)
        || cause.downcast_ref::<kolo_trainer::Error>().is_some_and(kolo_trainer::Error::is_usage)
}

fn closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "kolo: {line}");
}

/// The parser's message without its usage text: `unexpected argument '--rnaks' found; tip: ...`.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let paragraphs: Vec<String> = message
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|p| !p.is_empty() && !p.starts_with("Usage:") && !p.starts_with("For more information"))
        .collect();
    paragraphs.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_message_becomes_one_line() {
        let message = "error: invalid value 'f31' for '--dtype <D>'\n  [possible values: f32, f64]\n\n  \
                       tip: a similar value exists: 'f32'\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(message),
            "invalid value 'f31' for '--dtype <D>' [possible values: f32, f64]; \
             tip: a similar value exists: 'f32'"
        );
    }
}
