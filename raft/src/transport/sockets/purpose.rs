//! [`Purpose`]: what a connection is for.

/// What a connection is for. The dialling peer says so in one byte before TLS. It decides nothing but which threads serve
/// the connection: who may speak is TLS's business, and what is spoken is confirmed there as the application protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Votes, heartbeats, read index: small frames.
    Control,
    /// The log, and writes on their way to the leader.
    Data,
    /// Whole states.
    Snapshots,
}

impl Purpose {
    /// The byte that says it. A TLS record begins with none of them.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Control => b'C',
            Self::Data => b'D',
            Self::Snapshots => b'S',
        }
    }

    /// What a byte says.
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Control, Self::Data, Self::Snapshots].into_iter().find(|purpose| purpose.byte() == byte)
    }
}
