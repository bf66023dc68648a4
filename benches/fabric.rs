//! kolo's link over libfabric beside a bare ping-pong over the same provider (`fabric/raw.c`), two processes each.
//!
//! `cargo bench --bench fabric` prints microseconds one way, the two alternating: medians of the passes, and the median
//! of the passes' ratios. `KOLO_LIBFABRIC` chooses the library. It needs libfabric, its headers and a C compiler.

#[allow(dead_code)]
mod support;

use std::hint::spin_loop;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use kolo::config;
use kolo::health::Deadline;
use kolo::kernel;
use kolo::memory::{Bell, View};
use kolo::transport::fabric::{Endpoint, Stream, link_over};
use kolo::transport::{Lent, Link, Received, Size, Tag, Terms};
use support::pin;

const TAG: Tag = Tag { digest: 7, body: [1, 2, 3, 4] };
const PASSES: usize = 5;
const BATCHES: usize = 15;
/// Batches that do not count.
const WARM: usize = 2;
/// From so many bytes on, messages are lent and received in place, as the engine does.
const LONG: usize = 16 << 10;
const SIZES: [usize; 9] = [8, 64, 1 << 10, 8 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Tells the other process which provider to use.
const OTHER: &str = "KOLO_BENCH_FABRIC";

/// Round trips in a batch.
fn rounds(bytes: usize) -> usize {
    (4 << 20) / (bytes + (2 << 10)) + 2
}

fn library() -> Option<PathBuf> {
    std::env::var_os("KOLO_LIBFABRIC").map(PathBuf::from)
}

fn endpoint(provider: &str) -> Result<Arc<Endpoint>, String> {
    let settings = config::Fabric { library: library(), provider: Some(provider.to_owned()) };
    Endpoint::open(&settings, Some("127.0.0.1"))
}

/// One end of a link to the process at the other end of the stream.
fn end(endpoint: &Arc<Endpoint>, provider: &str, stream: UnixStream, leads: bool) -> Box<dyn Link> {
    use std::io::{Read, Write};
    let mut stream = stream;
    let bell = Bell::new().expect("a bell");
    let stream = match provider {
        "shm" => Stream::Unix(stream),
        _ if leads => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            stream.write_all(&port.to_le_bytes()).expect("the other process is there");
            Stream::Tcp(listener.accept().expect("a connection").0.into())
        }
        _ => {
            let mut port = [0; 2];
            stream.read_exact(&mut port).expect("the other process is there");
            let port = u16::from_le_bytes(port);
            Stream::Tcp(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection").into())
        }
    };
    link_over(endpoint, stream, &bell, Deadline::after(None)).expect("a link")
}

fn send(link: &dyn Link, bytes: &[u8]) {
    for piece in bytes.chunks(link.limits().slot) {
        loop {
            let sent = match piece.len() {
                ..LONG => link.send(View::read(piece), &TAG).expect("the peer is there"),
                _ => {
                    let terms = Terms::Read { whole: View::read(bytes), size: Size::Huge };
                    let lent = link.lend(&[View::read(piece)], terms, &TAG).expect("the peer is there");
                    assert_ne!(lent, Lent::Never);
                    lent == Lent::Yes
                }
            };
            if sent {
                break;
            }
            spin_loop();
        }
    }
}

fn receive(link: &dyn Link, bytes: &mut [u8]) {
    for piece in bytes.chunks_mut(link.limits().slot) {
        loop {
            if piece.len() >= LONG {
                match link.receive(View::write(piece), TAG.digest).expect("the peer is there") {
                    Received::Yes => break,
                    Received::Later => continue,
                    Received::Peek => {}
                }
            }
            if let Some(message) = link.peek().expect("the peer is there") {
                kernel::copy(&[View::write(piece)], message.payload);
                link.release().expect("it was peeked");
                break;
            }
        }
    }
}

fn settle(link: &dyn Link) {
    while !link.settled().expect("the peer is there") {
        spin_loop();
    }
}

/// Nanoseconds one way: the median of batches.
fn ping_pong(link: &dyn Link, bytes: usize, leads: bool) -> f64 {
    let (out, mut into) = (vec![1; bytes], vec![2; bytes]);
    let rounds = rounds(bytes);
    let mut times = Vec::with_capacity(BATCHES);
    for batch in 0..WARM + BATCHES {
        let begun = Instant::now();
        for _ in 0..rounds {
            if leads {
                send(link, &out);
            }
            receive(link, &mut into);
            if !leads {
                send(link, &out);
            }
            settle(link);
        }
        if batch >= WARM {
            times.push(begun.elapsed().as_nanos() as f64 / rounds as f64 / 2.0);
        }
    }
    median(times)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// What the other process does: the same sizes, as often.
fn other(provider: &str) {
    pin(1);
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a stream"));
    let endpoint = endpoint(provider).expect("an endpoint");
    let link = end(&endpoint, provider, stream, false);
    for _ in 0..PASSES {
        for bytes in SIZES {
            // While the bare one runs.
            receive_patiently(&*link);
            ping_pong(&*link, bytes, false);
        }
    }
}

/// Waits for an empty message without taking the core from others.
fn receive_patiently(link: &dyn Link) {
    while link.peek().expect("the peer is there").is_none() {
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    link.release().expect("it was peeked");
}

fn raw(program: &Path, provider: &str, bytes: usize) -> f64 {
    let mut command = Command::new(program);
    if let Some(folder) = library().as_deref().and_then(Path::parent) {
        command.env("LD_LIBRARY_PATH", folder);
    }
    let output = command.args([provider, &bytes.to_string(), &rounds(bytes).to_string()]).output();
    let output = output.expect("the bare ping-pong runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// The bare ping-pong, compiled; nothing where it cannot be.
fn compile(folder: &Path) -> Option<PathBuf> {
    let program = folder.join("raw");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/fabric/raw.c");
    let mut command = Command::new("cc");
    command.args(["-O2", "-D_GNU_SOURCE", "-o"]).arg(&program).arg(source).arg("-lfabric");
    command.status().is_ok_and(|status| status.success()).then_some(program)
}

fn compare(program: &Path, provider: &str) {
    let endpoint = match endpoint(provider) {
        Ok(endpoint) => endpoint,
        Err(why) => return println!("{provider}: {why}"),
    };
    println!("{endpoint:?}\n{:>9} {:>10} {:>10} {:>6}", "bytes", "kolo us", "raw us", "ratio");
    let (mine, theirs) = UnixStream::pair().expect("a pair of sockets");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env(OTHER, provider)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("another process");
    pin(0);
    let link = end(&endpoint, provider, mine, true);
    let mut times = vec![Vec::new(); SIZES.len()];
    for _ in 0..PASSES {
        for (bytes, times) in SIZES.into_iter().zip(&mut times) {
            let bare = raw(program, provider, bytes);
            while !link.send(View::empty(), &TAG).expect("the peer is there") {}
            settle(&*link);
            times.push((ping_pong(&*link, bytes, true), bare));
        }
    }
    for (bytes, times) in SIZES.into_iter().zip(times) {
        let kolo = median(times.iter().map(|(kolo, _)| *kolo).collect()) / 1e3;
        let bare = median(times.iter().map(|(_, bare)| *bare).collect()) / 1e3;
        let ratio = median(times.iter().map(|(kolo, bare)| kolo / bare).collect());
        println!("{bytes:>9} {kolo:>10.2} {bare:>10.2} {ratio:>6.2}");
    }
    drop(link);
    let _ = child.wait();
}

fn main() {
    if let Ok(provider) = std::env::var(OTHER) {
        return other(&provider);
    }
    let folder = std::env::temp_dir().join(format!("kolo-bench-fabric-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the bare ping-pong");
    match compile(&folder) {
        Some(program) => ["tcp", "shm"].into_iter().for_each(|provider| compare(&program, provider)),
        None => println!("the bare ping-pong cannot be compiled: it takes cc and libfabric-dev"),
    }
    let _ = std::fs::remove_dir_all(&folder);
}
