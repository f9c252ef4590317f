//! A snapshot on its way over a connection that breaks off again and again.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::select;
use quilt_proto::{Op, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Cluster, DEADLINE, key, last, noise};

/// A connection breaks off behind so many bytes of one direction.
const BREAKS: u64 = 2 << 20;
/// What is on its way when a connection breaks off, and so lost: a piece of a file, and what frames it.
const LOST: u64 = (1 << 20) + (64 << 10);
/// The state is made of so many values of this size.
const VALUES: u32 = 32;
const VALUE: usize = 256 << 10;

/// What went over a way, in the direction of its end.
#[derive(Default)]
struct Way {
    bytes: AtomicU64,
    broken: AtomicU64,
}

impl Way {
    /// Carries all connections to `end`, each only so far.
    async fn carry(self: Arc<Self>, entrance: TcpListener, end: SocketAddr) {
        loop {
            let (from, _) = entrance.accept().await.expect("accepts");
            let way = Arc::clone(&self);
            tokio::spawn(async move {
                // Whoever is not there refuses, as without a way in between.
                let Ok(to) = TcpStream::connect(end).await else { return };
                way.one(from, to).await;
            });
        }
    }

    async fn one(&self, from: TcpStream, to: TcpStream) {
        let ((mut from_read, mut from_write), (mut to_read, mut to_write)) = (from.into_split(), to.into_split());
        let forth = async {
            let (mut carried, mut buffer) = (0, vec![0; 64 << 10]);
            while carried < BREAKS {
                let count = match from_read.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                };
                if to_write.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
                carried += count as u64;
                self.bytes.fetch_add(count as u64, Ordering::Relaxed);
            }
            self.broken.fetch_add(1, Ordering::Relaxed);
        };
        let back = copy(&mut to_read, &mut from_write);
        // Whichever ends first ends both.
        drop(select(pin!(forth), pin!(back)).await);
    }
}

/// A replica that was away for longer than the log gets its snapshot over connections of which none carries the whole of it: each goes on
/// where the one before broke off, so no more is sent twice than the piece that each break cuts through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_it_broke_off() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let away = cluster.ids().into_iter().find(|id| *id != leader).expect("a follower");
    let entrance = cluster.address(away);
    cluster.shut_down(away).await;
    for number in 0..VALUES {
        let txn = Txn::new(vec![], vec![Op::put(&key(&format!("large-{number}")), noise(number, VALUE))]);
        last(cluster.get(leader).propose(txn, DEADLINE).await.expect("applied"));
    }
    cluster.get(leader).admin().cut_log(0).await.expect("cut").expect("something was let go");

    let behind = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let way = Arc::new(Way::default());
    let carrying = tokio::spawn(
        Arc::clone(&way)
            .carry(TcpListener::bind(entrance).await.expect("free again"), behind.local_addr().expect("bound")),
    );
    cluster.restart_at(away, behind).await;
    cluster.until(away, |status| status.ready).await;
    cluster.same_state().await;

    let (broken, bytes, state) =
        (way.broken.load(Ordering::Relaxed), way.bytes.load(Ordering::Relaxed), u64::from(VALUES) * VALUE as u64);
    assert!(broken >= state / BREAKS - 1, "{broken} connections broke off");
    // Also the last connection carries more than the snapshot.
    assert!(bytes < state + (broken + 1) * LOST, "{bytes} bytes were sent of a state of {state}, {broken} broke off");
    carrying.abort();
    cluster.stop().await;
}
