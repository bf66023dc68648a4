//! Random numbers that are functions of their place: Philox4x32-10 (Salmon et al., "Parallel random
//! numbers: as easy as 1, 2, 3", SC 2011), keyed by a seed, counted by (index, stream). Whoever asks for
//! the value at an index gets the same bits, in whatever order and on whichever rank.

/// The ten rounds.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// An endless sequence of random values, named.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    seed: u64,
    stream: u64,
}

impl Stream {
    /// The stream `name` of `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, 64 bits.
        let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { seed, stream }
    }

    fn words(self, index: u64) -> [u32; 4] {
        let [index, stream, seed] = [index, self.stream, self.seed].map(|x| [x as u32, (x >> 32) as u32]);
        philox([index[0], index[1], stream[0], stream[1]], seed)
    }

    /// The `index`-th of 64 random bits.
    pub(crate) fn bits(self, index: u64) -> u64 {
        let words = self.words(index);
        (u64::from(words[0]) << 32) | u64::from(words[1])
    }

    /// The `index`-th number below `bound`.
    pub(crate) fn below(self, index: u64, bound: u64) -> u64 {
        ((u128::from(self.bits(index)) * u128::from(bound)) >> 64) as u64
    }

    /// The `index`-th number in `[0, 1)`.
    pub(crate) fn uniform(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The `index`-th standard normal number: Box and Muller's pair of words, four values to a counter.
    pub(crate) fn normal(self, index: u64) -> f64 {
        let words = self.words(index / 4);
        let pair = (index % 4 / 2 * 2) as usize;
        let unit = |word: u32| (f64::from(word) + 0.5) / (1u64 << 32) as f64; // in (0, 1)
        let radius = (-2.0 * unit(words[pair]).ln()).sqrt();
        let angle = std::f64::consts::TAU * unit(words[pair + 1]);
        radius * if index.is_multiple_of(2) { angle.cos() } else { angle.sin() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with Random123.
    #[test]
    fn philox_matches_its_reference() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            philox(pi, [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normal_values_have_their_moments() {
        let stream = Stream::new(1, "moments");
        let n = 100_000u64;
        let moment = |power: i32| (0..n).map(|i| stream.normal(i).powi(power)).sum::<f64>() / n as f64;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02);
        assert!(moment(3).abs() < 0.05 && (moment(4) - 3.0).abs() < 0.1);
    }

    #[test]
    fn streams_and_seeds_differ() {
        let bits = [Stream::new(1, "a"), Stream::new(1, "b"), Stream::new(2, "a")].map(|s| s.bits(0));
        assert!(bits[0] != bits[1] && bits[0] != bits[2]);
        assert!((0..1000).all(|i| Stream::new(3, "c").below(i, 10) < 10));
        assert!((0..1000).all(|i| (0.0..1.0).contains(&Stream::new(3, "c").uniform(i))));
    }
}
