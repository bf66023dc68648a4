//! How two ranks prove to each other who they are. Pure: bytes in, bytes out.
//!
//! | who    | says      | bytes                                                                     |
//! | ------ | --------- | ------------------------------------------------------------------------- |
//! | dialer | hello     | magic, version, job, both ranks, size, purpose, nonce                     |
//! | waiter | challenge | magic, nonce                                                              |
//! | dialer | proof     | HMAC-SHA256 over "dialer", hello, challenge                               |
//! | waiter | verdict   | HMAC-SHA256 over "waiter", hello, challenge, words; then the words        |
//!
//! Both nonces are in both proofs, so an old connection cannot be played again; the labels differ, so
//! a proof cannot be sent back to who made it. The dialer proves first: a stranger who knocks learns
//! nothing to guess the secret from. Only with a right proof is anything in the hello believed, and the
//! waiter's words say why it refuses, under its own proof.

use super::secret::{Secret, digest};
use super::wire::{Reader, Writer};
use crate::error::{Error, Kind};

/// Names this handshake; its last byte changes with it.
const MAGIC: [u8; 8] = *b"kolo-hi1";
pub(super) const HELLO: usize = 128;
pub(super) const CHALLENGE: usize = 40;
pub(super) const PROOF: usize = 32;
/// Of the verdict's fixed part: proof, acceptance, length of the words.
pub(super) const VERDICT: usize = 35;
/// The most bytes of the waiter's words.
pub(super) const WORDS: usize = 400;

/// This build's version, as ranks compare it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// To meet at rank 0.
    Rendezvous,
    /// To link two ranks.
    Link { communicator: u64, channel: u8, via: Via },
    /// To ask where a rank stands.
    Reports,
    /// To ask how far it is in agreeing on who is left of a communicator.
    Stage { communicator: u64 },
}

impl Purpose {
    /// Whether it is a link of that communicator.
    pub(super) fn is_link_of(self, of: u64) -> bool {
        matches!(self, Self::Link { communicator, .. } if communicator == of)
    }
}

/// Which kind of stream a link wants; both may exist at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Via {
    Unix,
    Tcp,
}

/// What the dialer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: String,
    pub(super) job: [u8; 32],
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) size: u32,
    pub(super) purpose: Purpose,
    pub(super) nonce: [u8; 32],
}

impl Hello {
    /// What this build says.
    pub(super) fn new(
        job: &str,
        (from, to): (usize, usize),
        size: usize,
        purpose: Purpose,
        nonce: [u8; 32],
    ) -> Self {
        let version = VERSION.to_owned();
        let job = digest(job.as_bytes());
        Self { version, job, from: from as u32, to: to as u32, size: size as u32, purpose, nonce }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, communicator, channel, via) = match self.purpose {
            Purpose::Rendezvous => (0, 0, 0, 0),
            Purpose::Link { communicator, channel, via } => (1, communicator, channel, via as u8),
            Purpose::Reports => (2, 0, 0, 0),
            Purpose::Stage { communicator } => (3, communicator, 0, 0),
        };
        let mut version = [0; 32];
        let len = self.version.len().min(version.len());
        version[..len].copy_from_slice(&self.version.as_bytes()[..len]);
        let hello = Writer::default().raw(&MAGIC).raw(&version).raw(&self.job);
        let hello = hello.u32(self.from).u32(self.to).u32(self.size);
        hello.u8(kind).u8(channel).u8(via).u8(0).u64(communicator).raw(&self.nonce).done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return None;
        }
        let version = reader.array::<32>()?;
        let job = reader.array()?;
        let (from, to, size) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (kind, channel, via, _) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
        let communicator = reader.u64()?;
        let nonce = reader.array()?;
        reader.end()?;
        let via = [Via::Unix, Via::Tcp].into_iter().find(|&known| known as u8 == via)?;
        let purpose = match kind {
            0 => Purpose::Rendezvous,
            1 => Purpose::Link { communicator, channel, via },
            2 => Purpose::Reports,
            3 => Purpose::Stage { communicator },
            _ => return None,
        };
        let version = std::str::from_utf8(&version).ok()?.trim_end_matches('\0').to_owned();
        Some(Self { version, job, from, to, size, purpose, nonce })
    }
}

/// The dialer's side, once it has said its hello.
pub(super) struct Dialer<'a> {
    secret: &'a Secret,
    hello: Vec<u8>,
    challenge: Vec<u8>,
}

impl<'a> Dialer<'a> {
    /// What to say first.
    pub(super) fn new(hello: &Hello, secret: &'a Secret) -> (Self, Vec<u8>) {
        let hello = hello.encode();
        (Self { secret, hello: hello.clone(), challenge: Vec::new() }, hello)
    }

    /// The proof that answers a challenge.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<[u8; PROOF], Error> {
        if challenge.len() != CHALLENGE || challenge[..MAGIC.len()] != MAGIC {
            let text = format!("who answered speaks another protocol than kolo {VERSION}");
            return Err(Error::new(Kind::Refused, text));
        }
        self.challenge = challenge.to_vec();
        Ok(self.secret.prove("dialer", &[&self.hello, &self.challenge]))
    }

    /// How many bytes of words follow the verdict's fixed part.
    pub(super) fn words(verdict: &[u8; VERDICT]) -> Result<usize, Error> {
        let len = usize::from(u16::from_le_bytes([verdict[PROOF + 1], verdict[PROOF + 2]]));
        if len > WORDS {
            return Err(Error::new(Kind::Refused, "who answered sent a verdict of a wrong length"));
        }
        Ok(len)
    }

    /// Whether the waiter proved itself and accepts.
    pub(super) fn judge(&self, verdict: &[u8; VERDICT], words: &[u8]) -> Result<(), Error> {
        let (proof, rest) = verdict.split_at(PROOF);
        if !self.secret.verify("waiter", &[&self.hello, &self.challenge, rest, words], proof) {
            let text = "the proof of the job's secret failed: give all ranks the same KOLO_SECRET";
            return Err(Error::new(Kind::Refused, text));
        }
        if rest[0] != 1 {
            return Err(Error::new(Kind::Refused, printable(words)));
        }
        Ok(())
    }
}

/// The waiter's side: what has come of a stranger's words so far.
pub(super) struct Waiter {
    nonce: [u8; 32],
    heard: Vec<u8>,
    challenged: bool,
}

/// What follows from what the stranger said.
pub(super) enum Reply {
    /// Wait for more of it.
    Listen,
    /// Send this and wait.
    Say(Vec<u8>),
    /// Send this, and the stranger is a rank.
    Admit(Vec<u8>, Hello),
    /// Send this and hang up.
    Refuse(Vec<u8>, Refusal),
}

/// Why somebody is not let in.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// Continues a sentence: "somebody, who ...".
    pub(super) why: String,
    /// Whether the meeting cannot succeed any more: it was a rank of this job, and it is at odds with
    /// the others.
    pub(super) fatal: bool,
}

impl Refusal {
    pub(super) fn stranger(why: impl Into<String>) -> Self {
        Self { why: why.into(), fatal: false }
    }

    pub(super) fn fatal(why: impl Into<String>) -> Self {
        Self { why: why.into(), fatal: true }
    }
}

impl Waiter {
    pub(super) fn new(nonce: [u8; 32]) -> Self {
        Self { nonce, heard: Vec::new(), challenged: false }
    }

    /// How many bytes it still needs before it can go on.
    pub(super) fn wants(&self) -> usize {
        HELLO + if self.challenged { PROOF } else { 0 } - self.heard.len()
    }

    /// Takes at most [`Waiter::wants`] bytes. `judge` says why a proven hello is not welcome.
    pub(super) fn hear(
        &mut self,
        bytes: &[u8],
        secret: &Secret,
        judge: &mut dyn FnMut(&Hello) -> Result<(), Refusal>,
    ) -> Reply {
        self.heard.extend_from_slice(bytes);
        let known = self.heard.len().min(MAGIC.len());
        if self.heard[..known] != MAGIC[..known] {
            return Reply::Refuse(self.challenge(), Refusal::stranger("spoke another protocol"));
        }
        if self.wants() > 0 {
            return Reply::Listen;
        }
        if !self.challenged {
            self.challenged = true;
            return Reply::Say(self.challenge());
        }
        let challenge = self.challenge();
        let (hello, proof) = self.heard.split_at(HELLO);
        if !secret.verify("dialer", &[hello, &challenge], proof) {
            let claim = Hello::decode(hello).map_or(String::new(), |hello| format!("rank {} ", hello.from));
            let why = format!("claimed to be {claim}without knowing the job's secret");
            return Reply::Refuse(vec![0; VERDICT], Refusal::stranger(why));
        }
        let Some(decoded) = Hello::decode(hello) else {
            return Reply::Refuse(
                vec![0; VERDICT],
                Refusal::stranger("said what this version does not know"),
            );
        };
        let outcome = judge(&decoded);
        let words = outcome.as_ref().err().map_or(String::new(), |refusal| printable(refusal.why.as_bytes()));
        let fixed = Writer::default().u8(outcome.is_ok().into()).text(&words).done();
        let proof = secret.prove("waiter", &[hello, &challenge, &fixed[..3], &fixed[3..]]);
        let verdict = Writer::default().raw(&proof).raw(&fixed).done();
        match outcome {
            Ok(()) => Reply::Admit(verdict, decoded),
            Err(refusal) => Reply::Refuse(verdict, refusal),
        }
    }

    fn challenge(&self) -> Vec<u8> {
        Writer::default().raw(&MAGIC).raw(&self.nonce).done()
    }
}

/// Whether the peer is of this rank's job.
pub(super) fn same_job(hello: &Hello, job: &str) -> Result<(), Refusal> {
    if hello.job == digest(job.as_bytes()) {
        return Ok(());
    }
    let (from, to) = (hello.from, hello.to);
    let why = format!("rank {from} is of another job than rank {to}, whose KOLO_JOB is `{job}`");
    Err(Refusal::stranger(why))
}

/// Whether the peer runs this build's version.
pub(super) fn same_version(hello: &Hello) -> Result<(), Refusal> {
    if hello.version == VERSION {
        return Ok(());
    }
    let (from, to, version) = (hello.from, hello.to, printable(hello.version.as_bytes()));
    let why =
        format!("rank {from} runs kolo {version}, rank {to} kolo {VERSION}: start one version everywhere");
    Err(Refusal::fatal(why))
}

/// A peer's words, fit for one line of a terminal.
pub(super) fn printable(words: &[u8]) -> String {
    words.iter().map(|&byte| char::from(byte)).filter(|c| matches!(c, ' '..='~')).take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 32] = [7; 32];

    fn hello() -> Hello {
        let purpose = Purpose::Link { communicator: 5, channel: 2, via: Via::Tcp };
        Hello::new("job", (1, 3), 4, purpose, [9; 32])
    }

    fn secret() -> Secret {
        Secret::new(b"known to the ranks of this job").unwrap()
    }

    /// Both sides, up to what the dialer makes of the verdict.
    fn talk(
        hello: &Hello,
        dialer: &Secret,
        waiter: &Secret,
        judge: Result<(), Refusal>,
    ) -> Result<(), Error> {
        let mut waiting = Waiter::new(NONCE);
        let (mut dialing, said) = Dialer::new(hello, dialer);
        let Reply::Say(challenge) = waiting.hear(&said, waiter, &mut |_| judge.clone()) else {
            panic!("no challenge")
        };
        let proof = dialing.answer(&challenge)?;
        let verdict = match waiting.hear(&proof, waiter, &mut |_| judge.clone()) {
            Reply::Admit(verdict, admitted) => {
                assert_eq!(&admitted, hello);
                verdict
            }
            Reply::Refuse(verdict, _) => verdict,
            Reply::Say(_) | Reply::Listen => panic!("no verdict"),
        };
        let (fixed, words) = verdict.split_at(VERDICT);
        let fixed = fixed.try_into().unwrap();
        assert_eq!(Dialer::words(fixed).unwrap(), words.len());
        dialing.judge(fixed, words)
    }

    #[test]
    fn who_knows_the_secret_comes_in() {
        talk(&hello(), &secret(), &secret(), Ok(())).unwrap();
        assert_eq!(hello().encode().len(), HELLO);
    }

    #[test]
    fn neither_side_believes_another_secret() {
        let error = talk(&hello(), &Secret::random().unwrap(), &secret(), Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("KOLO_SECRET"), "{error}");
    }

    #[test]
    fn a_refusal_and_another_version_are_said_in_words() {
        let error = talk(&hello(), &secret(), &secret(), Err(Refusal::stranger("rank 1 is here already")))
            .unwrap_err();
        assert_eq!(error.to_string(), "rank 1 is here already");
        let other = Hello { version: "9.8.7".into(), ..hello() };
        let error = talk(&other, &secret(), &secret(), same_version(&other)).unwrap_err().to_string();
        assert!(error.contains("9.8.7") && error.contains(VERSION), "{error}");
    }

    #[test]
    fn a_proof_cannot_be_replayed_nor_reflected() {
        let secret = Secret::none();
        let (mut dialer, said) = Dialer::new(&hello(), &secret);
        let proof = dialer.answer(&Waiter::new(NONCE).challenge()).unwrap();
        // Replayed to a waiter with another nonce.
        let mut waiter = Waiter::new([8; 32]);
        waiter.hear(&said, &Secret::none(), &mut |_| Ok(()));
        assert!(matches!(waiter.hear(&proof, &Secret::none(), &mut |_| Ok(())), Reply::Refuse(..)));
        // Reflected to the dialer as if it were the verdict's proof.
        let mut verdict = [0; VERDICT];
        verdict[..PROOF].copy_from_slice(&proof);
        verdict[PROOF] = 1;
        assert!(dialer.judge(&verdict, &[]).is_err());
    }

    #[test]
    fn a_changed_bit_anywhere_is_refused() {
        let secret = Secret::none();
        for bit in 0..(HELLO + PROOF) * 8 {
            let mut waiter = Waiter::new(NONCE);
            let (mut dialer, said) = Dialer::new(&hello(), &secret);
            let mut words = said;
            words.extend(dialer.answer(&waiter.challenge()).unwrap());
            words[bit / 8] ^= 1 << (bit % 8);
            let mut refused = false;
            for part in [&words[..HELLO], &words[HELLO..]] {
                refused |= matches!(waiter.hear(part, &Secret::none(), &mut |_| Ok(())), Reply::Refuse(..));
                if refused {
                    break;
                }
            }
            assert!(refused, "bit {bit}");
        }
    }

    #[test]
    fn garbage_and_truncations_never_decode() {
        let whole = hello().encode();
        for len in 0..HELLO {
            assert!(Hello::decode(&whole[..len]).is_none());
        }
        assert!(Hello::decode(&[0; HELLO]).is_none());
        assert!(matches!(
            Waiter::new(NONCE).hear(b"GET / HTTP/1.1", &Secret::none(), &mut |_| Ok(())),
            Reply::Refuse(..)
        ));
    }
}
