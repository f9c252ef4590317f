//! How messages of the service are read and written: as everywhere, but with buffers of their size. One is taken for each call
//! and kept for as long as it lasts, and the usual 8 KiB are half of what an idle watch may cost.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// What a small key with its value takes; larger messages have the buffer grow.
const BUFFER_BYTES: usize = 512;
/// Replies that wait are sent once they have so many bytes, as is usual.
const YIELD_BYTES: usize = 32 << 10;

/// Protocol buffers of small calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
