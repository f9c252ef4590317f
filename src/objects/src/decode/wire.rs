//! The protobuf wire format: tags, varints and lengths. It knows no messages and allocates nothing.

/// What stood behind a tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Content<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
}

/// Reads the fields of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and content, or `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Content<'a>)>, &'static str> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field number is out of range")?;
        if number == 0 {
            return Err("a field number is zero");
        }
        let content = match tag & 7 {
            0 => Content::Varint(self.varint()?),
            1 => Content::Fixed64(self.array()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| "a length is out of range")?;
                Content::Bytes(self.take(length)?)
            }
            5 => Content::Fixed32(self.array()?),
            _ => return Err("a wire type is not supported"),
        };
        Ok(Some((number, content)))
    }

    /// The next varint of a packed list, or `None` at the end.
    pub(super) fn packed(&mut self) -> Result<Option<u64>, &'static str> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or("the message ends inside a number")?;
            self.rest = rest;
            // The tenth byte has room for one bit only.
            if shift == 63 && byte > 1 {
                return Err("a number has more than 64 bits");
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number has more than 64 bits")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("the message ends inside a field")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or("the message ends inside a field")?;
        self.rest = rest;
        Ok(*taken)
    }
}
