//! A rank that is a process of its own, started by a test: says a line at a time, and is killed when it is dropped.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A rank that runs.
pub struct Rank {
    pub child: Child,
    out: BufReader<ChildStdout>,
}

impl Rank {
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it can be run");
        let out = BufReader::new(child.stdout.take().expect("it is a pipe"));
        Self { child, out }
    }

    /// The next thing that it [says](say); nothing if it has ended.
    pub fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.out.read_line(&mut line).expect("text") > 0 {
            if let Some(said) = line.strip_prefix("said ") {
                return Some(said.trim_end().to_owned());
            }
            line.clear();
        }
        None
    }

    /// Lets it go on from where it waits for a word.
    pub fn tell(&mut self) {
        let words = self.child.stdin.as_mut().expect("it is a pipe");
        // One that has been killed does not listen: what it says next is missed.
        let _ = words.write_all(b"\n");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child may be sent any signal");
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        // One that has ended is no harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the test [tells](Rank::tell) it to go on: nobody ends while others still ask.
pub fn wait_for_a_word() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the test holds the other end");
}

/// What a rank says to the test, in one write that begins a line: what the test runner has printed may stand on the last
/// one.
pub fn say(words: &str) {
    std::io::stdout().write_all(format!("\nsaid {words}\n").as_bytes()).expect("a test reads this");
}
