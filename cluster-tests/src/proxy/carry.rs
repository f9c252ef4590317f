//! One connection: two directions, each read, held for as long as its link says, and written.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::link::{Flow, Link, Orders, Shape};
use crate::random::Random;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// Chunks under way in one direction; beyond them the sender is not read, as when its window is full.
const CHUNKS_MAX: usize = 64;

/// What one direction carries.
enum Item {
    Bytes(Vec<u8>, Instant),
    /// No more will come.
    End,
    /// The sender's connection broke.
    Broken,
}

/// Why a connection is over.
enum Over {
    Reset,
    Gone,
}

/// Carries a connection until it is over.
pub(super) async fn carry(
    mut dialled: TcpStream,
    mut answered: TcpStream,
    up: &Arc<Link>,
    down: &Arc<Link>,
    mut random: Random,
) {
    // Latency is the link's business alone.
    let _small_packets = (dialled.set_nodelay(true), answered.set_nodelay(true));
    let (jitter_up, jitter_down) = (Random::new(random.draw()), Random::new(random.draw()));
    let over = {
        let (from_dialled, to_dialled) = dialled.split();
        let (from_answered, to_answered) = answered.split();
        let both = async {
            tokio::try_join!(
                direction(up, from_dialled, to_answered, jitter_up),
                direction(down, from_answered, to_dialled, jitter_down),
            )
        };
        tokio::select! {
            done = both => if done.is_ok() { Over::Gone } else { Over::Reset },
            link = ordered_reset(up, down) => {
                link.note_reset();
                Over::Reset
            }
        }
    };
    match over {
        Over::Gone => {}
        Over::Reset => {
            reset(&dialled);
            reset(&answered);
        }
    }
}

/// Makes the end of a connection a reset.
pub(super) fn reset(stream: &TcpStream) {
    let _not_connected = stream.set_zero_linger();
}

async fn ordered_reset<'a>(up: &'a Arc<Link>, down: &'a Arc<Link>) -> &'a Arc<Link> {
    tokio::select! {
        () = ordered(up, |orders| orders.resets) => up,
        () = ordered(down, |orders| orders.resets) => down,
    }
}

/// Returns when the link is given an order that it had not when this was called.
async fn ordered(link: &Link, which: impl Fn(&Orders) -> u64) {
    let mut orders = link.orders();
    let before = which(&orders.borrow_and_update());
    if orders.wait_for(|now| which(now) != before).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn direction(link: &Arc<Link>, from: ReadHalf<'_>, to: WriteHalf<'_>, random: Random) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let ((), written) = tokio::join!(read(link, from, sender, random), write(link, receiver, to));
    written
}

async fn read(link: &Link, mut from: ReadHalf<'_>, to: mpsc::Sender<Item>, mut random: Random) {
    let mut due = Instant::now();
    loop {
        let mut bytes = vec![0; CHUNK];
        // A writer that is done ends the reading too: nobody would take what comes.
        let got = tokio::select! {
            got = from.read(&mut bytes) => got,
            () = to.closed() => return,
        };
        let item = match got {
            Ok(0) => Item::End,
            Ok(count) => {
                bytes.truncate(count);
                let shape = link.shape();
                let wait = wait(shape, count, &mut random);
                if !wait.is_zero() {
                    link.note_slowed(count);
                }
                // A pipe has one rate: what comes behind waits for what is before it.
                let begin = if shape.bytes_per_second.is_some() { due.max(Instant::now()) } else { Instant::now() };
                due = due.max(begin + wait);
                Item::Bytes(bytes, due)
            }
            Err(_) => Item::Broken,
        };
        let last = !matches!(item, Item::Bytes(..));
        if to.send(item).await.is_err() || last {
            return;
        }
    }
}

fn wait(shape: Shape, count: usize, random: &mut Random) -> Duration {
    let jitter = Duration::from_micros(random.within(0..u64::try_from(shape.jitter.as_micros()).unwrap_or(0) + 1));
    let rate = shape
        .bytes_per_second
        .map_or(Duration::ZERO, |rate| Duration::from_micros(1_000_000 * count as u64 / rate.max(1)));
    shape.delay + jitter + rate
}

async fn write(link: &Link, mut from: mpsc::Receiver<Item>, mut to: WriteHalf<'_>) -> io::Result<()> {
    let mut shapes = link.shapes();
    let half_close = ordered(link, |orders| orders.half_closes);
    tokio::pin!(half_close);
    loop {
        let item = tokio::select! {
            item = from.recv() => item,
            () = &mut half_close => {
                link.note_half_close();
                to.shutdown().await?;
                // What comes now is taken and lost: the sender believes that it is read.
                while let Some(Item::Bytes(..)) = from.recv().await {}
                return Ok(());
            }
        };
        if let Some(Item::Bytes(bytes, due)) = &item {
            if shapes.borrow().flow == Flow::Stalled {
                link.note_held(bytes.len());
            }
            tokio::time::sleep_until(*due).await;
        }
        open(&mut shapes).await;
        match item {
            Some(Item::Bytes(mut bytes, _)) => {
                link.pass(&mut bytes);
                to.write_all(&bytes).await?;
            }
            Some(Item::Broken) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Item::End) | None => return to.shutdown().await,
        }
    }
}

async fn open(shapes: &mut watch::Receiver<Shape>) {
    let _open = shapes.wait_for(|shape| shape.flow == Flow::Open).await;
}
