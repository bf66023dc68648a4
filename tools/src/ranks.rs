//! How `bench` and `train` come by their ranks.
//!
//! | where we run                  | the ranks are                                        |
//! | ----------------------------- | ---------------------------------------------------- |
//! | under a launcher              | what it started; this process is one of them         |
//! | alone, with transport `local` | threads of this process                              |
//! | alone                         | this very command line, started once for each rank   |

use anyhow::Result;
use kolo::Communicator;
use kolo::config::{Config, Launcher};

use crate::failure::{is_echo, usage};
use crate::launch::Job;

/// The transport whose ranks are threads of one process.
const LOCAL: &str = "local";

/// What a command needs of its ranks.
pub(crate) struct Ranks<'a> {
    /// How many were asked for.
    pub(crate) asked: Option<usize>,
    /// How many to start where nobody asked and nobody started any.
    pub(crate) default: usize,
    /// Over which transports; all where none are named.
    pub(crate) transport: Option<&'a str>,
}

impl Ranks<'_> {
    /// Runs `main` as every rank and returns the exit code. `check` sees the number of ranks, and whether
    /// this process is the one that prepares files, before anybody waits.
    pub(crate) fn run(
        &self,
        check: impl Fn(usize, bool) -> Result<()>,
        main: impl Fn(Communicator) -> Result<u8> + Sync,
    ) -> Result<u8> {
        let mut config = Config::from_env()?;
        if let Some(names) = self.transport {
            config.transports = Some(names.split(',').map(str::to_owned).collect());
        }
        if config.launcher != Launcher::None {
            self.fit(&config)?;
            check(config.size, config.rank == 0)?;
            return main(Communicator::join(&config)?);
        }
        let ranks = self.asked.unwrap_or(self.default);
        check(ranks, true)?;
        if self.transport == Some(LOCAL) {
            return as_threads(Communicator::threads(ranks, &config)?, main);
        }
        let mut job = Job::ourselves(ranks);
        job.environment.extend(self.transport.map(|names| ("KOLO_TRANSPORT".into(), names.into())));
        job.run()
    }

    /// Whether what was asked for is what a launcher started.
    fn fit(&self, config: &Config) -> Result<()> {
        let size = config.size;
        if self.asked.is_some_and(|ranks| ranks != size) {
            return Err(usage(format!("--ranks: the launcher started {size}")));
        }
        if size > 1 && self.transport == Some(LOCAL) {
            return Err(usage(
                "--transport local: its ranks are threads of one process, which no launcher starts",
            ));
        }
        Ok(())
    }
}

fn as_threads(ranks: Vec<Communicator>, main: impl Fn(Communicator) -> Result<u8> + Sync) -> Result<u8> {
    let main = &main;
    let codes: Vec<Result<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(move || main(rank))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank panicked")).collect()
    });
    // Where one rank failed on its own account, the others only tell of the loss of it.
    let mut worst = 0;
    let mut echo = None;
    for code in codes {
        match code {
            Ok(code) => worst = worst.max(code),
            Err(error) if is_echo(&error) => echo = echo.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    echo.map_or(Ok(worst), Err)
}
