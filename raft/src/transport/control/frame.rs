//! Frames of the control connection: four bytes of length, high byte first, and one message.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::peer::ControlFrame;

/// One frame. Nothing on this connection carries an entry.
const FRAME_BYTES_MAX: usize = 256 << 10;
const LENGTH_BYTES: usize = 4;
const READ_BYTES: usize = 4 << 10;

/// Adds a frame to what is to be written.
pub(super) fn put(into: &mut BytesMut, frame: &ControlFrame) {
    let length = frame.encoded_len();
    into.reserve(LENGTH_BYTES + length);
    into.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.encode(into).expect("room was made above");
}

/// Takes frames off a stream. Dropping a read that waits loses nothing.
pub(super) struct Reader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame.
    pub(super) async fn next(&mut self) -> io::Result<ControlFrame> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A frame that has been read already.
    pub(super) fn buffered(&mut self) -> io::Result<Option<ControlFrame>> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            let text = format!("a frame of {length} bytes is over the limit of {FRAME_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let frame = ControlFrame::decode(self.buffer.split_to(length).freeze());
        frame.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use openraft::type_config::TypeConfigExt;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::peer::{PingRequest, control_frame::Body};
    use crate::types::TypeConfig;

    /// Frames come out as they went in, however the bytes are cut; one that is too large is an error.
    #[tokio::test]
    async fn frames_survive_any_cut() {
        let frames: Vec<_> = (1..4).map(|id| ControlFrame { id, body: Some(Body::Ping(PingRequest {})) }).collect();
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| put(&mut bytes, frame));
        let (mut there, here) = tokio::io::duplex(3);
        let mut reader = Reader::new(here);
        let writing = async { there.write_all(&bytes).await.expect("read in time") };
        let reading = async {
            for frame in &frames {
                assert_eq!(&reader.next().await.expect("whole"), frame);
            }
        };
        futures::future::join(writing, reading).await;
        let large = TypeConfig::spawn(async move { there.write_all(&[0x7f, 0, 0, 0]).await });
        assert_eq!(reader.next().await.expect_err("too large").kind(), io::ErrorKind::InvalidData);
        large.await.expect("no panic").expect("written");
    }
}
