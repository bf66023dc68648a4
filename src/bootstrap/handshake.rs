//! How two ranks prove to each other who they are. Pure: bytes in, bytes out.
//!
//! | who    | says      | bytes                                                                     |
//! | ------ | --------- | ------------------------------------------------------------------------- |
//! | dialer | hello     | magic, version, job, both ranks, size, purpose, encryption, nonce         |
//! | waiter | challenge | magic, nonce                                                              |
//! | dialer | proof     | HMAC-SHA256 over "dialer", hello, challenge, share; then the share        |
//! | waiter | verdict   | HMAC-SHA256 over "waiter", hello, challenge, words; then the words        |
//!
//! Both nonces are in both proofs, so an old connection cannot be played again; the labels differ, so
//! a proof cannot be sent back to who made it. The dialer proves first: a stranger who knocks learns
//! nothing to guess the secret from. Only with a right proof is anything in the hello believed, and the
//! waiter's words say why it refuses, under its own proof. It may also say "later": a newcomer comes again until the
//! job grows.
//!
//! Where the connection is to be [sealed](super::seal), the proof brings the dialer's share, and where the waiter accepts,
//! its words are its own. The session holds for this hello and this challenge alone. Both must want it: who has
//! encryption switched on never talks to who has not.

use super::hello::{HELLO, Hello, MAGIC, VERSION};
use super::seal::{Opening, SHARE, Session};
use super::secret::{Secret, digest};
use super::wire::Writer;
use crate::error::{Error, Kind};

pub(super) const CHALLENGE: usize = 40;
pub(super) const PROOF: usize = 32;
/// Of the verdict's fixed part: proof, acceptance, length of the words.
pub(super) const VERDICT: usize = 35;
/// What it says of acceptance.
const NO: u8 = 0;
const YES: u8 = 1;
const LATER: u8 = 2;
/// The most bytes of the waiter's words.
pub(super) const WORDS: usize = 400;

/// The dialer's side, once it has said its hello.
pub(super) struct Dialer<'a> {
    secret: &'a Secret,
    /// Whether the connection is to be sealed.
    seals: bool,
    hello: Vec<u8>,
    challenge: Vec<u8>,
    opening: Option<Opening>,
}

impl<'a> Dialer<'a> {
    /// What to say first, over a `network` or within a host.
    pub(super) fn new(hello: &Hello, secret: &'a Secret, network: bool) -> (Self, Vec<u8>) {
        let (seals, hello) = (hello.encrypts && network, hello.encode());
        let said = hello.clone();
        (Self { secret, seals, hello, challenge: Vec::new(), opening: None }, said)
    }

    /// The proof that answers a challenge, and the share, if there is to be one.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, Error> {
        if challenge.len() != CHALLENGE || challenge[..MAGIC.len()] != MAGIC {
            let text = format!("who answered speaks another protocol than kolo {VERSION}");
            return Err(Error::new(Kind::Refused, text));
        }
        self.challenge = challenge.to_vec();
        let mut share = Vec::new();
        if self.seals {
            let (opening, mine) = Opening::new(self.secret, &[&self.hello[..], challenge].concat())?;
            (self.opening, share) = (Some(opening), mine.to_vec());
        }
        let proof = self.secret.prove("dialer", &[&self.hello, &self.challenge, &share]);
        Ok([&proof[..], &share].concat())
    }

    /// How many bytes of words follow the verdict's fixed part.
    pub(super) fn words(verdict: &[u8; VERDICT]) -> Result<usize, Error> {
        let len = usize::from(u16::from_le_bytes([verdict[PROOF + 1], verdict[PROOF + 2]]));
        if len > WORDS {
            return Err(Error::new(Kind::Refused, "who answered sent a verdict of a wrong length"));
        }
        Ok(len)
    }

    /// What the waiter's verdict comes to, if it proved itself and does not refuse.
    pub(super) fn judge(self, verdict: &[u8; VERDICT], words: &[u8]) -> Result<Judged, Error> {
        let (proof, rest) = verdict.split_at(PROOF);
        if !self.secret.verify("waiter", &[&self.hello, &self.challenge, rest, words], proof) {
            let text = "the proof of the job's secret failed: give all ranks the same KOLO_SECRET";
            return Err(Error::new(Kind::Refused, text));
        }
        match rest[0] {
            YES => {}
            LATER => return Ok(Judged::Later(printable(words))),
            _ => return Err(Error::new(Kind::Refused, printable(words))),
        }
        let Some(opening) = self.opening else { return Ok(Judged::In(None)) };
        let unsealed = || Error::new(Kind::Refused, "who answered does not encrypt as this rank does");
        opening.finish(words).ok_or_else(unsealed).map(|session| Judged::In(Some(session)))
    }
}

/// What a dialer is told.
pub(super) enum Judged {
    /// It is in; with a session, what follows is sealed.
    In(Option<Session>),
    /// Not now, and why.
    Later(String),
}

/// The waiter's side: what has come of a stranger's words so far.
pub(super) struct Waiter {
    nonce: [u8; 32],
    /// Whether it waits at a network.
    network: bool,
    heard: Vec<u8>,
    /// How many bytes answer the challenge, once that was said.
    answer: usize,
}

/// What follows from what the stranger said.
pub(super) enum Reply {
    /// Wait for more of it.
    Listen,
    /// Send this and wait.
    Say(Vec<u8>),
    /// Send this, and the stranger is a rank; with a session, what follows is sealed.
    Admit(Vec<u8>, Hello, Option<Session>),
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
    /// Whether it may come again.
    pub(super) later: bool,
}

impl Refusal {
    pub(super) fn stranger(why: impl Into<String>) -> Self {
        Self { why: why.into(), fatal: false, later: false }
    }

    pub(super) fn fatal(why: impl Into<String>) -> Self {
        Self { why: why.into(), fatal: true, later: false }
    }

    pub(super) fn later(why: impl Into<String>) -> Self {
        Self { why: why.into(), fatal: false, later: true }
    }
}

impl Waiter {
    pub(super) fn new(nonce: [u8; 32], network: bool) -> Self {
        Self { nonce, network, heard: Vec::new(), answer: 0 }
    }

    /// How many bytes it still needs before it can go on.
    pub(super) fn wants(&self) -> usize {
        HELLO + self.answer - self.heard.len()
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
        let challenge = self.challenge();
        let (hello, answer) = self.heard.split_at(HELLO);
        let decoded = Hello::decode(hello);
        if answer.is_empty() {
            let seals = self.network && decoded.is_some_and(|hello| hello.encrypts);
            self.answer = PROOF + if seals { SHARE } else { 0 };
            return Reply::Say(challenge);
        }
        let (proof, share) = answer.split_at(PROOF);
        if !secret.verify("dialer", &[hello, &challenge, share], proof) {
            let claim = decoded.map_or(String::new(), |hello| hello.who() + " ");
            let why = format!("claimed to be {claim}without knowing the job's secret");
            return Reply::Refuse(vec![0; VERDICT], Refusal::stranger(why));
        }
        let Some(decoded) = decoded else {
            return Reply::Refuse(
                vec![0; VERDICT],
                Refusal::stranger("said what this version does not know"),
            );
        };
        let said = [hello, &challenge].concat();
        let outcome = judge(&decoded).and_then(|()| open(secret, &said, share));
        let (session, words) = match outcome {
            Ok(Some((session, share))) => (Ok(Some(session)), share.to_vec()),
            Ok(None) => (Ok(None), Vec::new()),
            Err(refusal) => {
                let words = printable(refusal.why.as_bytes()).into_bytes();
                (Err(refusal), words)
            }
        };
        let says = match &session {
            Ok(_) => YES,
            Err(refusal) if refusal.later => LATER,
            Err(_) => NO,
        };
        let fixed = Writer::default().u8(says).u16(words.len() as u16).done();
        let proof = secret.prove("waiter", &[hello, &challenge, &fixed, &words]);
        let verdict = Writer::default().raw(&proof).raw(&fixed).raw(&words).done();
        match session {
            Ok(session) => Reply::Admit(verdict, decoded, session),
            Err(refusal) => Reply::Refuse(verdict, refusal),
        }
    }

    fn challenge(&self) -> Vec<u8> {
        Writer::default().raw(&MAGIC).raw(&self.nonce).done()
    }
}

/// The waiter's side of the session that a dialer's share asks for, if there is one.
fn open(secret: &Secret, said: &[u8], share: &[u8]) -> Result<Option<(Session, [u8; SHARE])>, Refusal> {
    if share.is_empty() {
        return Ok(None);
    }
    match Opening::answer(secret, said, share) {
        Ok(Some(answer)) => Ok(Some(answer)),
        Ok(None) => Err(Refusal::stranger("sent a key that is none")),
        Err(error) => Err(Refusal::stranger(error.to_string())),
    }
}

/// Whether the peer is of this rank's job.
pub(super) fn same_job(hello: &Hello, job: &str) -> Result<(), Refusal> {
    if hello.job == digest(job.as_bytes()) {
        return Ok(());
    }
    let (who, to) = (hello.who(), hello.to);
    let why = format!("{who} is of another job than rank {to}, whose KOLO_JOB is `{job}`");
    Err(Refusal::stranger(why))
}

/// Whether the peer runs this build's version.
pub(super) fn same_version(hello: &Hello) -> Result<(), Refusal> {
    if hello.version == VERSION {
        return Ok(());
    }
    let (who, to, version) = (hello.who(), hello.to, printable(hello.version.as_bytes()));
    let why = format!("{who} runs kolo {version}, rank {to} kolo {VERSION}: start one version everywhere");
    Err(Refusal::fatal(why))
}

/// Whether the peer encrypts as this rank does.
pub(super) fn same_encryption(hello: &Hello, encrypts: bool) -> Result<(), Refusal> {
    if hello.encrypts == encrypts {
        return Ok(());
    }
    let (who, here) = (hello.who(), format!("rank {}", hello.to));
    let (on, off) = if encrypts { (here, who) } else { (who, here) };
    let why = format!("{on} has KOLO_ENCRYPT=1, {off} has not: set it alike on all ranks");
    Err(Refusal::fatal(why))
}

/// A peer's words, fit for one line of a terminal.
pub(super) fn printable(words: &[u8]) -> String {
    words.iter().map(|&byte| char::from(byte)).filter(|c| matches!(c, ' '..='~')).take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::hello::{Purpose, Via};

    const NONCE: [u8; 32] = [7; 32];

    fn hello() -> Hello {
        let purpose = Purpose::Link { communicator: 5, origin: 4, channel: 2, via: Via::Tcp };
        Hello::new("job", (1, 3), 4, purpose, false, [9; 32])
    }

    fn encrypting() -> Hello {
        Hello { encrypts: true, ..hello() }
    }

    fn secret() -> Secret {
        Secret::new(b"known to the ranks of this job").unwrap()
    }

    /// Both sides over a network, up to what the dialer makes of the verdict; the sessions of both, where there are any.
    fn talk(
        hello: &Hello,
        dialer: &Secret,
        waiter: &Secret,
        judge: Result<(), Refusal>,
    ) -> Result<[Option<Session>; 2], Error> {
        let mut waiting = Waiter::new(NONCE, true);
        let (mut dialing, said) = Dialer::new(hello, dialer, true);
        let Reply::Say(challenge) = waiting.hear(&said, waiter, &mut |_| judge.clone()) else {
            panic!("no challenge")
        };
        let proof = dialing.answer(&challenge)?;
        let (verdict, session) = match waiting.hear(&proof, waiter, &mut |_| judge.clone()) {
            Reply::Admit(verdict, admitted, session) => {
                assert_eq!(&admitted, hello);
                (verdict, session)
            }
            Reply::Refuse(verdict, _) => (verdict, None),
            Reply::Say(_) | Reply::Listen => panic!("no verdict"),
        };
        let (fixed, words) = verdict.split_at(VERDICT);
        let fixed = fixed.try_into().unwrap();
        assert_eq!(Dialer::words(fixed).unwrap(), words.len());
        match dialing.judge(fixed, words)? {
            Judged::In(dialed) => Ok([dialed, session]),
            Judged::Later(why) => Err(Error::new(Kind::Deadline, why)),
        }
    }

    #[test]
    fn who_knows_the_secret_comes_in() {
        assert!(talk(&hello(), &secret(), &secret(), Ok(())).unwrap().iter().all(Option::is_none));
        assert!(talk(&encrypting(), &secret(), &secret(), Ok(())).unwrap().iter().all(Option::is_some));
        assert_eq!(hello().encode().len(), HELLO);
    }

    #[test]
    fn within_a_host_nothing_is_sealed() {
        let secret = secret();
        let (mut dialer, said) = Dialer::new(&encrypting(), &secret, false);
        let mut waiter = Waiter::new(NONCE, false);
        let Reply::Say(challenge) = waiter.hear(&said, &secret, &mut |_| Ok(())) else {
            panic!("no challenge")
        };
        let proof = dialer.answer(&challenge).unwrap();
        assert_eq!((proof.len(), waiter.wants()), (PROOF, PROOF));
        let reply = waiter.hear(&proof, &secret, &mut |hello| same_encryption(hello, true));
        assert!(matches!(reply, Reply::Admit(_, _, None)));
    }

    #[test]
    fn who_encrypts_and_who_does_not_refuse_each_other() {
        for (hello, waiter, on, off) in [(encrypting(), false, 1, 3), (hello(), true, 3, 1)] {
            let refusal = same_encryption(&hello, waiter);
            assert!(refusal.as_ref().is_err_and(|refusal| refusal.fatal));
            let error = talk(&hello, &secret(), &secret(), refusal).err().unwrap();
            let said = format!("rank {on} has KOLO_ENCRYPT=1, rank {off} has not: set it alike on all ranks");
            assert_eq!(error.to_string(), said);
        }
    }

    #[test]
    fn an_accepting_waiter_that_does_not_encrypt_is_not_believed() {
        let secret = secret();
        let (mut dialer, _) = Dialer::new(&encrypting(), &secret, true);
        let challenge = Waiter::new(NONCE, true).challenge();
        dialer.answer(&challenge).unwrap();
        let fixed = [1, 0, 0];
        let proof = secret.prove("waiter", &[&encrypting().encode(), &challenge, &fixed, &[]]);
        let verdict: Vec<u8> = proof.into_iter().chain(fixed).collect();
        let error = dialer.judge(verdict[..].try_into().unwrap(), &[]).err().unwrap();
        assert!(error.to_string().contains("does not encrypt"), "{error}");
    }

    #[test]
    fn neither_side_believes_another_secret() {
        let error = talk(&hello(), &Secret::random().unwrap(), &secret(), Ok(())).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("KOLO_SECRET"), "{error}");
    }

    #[test]
    fn a_refusal_and_another_version_are_said_in_words() {
        let error = talk(&hello(), &secret(), &secret(), Err(Refusal::stranger("rank 1 is here already")))
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "rank 1 is here already");
        let join = Hello { purpose: Purpose::Join, ..hello() };
        let error = talk(&join, &secret(), &secret(), Err(Refusal::later("come again"))).err().unwrap();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Deadline, "come again"));
        let other = Hello { version: "9.8.7".into(), ..hello() };
        let error = talk(&other, &secret(), &secret(), same_version(&other)).err().unwrap().to_string();
        assert!(error.contains("9.8.7") && error.contains(VERSION), "{error}");
    }

    #[test]
    fn a_proof_cannot_be_replayed_nor_reflected() {
        for hello in [hello(), encrypting()] {
            let secret = secret();
            let (mut dialer, said) = Dialer::new(&hello, &secret, true);
            let proof = dialer.answer(&Waiter::new(NONCE, true).challenge()).unwrap();
            // Replayed to a waiter with another nonce.
            let mut waiter = Waiter::new([8; 32], true);
            waiter.hear(&said, &secret, &mut |_| Ok(()));
            assert!(matches!(waiter.hear(&proof, &secret, &mut |_| Ok(())), Reply::Refuse(..)));
            // Reflected to the dialer as if it were the verdict, its share included.
            let (proof, share) = proof.split_at(PROOF);
            let mut verdict = [0; VERDICT];
            verdict[..PROOF].copy_from_slice(proof);
            (verdict[PROOF], verdict[PROOF + 1]) = (1, share.len() as u8);
            assert!(dialer.judge(&verdict, share).is_err());
        }
    }

    #[test]
    fn an_old_verdict_is_nothing_to_a_new_dialer() {
        let secret = secret();
        let verdict_of = |hello: &Hello, challenge: &Waiter| {
            let mut waiter = Waiter::new(challenge.nonce, true);
            let (mut dialer, said) = Dialer::new(hello, &secret, true);
            waiter.hear(&said, &secret, &mut |_| Ok(()));
            let proof = dialer.answer(&waiter.challenge()).unwrap();
            match waiter.hear(&proof, &secret, &mut |_| Ok(())) {
                Reply::Admit(verdict, ..) => (dialer, verdict),
                _ => panic!("not admitted"),
            }
        };
        let waiter = Waiter::new(NONCE, true);
        let (_, old) = verdict_of(&encrypting(), &waiter);
        let (fixed, words) = old.split_at(VERDICT);
        // Even where all but the shares is the same, which are drawn anew.
        let (dialer, _) = verdict_of(&encrypting(), &waiter);
        assert!(dialer.judge(fixed.try_into().unwrap(), words).is_err());
        let (dialer, _) = verdict_of(&Hello { nonce: [10; 32], ..encrypting() }, &waiter);
        assert!(dialer.judge(fixed.try_into().unwrap(), words).is_err());
    }

    #[test]
    fn a_changed_bit_anywhere_is_refused() {
        for hello in [hello(), encrypting()] {
            let len = HELLO + PROOF + if hello.encrypts { SHARE } else { 0 };
            for bit in 0..len * 8 {
                let secret = secret();
                let mut waiter = Waiter::new(NONCE, true);
                let (mut dialer, said) = Dialer::new(&hello, &secret, true);
                let mut words = said;
                words.extend(dialer.answer(&waiter.challenge()).unwrap());
                assert_eq!(words.len(), len);
                words[bit / 8] ^= 1 << (bit % 8);
                let mut rest = &words[..];
                let refused = loop {
                    // One bit tells whether a share comes: then it waits for more than there is, or takes less.
                    let Some((part, later)) = rest.split_at_checked(waiter.wants()) else { break true };
                    rest = later;
                    match waiter.hear(part, &secret, &mut |_| Ok(())) {
                        Reply::Refuse(..) => break true,
                        Reply::Admit(..) => break false,
                        Reply::Say(_) | Reply::Listen => {}
                    }
                };
                assert!(refused, "bit {bit}");
            }
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
            Waiter::new(NONCE, true).hear(b"GET / HTTP/1.1", &Secret::none(), &mut |_| Ok(())),
            Reply::Refuse(..)
        ));
    }
}
