//! [`Entropy`]: the chance a reconcile sees. The runtime seeds it; pure code draws uids and name suffixes from it,
//! so that a plan is a function of its inputs. Not for secrets.

/// A stream of numbers from one seed (SplitMix64 over two lanes).
#[derive(Clone, Debug)]
pub struct Entropy {
    lanes: [u64; 2],
}

/// Letters of generated names: no vowels, so that no words appear, and no look-alikes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

impl Entropy {
    /// A stream that depends on `seed` alone.
    #[must_use]
    pub const fn new(seed: u128) -> Self {
        Self { lanes: [(seed >> 64) as u64, seed as u64] }
    }

    fn next(&mut self) -> u64 {
        self.lanes.swap(0, 1);
        self.lanes[0] = self.lanes[0].wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.lanes[0] ^ self.lanes[1].rotate_left(23);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A fresh uid: a version 4 UUID as text.
    pub fn uid(&mut self) -> String {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }

    /// Five letters and digits for the end of a generated name.
    pub fn suffix(&mut self) -> String {
        let mut bits = self.next();
        let mut out = String::with_capacity(5);
        for _ in 0..5 {
            let index = usize::try_from(bits % ALPHABET.len() as u64).unwrap_or_default();
            out.push(char::from(ALPHABET[index]));
            bits /= ALPHABET.len() as u64;
        }
        out
    }

    /// Sixteen hexadecimal digits, for names of Events.
    pub fn hex(&mut self) -> String {
        format!("{:016x}", self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// One seed gives one stream; draws of one stream differ.
    #[test]
    fn a_stream_is_repeatable_and_does_not_repeat() {
        let draw = |seed| {
            let mut entropy = Entropy::new(seed);
            (0..1000).map(|_| entropy.uid()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(draw(7).into_iter().collect::<BTreeSet<_>>().len(), 1000);
        assert_eq!(Entropy::new(1).suffix().len(), 5);
    }
}
