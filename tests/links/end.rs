//! One end of a link, and what a rank does with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kolo::Result;
use kolo::kernel;
use kolo::memory::{Bell, View};
use kolo::transport::fabric::Endpoint;
use kolo::transport::{Link, Received, Tag};

/// A wait this long means that a test will never end.
const NEVER: Duration = Duration::from_secs(30);

pub(crate) struct End {
    pub(crate) link: Box<dyn Link>,
    pub(crate) bell: Arc<Bell>,
    /// What must stay as long as the link.
    #[allow(dead_code)]
    pub(crate) keeps: Vec<Arc<Endpoint>>,
}

/// A message taken out of a link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tag: Tag,
}

impl End {
    pub(crate) fn new(link: Box<dyn Link>, bell: Arc<Bell>) -> Self {
        Self { link, bell, keeps: Vec::new() }
    }

    /// Sends a copy, if there is credit.
    pub(crate) fn try_send(&self, bytes: &[u8], tag: &Tag) -> Result<bool> {
        let Some(place) = self.link.reserve(bytes.len())? else { return Ok(false) };
        write(place, bytes);
        self.link.commit(bytes.len(), tag)?;
        Ok(true)
    }

    /// Takes the next message, if it has come.
    pub(crate) fn try_take(&self) -> Result<Option<Taken>> {
        let Some(message) = self.link.peek()? else { return Ok(None) };
        let tag = Tag { digest: message.digest, body: self.link.body() };
        let bytes = read(message.payload);
        self.link.release()?;
        Ok(Some(Taken { bytes, tag }))
    }

    /// Takes the next message, which is to have this tag and as many bytes as there is place for: in place, if the link can
    /// do that. To be tried again with the same place.
    pub(crate) fn try_receive(&self, into: &mut [u8], tag: &Tag) -> Result<Option<Taken>> {
        match self.link.receive(View::write(into), tag.digest)? {
            Received::Yes => Ok(Some(Taken { bytes: into.to_vec(), tag: *tag })),
            Received::Later => Ok(None),
            Received::Peek => self.try_take(),
        }
    }

    /// Looks until `look` finds something; between looks it sleeps, never spins.
    pub(crate) fn wait<R>(&self, mut look: impl FnMut(&Self) -> Result<Option<R>>) -> Result<R> {
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            let watches: Vec<_> = self.link.watch().into_iter().collect();
            self.bell.announce(!watches.is_empty());
            if let Some(found) = look(self).inspect_err(|_| self.bell.cancel())? {
                self.bell.cancel();
                return Ok(found);
            }
            let begun = Instant::now();
            self.bell.sleep(&watches, Some(NEVER))?;
            assert!(begun.elapsed() < NEVER, "nobody woke this rank");
        }
    }

    /// Waits until the peer is known to be gone, and until nothing of what it sent is left.
    pub(crate) fn wait_for_loss(&self) -> (Vec<Taken>, kolo::Error) {
        let begun = Instant::now();
        let mut taken = Vec::new();
        loop {
            let lost = self.link.alive();
            match self.try_take() {
                Ok(Some(message)) => taken.push(message),
                Err(error) => return (taken, error),
                Ok(None) => match lost {
                    Err(error) => return (taken, error),
                    Ok(()) => std::thread::yield_now(),
                },
            }
            assert!(begun.elapsed() < NEVER, "the loss went unnoticed");
        }
    }
}

/// Both ends, driven by one thread: looks until `look` finds something, with progress on both.
pub(crate) fn eventually<R>(ends: &[End; 2], mut look: impl FnMut() -> Result<Option<R>>) -> R {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().unwrap() {
            return found;
        }
        for end in ends {
            end.link.settled().unwrap();
        }
        std::thread::yield_now();
        assert!(begun.elapsed() < NEVER, "it never came");
    }
}

pub(crate) fn send(ends: &[End; 2], from: usize, bytes: &[u8], tag: &Tag) {
    eventually(ends, || Ok(ends[from].try_send(bytes, tag)?.then_some(())));
}

pub(crate) fn take(ends: &[End; 2], at: usize) -> Taken {
    eventually(ends, || ends[at].try_take())
}

/// A tag of its own for each number.
pub(crate) fn tag(number: u64) -> Tag {
    let digest = mix(number);
    Tag { digest, body: [number, digest ^ 1, digest ^ 2, digest ^ 3] }
}

/// Bytes of its own for each number.
pub(crate) fn bytes(number: u64, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64).flat_map(|word| (mix(number) ^ word).to_le_bytes());
    words.take(len).collect()
}

/// Scatters the bits of a number (the finaliser of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

pub(crate) fn write(place: View<'_>, bytes: &[u8]) {
    kernel::copy(&[place], View::read(bytes));
}

pub(crate) fn read(place: View<'_>) -> Vec<u8> {
    let mut bytes = vec![0; place.len()];
    kernel::copy(&[View::write(&mut bytes)], place);
    bytes
}
