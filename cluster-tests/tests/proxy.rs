//! The proxy, on its own: each way in which it can treat a connection is seen from both ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::proxy::{Dialling, Link, Network, Place, Shape};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const A: Place = Place::Client(1);
const B: Place = Place::Replica(1);

/// Longer than anything here takes; shorter than a reader's patience.
const LONG: Duration = Duration::from_secs(20);
/// Nothing that is on its way needs this long on loopback.
const SILENCE: Duration = Duration::from_millis(300);

struct Line {
    network: Network,
    proxy: SocketAddr,
    listener: TcpListener,
}

impl Line {
    async fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let network = Network::new(7);
        let free = "127.0.0.1:0".parse()?;
        let proxy = network.proxy(free, Dialling::From(A), B, listener.local_addr()?).await?;
        Ok(Self { network, proxy, listener })
    }

    async fn connect(&self) -> Result<(TcpStream, TcpStream)> {
        let (dialled, accepted) = tokio::join!(TcpStream::connect(self.proxy), self.listener.accept());
        Ok((dialled?, accepted?.0))
    }

    fn up(&self) -> Arc<Link> {
        self.network.link(A, B)
    }

    fn down(&self) -> Arc<Link> {
        self.network.link(B, A)
    }
}

async fn read(from: &mut TcpStream, count: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    tokio::time::timeout(LONG, from.read_exact(&mut bytes)).await??;
    Ok(bytes)
}

async fn is_silent(from: &mut TcpStream) -> bool {
    tokio::time::timeout(SILENCE, from.read(&mut [0])).await.is_err()
}

/// Bytes pass unchanged in both directions, and the end of one direction is passed on alone.
#[tokio::test]
async fn passes() -> Result<()> {
    let line = Line::new().await?;
    let (mut a, mut b) = line.connect().await?;
    let much: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let (sent, got) = tokio::join!(a.write_all(&much), read(&mut b, much.len()));
    sent?;
    ensure!(got? == much);
    a.shutdown().await?;
    ensure!(b.read(&mut [0]).await? == 0);
    b.write_all(b"still").await?;
    ensure!(read(&mut a, 5).await? == b"still");
    ensure!(line.up().passed().bytes == much.len() as u64 && line.down().passed().bytes == 5);
    Ok(())
}

/// One direction is delayed and stays in order, the other is not.
#[tokio::test]
async fn delays_one_direction() -> Result<()> {
    let line = Line::new().await?;
    let (mut a, mut b) = line.connect().await?;
    let (delay, jitter) = (Duration::from_millis(200), Duration::from_millis(50));
    line.up().set(Shape { delay, jitter, ..Shape::default() });
    let sent = Instant::now();
    for n in 0..20_u8 {
        a.write_all(&[n]).await?;
        tokio::task::yield_now().await;
    }
    ensure!(read(&mut b, 20).await? == (0..20).collect::<Vec<u8>>());
    ensure!(sent.elapsed() >= delay && line.up().passed().slowed >= 20);
    let sent = Instant::now();
    b.write_all(b"x").await?;
    read(&mut a, 1).await?;
    ensure!(sent.elapsed() < delay, "the other direction is as late");
    Ok(())
}

/// A stalled direction keeps what is sent until it is healed; the other direction works meanwhile. Nobody is told.
#[tokio::test]
async fn stalls_one_direction() -> Result<()> {
    let line = Line::new().await?;
    let (mut a, mut b) = line.connect().await?;
    line.up().stall();
    a.write_all(b"lost?").await?;
    b.write_all(b"heard").await?;
    ensure!(read(&mut a, 5).await? == b"heard");
    ensure!(is_silent(&mut b).await && line.up().passed().held >= 5);
    line.up().heal();
    ensure!(read(&mut b, 5).await? == b"lost?");
    Ok(())
}

/// While a direction is stalled the end of a connection does not arrive either, and new connections are not made.
#[tokio::test]
async fn a_stall_hides_the_end() -> Result<()> {
    let line = Line::new().await?;
    let (a, mut b) = line.connect().await?;
    line.up().stall();
    drop(a);
    ensure!(is_silent(&mut b).await);
    let _dialled = TcpStream::connect(line.proxy).await?;
    ensure!(tokio::time::timeout(SILENCE, line.listener.accept()).await.is_err() && line.up().passed().dials_held == 1);
    line.network.heal();
    ensure!(b.read(&mut [0]).await.is_ok_and(|count| count == 0));
    tokio::time::timeout(LONG, line.listener.accept()).await??;
    Ok(())
}

/// A narrow link carries what its width says.
#[tokio::test]
async fn is_narrow() -> Result<()> {
    let line = Line::new().await?;
    let (mut a, mut b) = line.connect().await?;
    line.up().set(Shape { bytes_per_second: Some(100_000), ..Shape::default() });
    let begun = Instant::now();
    let bytes = vec![1; 40_000];
    let (sent, got) = tokio::join!(a.write_all(&bytes), read(&mut b, 40_000));
    sent?;
    got?;
    let took = begun.elapsed();
    ensure!(took >= Duration::from_millis(390) && took < Duration::from_secs(5), "it took {took:?}");
    Ok(())
}

/// A reset reaches both ends as one, at once, and the next connection works.
#[tokio::test]
async fn resets() -> Result<()> {
    let line = Line::new().await?;
    let (mut a, mut b) = line.connect().await?;
    a.write_all(b"x").await?;
    read(&mut b, 1).await?;
    line.down().reset();
    for end in [&mut a, &mut b] {
        let error = tokio::time::timeout(LONG, end.read(&mut [0])).await?.expect_err("an end was reset");
        ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
    }
    ensure!(line.down().passed().resets == 1);
    let (mut a, mut b) = line.connect().await?;
    a.write_all(b"y").await?;
    ensure!(read(&mut b, 1).await? == b"y");
    Ok(())
}

/// Half-closed, one end reads the end and can still be heard.
#[tokio::test]
async fn half_closes() -> Result<()> {
    let line = Line::new().await?;
    let (mut a, mut b) = line.connect().await?;
    a.write_all(b"x").await?;
    read(&mut b, 1).await?;
    line.up().half_close();
    ensure!(tokio::time::timeout(LONG, b.read(&mut [0])).await?? == 0);
    b.write_all(b"heard").await?;
    ensure!(read(&mut a, 5).await? == b"heard");
    a.write_all(b"lost").await?;
    ensure!(line.up().passed().half_closes == 1);
    Ok(())
}

/// Exactly the byte that was asked for is changed, once.
#[tokio::test]
async fn corrupts_one_byte() -> Result<()> {
    let line = Line::new().await?;
    let (mut a, mut b) = line.connect().await?;
    line.up().corrupt(150);
    let zeroes = vec![0; 100];
    let mut got = Vec::new();
    for _ in 0..3 {
        a.write_all(&zeroes).await?;
        got.extend(read(&mut b, 100).await?);
    }
    let changed: Vec<usize> = got.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
    ensure!(changed == [150], "{changed:?}");
    ensure!(line.up().passed().corrupted == 1);
    Ok(())
}

/// Where nobody listens, who dials is told at once.
#[tokio::test]
async fn nobody_listens() -> Result<()> {
    let line = Line::new().await?;
    let Line { network: _kept, proxy, listener } = line;
    drop(listener);
    let mut a = TcpStream::connect(proxy).await?;
    let read = tokio::time::timeout(LONG, a.read(&mut [0])).await?;
    ensure!(read.is_err(), "an end, not an error: {read:?}");
    Ok(())
}

/// Behind a proxy for all replicas, the links are those of the process that dialled.
#[tokio::test]
async fn knows_who_dials() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let network = Network::new(7);
    network.owners().set(5, std::process::id());
    let proxy = network.proxy("127.0.0.1:0".parse()?, Dialling::Replicas, B, listener.local_addr()?).await?;
    let (a, b) = tokio::join!(TcpStream::connect(proxy), listener.accept());
    let (mut a, mut b) = (a?, b?.0);
    a.write_all(b"abc").await?;
    read(&mut b, 3).await?;
    ensure!(network.link(Place::Replica(5), B).passed().bytes == 3);
    Ok(())
}
