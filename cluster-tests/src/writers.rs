//! Clients that never stop writing, one through each replica, and the judgement of what became of their writes.
//!
//! Each write is a POST of a ConfigMap with a generated name, numbered in its data. A write applied twice makes two objects of one number,
//! whatever names they have; an acknowledged one that is lost leaves its number without an object.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::cluster::{items, text};
use crate::wait::until;

/// The path all writers write to.
pub const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// One acknowledged write.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// The number it carries.
    pub number: u64,
    /// The name it was given.
    pub name: String,
    /// When the answer had arrived.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
}

/// What one writer has seen.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The answers that said created, in order.
    pub acknowledged: Vec<Acknowledged>,
    /// Everything else.
    pub errors: Vec<String>,
    /// Numbers given out.
    pub tried: u64,
}

#[derive(Debug)]
struct Writer {
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

/// Running writers.
#[derive(Debug)]
pub struct Writers {
    writers: BTreeMap<u16, Writer>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    /// Starts one writer for each client, called by its replica's number.
    ///
    /// # Errors
    /// When a client cannot be made.
    pub fn start(clients: impl IntoIterator<Item = (u16, Client)>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = BTreeMap::new();
        for (id, client) in clients {
            let record: Arc<Mutex<Record>> = Arc::default();
            let task = tokio::spawn(write(id, client.separate()?, record.clone(), stop.clone()));
            writers.insert(id, Writer { record, task });
        }
        Ok(Self { writers, stop })
    }

    /// What the writer of this replica has seen so far.
    ///
    /// # Panics
    /// When there is none: a mistake of the test.
    #[must_use]
    pub fn record(&self, id: u16) -> Record {
        self.writers[&id].record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until each of these writers has so many more writes acknowledged than now.
    ///
    /// # Errors
    /// When they do not in time, with what they met instead.
    pub async fn progress(&self, ids: &[u16], more: usize) -> Result<()> {
        for id in ids {
            let wanted = self.record(*id).acknowledged.len() + more;
            until(&format!("{more} more acknowledged writes through replica {id}"), || async {
                let record = self.record(*id);
                let count = record.acknowledged.len();
                ensure!(count >= wanted, "{count} of {wanted} acknowledged; errors: {:?}", record.errors);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Ends all writers after the write each is in.
    ///
    /// # Errors
    /// When one has panicked.
    pub async fn stop(self) -> Result<BTreeMap<u16, Record>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut records = BTreeMap::new();
        for (id, writer) in self.writers {
            writer.task.await?;
            let record = writer.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
            records.insert(id, record);
        }
        Ok(records)
    }
}

async fn write(id: u16, client: Client, record: Arc<Mutex<Record>>, stop: Arc<AtomicBool>) {
    let locked = || record.lock().unwrap_or_else(PoisonError::into_inner);
    while !stop.load(Ordering::Relaxed) {
        let number = locked().tried;
        locked().tried += 1;
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"generateName": format!("write-{id}-"), "labels": {"writer": id.to_string()}},
            "data": {"number": number.to_string()},
        });
        let sent = Instant::now();
        let answer = client.post(PATH, &body).await.and_then(|reply| reply.expect(201));
        match answer {
            Ok(object) => locked().acknowledged.push(Acknowledged {
                number,
                name: text(&object["metadata"]["name"]),
                at: Instant::now(),
                took: sent.elapsed(),
            }),
            Err(error) => {
                locked().errors.push(format!("write {number} through replica {id}: {error:#}"));
                // The replica is dead: an answer that fails at once is not asked for in a tight loop.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Judges the records against what a replica shows: every acknowledged write is there under its name, and no number twice.
///
/// # Errors
/// With the first write that was lost or doubled.
pub async fn judge(records: &BTreeMap<u16, Record>, client: &Client) -> Result<()> {
    for (id, record) in records {
        let list = client.get(&format!("{PATH}?labelSelector=writer%3D{id}")).await?.expect(200)?;
        let mut present: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for object in items(&list) {
            let Ok(number) = text(&object["data"]["number"]).parse() else {
                bail!("an object of writer {id} has no number: {object}");
            };
            present.entry(number).or_default().push(text(&object["metadata"]["name"]));
        }
        for write in &record.acknowledged {
            let names = present.get(&write.number).map(Vec::as_slice).unwrap_or_default();
            ensure!(
                names.contains(&write.name),
                "write {} through replica {id} was acknowledged as \"{}\" and is lost; there is {names:?}",
                write.number,
                write.name
            );
        }
        for (number, names) in &present {
            ensure!(
                names.len() == 1,
                "write {number} through replica {id} was applied {} times: {names:?}",
                names.len()
            );
            ensure!(*number < record.tried, "write {number} through replica {id} was never sent");
        }
    }
    Ok(())
}

/// The number each object of the writers carries, by name, for comparing with what a watch has shown.
///
/// # Errors
/// When the object is no writer's.
pub fn name_of(object: &Value) -> Result<String> {
    let name = text(&object["metadata"]["name"]);
    ensure!(!name.is_empty(), "an event without a name: {object}");
    Ok(name)
}

/// [`pause_and_median`] of a writer of live replica `id`, which has not seen a single error.
///
/// # Errors
/// It has.
pub fn unharmed(id: u16, record: &Record) -> Result<(Duration, Duration)> {
    ensure!(record.errors.is_empty(), "a client of live replica {id} saw {:?}", record.errors);
    Ok(pause_and_median(record))
}

/// The longest time a writer had nothing acknowledged, and the median time of a write.
#[must_use]
pub fn pause_and_median(record: &Record) -> (Duration, Duration) {
    let longest = record.acknowledged.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at)).max();
    let mut took: Vec<Duration> = record.acknowledged.iter().map(|write| write.took).collect();
    took.sort();
    (longest.unwrap_or_default(), took.get(took.len() / 2).copied().unwrap_or_default())
}
