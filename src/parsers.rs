//! Everything that reads what another process wrote, as one list: the fuzz targets and a test run it.
//!
//! To add a parser: a probe beside it, a line here, a line in `fuzz/Cargo.toml`. Probes check more than that nothing
//! panics: what is read and written again is the same, lengths are bounded before memory is taken, and what came does
//! not depend on how it was cut into reads.

use crate::{bootstrap, config, health, transport};

/// A parser, and what is known to be worth trying on it.
pub struct Parser {
    /// The target's name, and its corpus's.
    pub name: &'static str,
    /// Panics where one of its promises is broken.
    pub probe: fn(&[u8]),
    /// Messages that it takes, and near misses, by name.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
}

/// All of them.
pub const ALL: &[Parser] = &[
    Parser { name: "hello", probe: bootstrap::probes::hello, seeds: bootstrap::probes::hellos },
    Parser { name: "dialer", probe: bootstrap::probes::dialer, seeds: bootstrap::probes::verdicts },
    Parser { name: "answer", probe: bootstrap::probes::answer, seeds: bootstrap::probes::answered },
    Parser { name: "card", probe: bootstrap::probes::card, seeds: bootstrap::probes::cards },
    Parser { name: "hub", probe: bootstrap::probes::hub, seeds: bootstrap::probes::inboxes },
    Parser { name: "spoke", probe: bootstrap::probes::spoke, seeds: bootstrap::probes::answers },
    Parser { name: "seat", probe: bootstrap::probes::seat, seeds: bootstrap::probes::seats },
    Parser { name: "pmi", probe: bootstrap::probes::pmi, seeds: bootstrap::probes::launchers },
    Parser { name: "environment", probe: config::probes::environment, seeds: config::probes::environments },
    Parser { name: "secret_file", probe: config::probes::secret_file, seeds: config::probes::secret_files },
    Parser { name: "record", probe: health::probes::record, seeds: health::probes::records },
    Parser { name: "tcp", probe: transport::tcp::probes::stream, seeds: transport::tcp::probes::streams },
    Parser {
        name: "fabric",
        probe: transport::fabric::probes::head,
        seeds: transport::fabric::probes::heads,
    },
    Parser { name: "shm", probe: transport::shm::probes::hello, seeds: transport::shm::probes::hellos },
];

/// Runs one parser, for a fuzz target.
pub fn run(name: &str, bytes: &[u8]) {
    let parser = ALL.iter().find(|parser| parser.name == name).expect("a target is named after a parser");
    (parser.probe)(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn corpus(parser: &Parser) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(parser.name)
    }

    #[test]
    fn every_seed_and_every_cut_of_it_keeps_the_promises() {
        for parser in ALL {
            let mut files = 0;
            for entry in fs::read_dir(corpus(parser)).expect("each parser has a corpus") {
                let bytes = fs::read(entry.unwrap().path()).unwrap();
                (parser.probe)(&bytes);
                (parser.probe)(&bytes[..bytes.len() / 2]);
                files += 1;
            }
            assert!(files > 0, "{} has no seeds", parser.name);
            for (_, bytes) in (parser.seeds)() {
                (parser.probe)(&bytes);
                for end in 0..bytes.len().min(300) {
                    (parser.probe)(&bytes[..end]);
                }
                for at in 0..bytes.len().min(300) {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 0x80 | 1 << (at % 7);
                    (parser.probe)(&bytes);
                }
            }
        }
    }

    #[test]
    fn every_parser_has_a_target() {
        let manifest = include_str!("../fuzz/Cargo.toml");
        for parser in ALL {
            assert!(manifest.contains(&format!("name = \"{}\"", parser.name)), "{}", parser.name);
        }
    }

    #[test]
    #[ignore = "writes fuzz/corpus"]
    fn write_the_seeds() {
        for parser in ALL {
            fs::create_dir_all(corpus(parser)).unwrap();
            for (name, bytes) in (parser.seeds)() {
                fs::write(corpus(parser).join(name), bytes).unwrap();
            }
        }
    }
}
