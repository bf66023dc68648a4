//! The job's secret, and proofs of knowing it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Bootstrap;
use crate::error::{Error, Kind, Result};

/// What all ranks of a job know and nobody else does. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The fewest bytes that a secret given by hand may have.
    pub const SHORTEST: usize = 16;

    /// A secret that somebody chose; nothing where it is too short to be one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= Self::SHORTEST).then(|| Self(bytes.to_vec()))
    }

    /// No secret: proofs then prove nothing, and something else must vouch for the peer, such as the
    /// kernel for the user behind a UNIX socket.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Draws one.
    pub fn random() -> Result<Self> {
        Ok(Self(random::<32>()?.to_vec()))
    }

    /// Agrees on the secret that this job's links will prove: rank 0 draws a random one, the first
    /// all-gather spreads it, and what was given beforehand (if anything) goes into it. So it differs
    /// from one run to the next, and who listened to the rendezvous does not learn it.
    pub fn agree(bootstrap: &mut dyn Bootstrap, given: Option<&Self>) -> Result<Self> {
        let mine = if bootstrap.rank() == 0 { random::<32>()?.to_vec() } else { Vec::new() };
        let all = bootstrap.all_gather(&mine)?;
        if all[0].len() != 32 {
            return Err(Error::new(Kind::Refused, "rank 0 sent no secret: are all ranks of one version?"));
        }
        Ok(given.map_or_else(Self::none, Self::clone).derive("kolo links", &all[0]))
    }

    /// A secret for another purpose.
    fn derive(&self, label: &str, salt: &[u8]) -> Self {
        Self(self.prove(label, &[salt]).to_vec())
    }

    /// What only those who know the secret can say of `parts` under `label`.
    pub(super) fn prove(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(label, parts).finalize().into_bytes().into()
    }

    /// Whether `proof` is [`Secret::prove`] of the same; in constant time.
    pub(super) fn verify(&self, label: &str, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.mac(label, parts).verify_slice(proof).is_ok()
    }

    fn mac(&self, label: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in [label.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|cause| Error::system("drawing random bytes", cause))?;
    }
    Ok(bytes)
}

/// The SHA-256 of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_secret_its_label_and_its_parts_only() {
        let secret = Secret::new(b"sixteen bytes ok").unwrap();
        let proof = secret.prove("a", &[b"bc", b"d"]);
        assert!(secret.verify("a", &[b"bc", b"d"], &proof));
        assert!(!secret.verify("b", &[b"bc", b"d"], &proof));
        assert!(!secret.verify("a", &[b"b", b"cd"], &proof));
        assert!(!secret.verify("a", &[b"bc", b"d"], &proof[..31]));
        assert!(!Secret::random().unwrap().verify("a", &[b"bc", b"d"], &proof));
    }

    #[test]
    fn a_short_secret_is_none_and_no_secret_is_printed() {
        assert!(Secret::new(b"too short").is_none());
        assert_eq!(format!("{:?}", Secret::new(b"sixteen bytes ok")), "Some(Secret(..))");
    }
}
