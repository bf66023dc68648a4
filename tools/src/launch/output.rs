//! The ranks' output: whole lines, tagged by rank, through one writer.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A line longer than this is cut: no rank may fill the launcher's memory.
const LONGEST_LINE: u64 = 1 << 20;

/// Lines that may wait for a slow reader before ranks are made to wait.
const WAITING_LINES: usize = 256;

/// How long a pipe that outlives the job must be silent to be given up.
const QUIET: Duration = Duration::from_millis(200);

/// Which of the launcher's streams a line goes to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Out,
    Err,
}

/// Takes lines to the launcher's own streams, in the order in which they come.
#[derive(Clone)]
pub(super) struct Printer {
    lines: mpsc::Sender<(Stream, Vec<u8>)>,
    tagged: bool,
}

impl Printer {
    /// Starts the writer. The receiver hears of it if standard output can be written no more.
    pub(super) fn start(tagged: bool) -> (Self, JoinHandle<()>, oneshot::Receiver<io::Error>) {
        let (lines, queue) = mpsc::channel(WAITING_LINES);
        let (broken, hear) = oneshot::channel();
        let writer = tokio::task::spawn_blocking(move || write(queue, broken));
        (Self { lines, tagged }, writer, hear)
    }

    /// Prints one line of the launcher's own on standard error.
    pub(super) async fn say(&self, line: &str) {
        let _ = self.lines.send((Stream::Err, format!("kolo: {line}\n").into_bytes())).await;
    }

    /// Copies what a rank writes, line by line, until its end is closed; or, once the job has `ended` and
    /// only a stranger can hold that end open, until nothing comes for a while.
    pub(super) async fn copy(
        self,
        from: impl AsyncRead + Unpin,
        rank: usize,
        stream: Stream,
        mut ended: watch::Receiver<bool>,
    ) {
        let tag = if self.tagged { tag(rank, stream) } else { String::new() };
        let mut from = BufReader::new(from);
        loop {
            let mut line = tag.clone().into_bytes();
            let mut bounded = (&mut from).take(LONGEST_LINE);
            let read = tokio::select! {
                biased;
                read = bounded.read_until(b'\n', &mut line) => read,
                () = quiet_after(&mut ended) => return,
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            if self.lines.send((stream, line)).await.is_err() {
                return;
            }
        }
    }
}

async fn quiet_after(ended: &mut watch::Receiver<bool>) {
    let _ = ended.wait_for(|&ended| ended).await;
    sleep(QUIET).await;
}

fn write(mut queue: mpsc::Receiver<(Stream, Vec<u8>)>, broken: oneshot::Sender<io::Error>) {
    while let Some((stream, line)) = queue.blocking_recv() {
        let written = match stream {
            Stream::Out => io::stdout().write_all(&line).and_then(|()| io::stdout().flush()),
            // Nobody can be told that standard error is gone.
            Stream::Err => io::stderr().write_all(&line).or(Ok(())),
        };
        if let Err(error) = written {
            let _ = broken.send(error);
            return;
        }
    }
}

/// `[2] `, coloured by rank where the stream is a terminal that wants colours.
fn tag(rank: usize, stream: Stream) -> String {
    const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];
    let coloured = match stream {
        Stream::Out => wants_colour(&io::stdout()),
        Stream::Err => wants_colour(&io::stderr()),
    };
    match coloured {
        true => format!("\x1b[{}m[{rank}]\x1b[0m ", COLOURS[rank % COLOURS.len()]),
        false => format!("[{rank}] "),
    }
}

fn wants_colour<S: anstream::stream::RawStream + IsTerminal>(stream: &S) -> bool {
    anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never
}
