//! The text: found and read by rank 0, the same bytes on every rank; and which bytes a step sees.

use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::BEGIN;
use crate::model::stage::Batch;
use crate::parallel::group::Group;
use crate::random::Stream;

/// The most bytes of text that are taken: every rank holds all of it in memory.
const LIMIT: u64 = 1 << 30;

/// The text to train on.
pub(crate) struct Text {
    /// The files one after the other, each behind a byte that begins a text.
    bytes: Vec<u8>,
}

impl Text {
    /// Hands what rank 0 has read to all ranks; where it failed, rank 0 returns its error and all others
    /// [`Error::Root`]. Other ranks' `read` is not looked at.
    pub(crate) fn share(mut read: Result<Vec<u8>>, world: &mut Group) -> Result<Self> {
        const FAILED: u64 = u64::MAX;
        let mut len = [read.as_ref().map_or(FAILED, |bytes| bytes.len() as u64)];
        world.broadcast(&mut len)?;
        if len[0] == FAILED {
            return Err(read.err().unwrap_or(Error::Root));
        }
        if let Ok(bytes) = &mut read {
            bytes.resize(usize::try_from(len[0]).unwrap_or(usize::MAX), 0);
            world.broadcast(bytes)?;
        }
        Ok(Self { bytes: read? })
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The sequences `samples` of a whole run's numbering, each from a random place that depends on (seed,
    /// number) alone.
    pub(crate) fn batch(&self, seed: u64, samples: std::ops::Range<usize>, context: usize) -> Batch {
        let places = Stream::new(seed, "data");
        let mut batch = Batch::default();
        for sample in samples {
            let start = places.below(sample as u64, (self.bytes.len() - context) as u64) as usize;
            let window = &self.bytes[start..=start + context];
            batch.tokens.extend_from_slice(&window[..context]);
            batch.targets.extend_from_slice(&window[1..]);
        }
        batch
    }
}

/// The text of all paths (none: the current folder), at least one sequence of `context` bytes long.
pub(crate) fn read_all(paths: &[PathBuf], context: usize) -> Result<Vec<u8>> {
    let here;
    let paths = if paths.is_empty() {
        here = [env::current_dir().map_err(|cause| Error::file("find", Path::new("."), cause))?];
        &here[..]
    } else {
        paths
    };
    let mut bytes = Vec::new();
    for path in paths {
        let kind = fs::metadata(path).map_err(|cause| Error::file("read", path, cause))?;
        if kind.is_dir() {
            read_folder(path, &mut bytes)?;
        } else {
            match read_file(path, bytes.len())? {
                Some(text) => append(&mut bytes, &text),
                None => {
                    let path = path.display();
                    return Err(Error::Text(format!("{path} is no text: it is not UTF-8 or has zero bytes")));
                }
            }
        }
    }
    let names = || paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    if bytes.is_empty() {
        return Err(Error::Text(format!("no text in {}: name other files or folders", names())));
    }
    if bytes.len() <= context {
        let (found, needed) = (bytes.len() - 1, context + 1);
        return Err(Error::Text(format!(
            "the text in {} is too short: {found} bytes, one sequence needs {needed}",
            names()
        )));
    }
    Ok(bytes)
}

/// Appends the text files in a folder and the folders below it, in the order of their names; leaves out
/// what is hidden, a link, built by cargo or another tool that marks its output, or no text.
fn read_folder(folder: &Path, bytes: &mut Vec<u8>) -> Result<()> {
    let failed = |cause| Error::file("read", folder, cause);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().map_err(|cause| Error::file("read", &path, cause))?;
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() && name != "target" && !path.join("CACHEDIR.TAG").exists() {
            read_folder(&path, bytes)?;
        } else if kind.is_file()
            && let Some(text) = read_file(&path, bytes.len())?
        {
            append(bytes, &text);
        }
    }
    Ok(())
}

/// A file's bytes, or nothing if they are no text. `taken` bytes count against the limit already.
fn read_file(path: &Path, taken: usize) -> Result<Option<Vec<u8>>> {
    let failed = |cause| Error::file("read", path, cause);
    let file = fs::File::open(path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(failed)?;
    if (taken + text.len()) as u64 > LIMIT {
        let path = path.display();
        return Err(Error::Text(format!(
            "with {path} the text exceeds {} MiB: name less of it",
            LIMIT >> 20
        )));
    }
    if text.contains(&BEGIN) || std::str::from_utf8(&text).is_err() {
        return Ok(None);
    }
    Ok(Some(text))
}

fn append(bytes: &mut Vec<u8>, text: &[u8]) {
    if !text.is_empty() {
        bytes.push(BEGIN);
        bytes.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own for each test, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("kolo-trainer-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn says(paths: &[PathBuf]) -> String {
        read_all(paths, 8).unwrap_err().to_string()
    }

    #[test]
    fn folders_are_walked_in_order_and_only_for_text() {
        let folder = Folder::new("walk");
        folder.write("b.txt", b"second");
        folder.write("a/z.txt", b"first");
        folder.write("c.bin", b"nul\0");
        folder.write("d.bin", b"\xff\xfe");
        folder.write(".hidden", b"hidden");
        folder.write(".git/config", b"hidden");
        folder.write("target/debug.txt", b"built");
        folder.write("out/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");
        folder.write("out/cached.txt", b"built");
        folder.write("empty.txt", b"");
        assert_eq!(read_all(std::slice::from_ref(&folder.0), 8).unwrap(), b"\0first\0second");
        // A folder named outright is read, whatever its name.
        assert_eq!(read_all(&[folder.0.join("target")], 4).unwrap(), b"\0built");
    }

    #[test]
    fn bad_text_gets_one_clear_line() {
        let folder = Folder::new("bad");
        let path = |name: &str| folder.0.join(name).display().to_string();
        let missing = says(&[folder.0.join("missing")]);
        assert!(missing.starts_with(&format!("cannot read {}: No such file", path("missing"))), "{missing}");
        let binary = folder.write("binary", b"\x7fELF\0");
        assert_eq!(
            says(&[binary]),
            format!("{} is no text: it is not UTF-8 or has zero bytes", path("binary"))
        );
        let empty = folder.write("empty", b"");
        assert_eq!(says(&[empty]), format!("no text in {}: name other files or folders", path("empty")));
        let short = folder.write("short", b"seven b");
        assert_eq!(
            says(&[short]),
            format!("the text in {} is too short: 7 bytes, one sequence needs 9", path("short"))
        );
    }

    #[test]
    fn sequences_depend_on_seed_and_number_alone() {
        let text = Text { bytes: (0..=255).collect() };
        let whole = text.batch(5, 0..6, 10);
        let part = text.batch(5, 2..4, 10);
        assert_eq!(whole.tokens[20..40], part.tokens);
        assert_eq!(whole.targets[20..40], part.targets);
        assert!(part.tokens.iter().zip(&part.targets).all(|(&a, &b)| b == a + 1));
        assert_ne!(text.batch(6, 2..4, 10).tokens, part.tokens);
        // Every place occurs, the last one too, and none beyond it.
        let starts: std::collections::HashSet<u8> =
            (0..5000).map(|sample| text.batch(5, sample..sample + 1, 250).tokens[0]).collect();
        assert_eq!(starts, (0..6).collect());
    }
}
