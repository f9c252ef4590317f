//! [`Ipv4Block`]: an IPv4 network and its equal parts. Pure arithmetic; must not know nodes or clusters.

use std::fmt;
use std::net::Ipv4Addr;

/// A network: base address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ipv4Block {
    base: u32,
    prefix: u8,
}

/// Why text is not a network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CidrError {
    /// Not `a.b.c.d/n`.
    #[error("not an IPv4 CIDR such as 10.42.0.0/16")]
    Malformed,
    /// Bits behind the prefix are set.
    #[error("has host bits set; the network is {0}")]
    HostBits(Ipv4Block),
}

impl Ipv4Block {
    /// Reads `a.b.c.d/n`; the address must be the network's own.
    pub(crate) fn parse(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError::Malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| CidrError::Malformed)?;
        let plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit()) && prefix.len() <= 2;
        let prefix: u8 = if plain { prefix.parse().map_err(|_| CidrError::Malformed)? } else { 33 };
        if prefix > 32 {
            return Err(CidrError::Malformed);
        }
        let base = u32::from(address) & mask(prefix);
        let block = Self { base, prefix };
        if base == u32::from(address) { Ok(block) } else { Err(CidrError::HostBits(block)) }
    }

    /// Prefix length.
    pub(crate) const fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many parts of length `prefix` there are; 0 when that is longer than the block itself.
    pub(crate) const fn parts(self, prefix: u8) -> u64 {
        if prefix < self.prefix || prefix > 32 { 0 } else { 1 << (prefix - self.prefix) }
    }

    /// The part of length `prefix` at `index`, counted from the lowest address.
    pub(crate) fn part(self, prefix: u8, index: u64) -> Option<Self> {
        if index >= self.parts(prefix) {
            return None;
        }
        let offset = index.checked_shl(u32::from(32 - prefix))?;
        Some(Self { base: self.base + u32::try_from(offset).ok()?, prefix })
    }
}

impl fmt::Display for Ipv4Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

const fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Networks are read strictly and cut into parts from the lowest address.
    #[test]
    fn blocks_are_read_and_cut() {
        let block = Ipv4Block::parse("10.42.0.0/16").expect("valid");
        assert_eq!(block.part(24, 0).map(|part| part.to_string()), Some("10.42.0.0/24".into()));
        assert_eq!(block.part(24, 255).map(|part| part.to_string()), Some("10.42.255.0/24".into()));
        assert_eq!(block.part(24, 256), None);
        assert_eq!(block.parts(8), 0);
        let tiny = Ipv4Block::parse("10.0.0.4/30").expect("valid");
        assert_eq!(tiny.parts(30), 1);
        assert_eq!(tiny.part(30, 0), Some(tiny));
        assert_eq!(
            Ipv4Block::parse("10.42.0.1/16").expect_err("host").to_string(),
            "has host bits set; the network is 10.42.0.0/16"
        );
        for bad in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::1/64", "10.0.0.0/+8", "10.0.0/8", "10.0.0.0/008"] {
            assert_eq!(Ipv4Block::parse(bad), Err(CidrError::Malformed), "{bad}");
        }
    }
}
