//! Replicas whose state is damaged on disk, at rest and at work: the damage is never served, the rest go on, and the
//! replica comes back under its number with the state of a peer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quilt_proto::{Op, Txn};
use quilt_raft::{Consistency, OpenError, Repaired};
use quilt_state::{Batch, Family, Store};
use quilt_storage::Home;

use crate::harness::{Cluster, DEADLINE, create, key, last, noise};

/// The tables of a replica's state, the largest first.
fn tables(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for state in std::fs::read_dir(data.join("state")).expect("there are states").flatten() {
        for file in std::fs::read_dir(state.path()).into_iter().flatten().flatten() {
            if file.path().extension().is_some_and(|ending| ending == "sst") {
                found.push((file.metadata().expect("there").len(), file.path()));
            }
        }
    }
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// What a file holds, with another bit in its middle.
fn flipped(path: &Path) -> Vec<u8> {
    let mut content = std::fs::read(path).expect("readable");
    let middle = content.len() / 2;
    content[middle] ^= 0x40;
    content
}

fn flip_in_the_middle(path: &Path) {
    let content = flipped(path);
    // In place: an open table is the same file.
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("writable");
    std::os::unix::fs::FileExt::write_all_at(&file, &content, 0).expect("written");
}

/// Writes values that do not compress away.
async fn fill(cluster: &Cluster, through: u64, names: std::ops::Range<u32>) {
    for n in names {
        let txn = Txn::new(vec![], vec![Op::put(&key(&format!("f{n}")), noise(n, 2_000))]);
        last(cluster.get(through).propose(txn, DEADLINE).await.expect("applied"));
    }
}

/// Three replicas that all hold so many values, their leader, and who follows it.
async fn filled(values: u32) -> (Cluster, u64, Vec<u64>) {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let followers = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    fill(&cluster, leader, 0..values).await;
    cluster.wait_for_revision(u64::from(values)).await;
    (cluster, leader, followers)
}

/// A byte rots while a replica is down. It is found when the state is read, which stops the replica; the next start takes
/// a peer's state, and the replica is a voter as before. Whatever it answered in between was right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_in_a_replica_that_was_down_is_repaired() {
    let (mut cluster, leader, followers) = filled(150).await;
    let hit = followers[0];
    cluster.shut_down(hit).await;
    flip_in_the_middle(&tables(&cluster.data(hit))[0]);
    fill(&cluster, leader, 150..180).await;
    cluster.restart(hit).await;
    let why = cluster.stopped(hit).await;
    assert!(why.contains("damaged") && why.contains("checksum") && why.contains(".sst"), "{why}");
    assert!(Home::is_condemned(&cluster.data(hit)));
    // The others have not noticed.
    fill(&cluster, leader, 180..190).await;
    cluster.restart(hit).await;
    assert!(!Home::is_condemned(&cluster.data(hit)));
    assert!(cluster.data(hit).join("damaged").is_dir(), "what was damaged is kept to be looked at");
    cluster.until(hit, |status| status.ready && status.scanned.as_ref().is_some_and(|scanned| scanned.fits)).await;
    cluster.same_state().await;
    let view = cluster.get(hit).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    for n in 0..190 {
        assert!(view.get(&key(&format!("f{n}"))).expect("readable").is_some());
    }
    // It is counted on: without another one there is still a majority.
    cluster.shut_down(followers[1]).await;
    let member = cluster.get(hit).status().members.into_iter().find(|member| member.id.0 == hit).expect("a member");
    assert!(member.voter);
    last(cluster.get(hit).propose(create("after"), DEADLINE).await.expect("two of three agree"));
    cluster.stop().await;
}

/// A byte rots under a replica at work, on the leader of all: the scan meets it, the replica leaves, the others elect and
/// go on, and it comes back whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_under_the_leader_is_found_and_repaired() {
    let (mut cluster, leader, _) = filled(150).await;
    cluster.home(leader).state.flush().expect("flushed");
    flip_in_the_middle(&tables(&cluster.data(leader))[0]);
    let why = cluster.stopped(leader).await;
    assert!(why.contains("family versions"), "{why}");
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    fill(&cluster, next, 150..160).await;
    cluster.restart(leader).await;
    cluster.until(leader, |status| status.ready).await;
    cluster.same_state().await;
    cluster.stop().await;
}

/// A row that nobody wrote, in a table without a fault: block checksums cannot tell, the hash does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_never_written_is_found_by_the_hash() {
    let (mut cluster, _, followers) = filled(20).await;
    let hit = followers[0];
    let mut batch = Batch::default();
    let row = quilt_state::row::version(key("rogue").bytes(), quilt_proto::Revision::new(7));
    let record = quilt_proto::Record { create_revision: 7, mod_revision: 7, value: "{}".into(), ..Default::default() };
    batch.put(Family::Versions, row, prost::Message::encode_to_vec(&record));
    cluster.home(hit).state.write(&batch).expect("written");
    let why = cluster.stopped(hit).await;
    assert!(why.contains("hash"), "{why}");
    cluster.restart(hit).await;
    cluster.until(hit, |status| status.ready).await;
    cluster.same_state().await;
    let view = cluster.get(hit).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    assert_eq!(view.get(&key("rogue")).expect("readable"), None);
    cluster.stop().await;
}

/// Two of three replicas are needed, one is gone and one has lost its state: nobody leads, and still the state is taken
/// from the one that is left, after which there is a quorum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_state_is_taken_from_a_peer_that_does_not_lead() {
    let (mut cluster, leader, followers) = filled(30).await;
    cluster.shut_down(leader).await;
    cluster.shut_down(followers[0]).await;
    std::fs::remove_dir_all(cluster.data(followers[0]).join("state")).expect("removed");
    cluster.restart(followers[0]).await;
    for id in &followers {
        cluster.until(*id, |status| status.ready).await;
    }
    last(cluster.get(followers[1]).propose(create("after"), DEADLINE).await.expect("two of three agree"));
    assert_eq!(cluster.same_state().await, 31);
    cluster.restart(leader).await;
    cluster.wait_for_revision(31).await;
    cluster.same_state().await;
    cluster.stop().await;
}

/// A log that was cut since is no obstacle: the state taken reaches as far as the log begins, and one that does not is
/// refused by the one who asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_state_is_replaced_behind_a_cut_log() {
    let (mut cluster, _, followers) = filled(60).await;
    let hit = followers[0];
    cluster.get(hit).admin().cut_log(0).await.expect("cut");
    cluster.until(hit, |status| status.purged_index.is_some_and(|index| index >= 50)).await;
    cluster.shut_down(hit).await;
    // Its own snapshot covers as much; without it a peer is needed.
    std::fs::remove_dir_all(cluster.data(hit).join("snapshots")).expect("removed");
    std::fs::remove_file(cluster.data(hit).join("state/CURRENT")).expect("removed");
    cluster.restart(hit).await;
    cluster.until(hit, |status| status.ready).await;
    cluster.same_state().await;
    cluster.stop().await;
}

/// A replica that is alone and has no snapshot cannot make its state anew: it says so and does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_it_says_what_to_do() {
    let mut cluster = Cluster::start(1).await;
    fill(&cluster, 1, 0..5).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.shut_down(1).await;
    std::fs::remove_file(cluster.data(1).join("state/CURRENT")).expect("removed");
    match cluster.try_restart(1).await {
        Err(error @ OpenError::NoState { .. }) => {
            assert!(error.to_string().contains("CURRENT") && error.to_string().contains("recovery.md"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// The files of a replica's log with an ending, the largest first.
fn of_log(data: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = std::fs::read_dir(data.join("log"))
        .expect("there is a log")
        .flatten()
        .filter(|file| file.path().extension().is_some_and(|found| found == ending))
        .map(|file| (file.metadata().expect("there").len(), file.path()))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// Writes out what is in memory, so that the log has tables: an open does.
async fn reopen(cluster: &mut Cluster, id: u64) {
    cluster.shut_down(id).await;
    cluster.restart(id).await;
    cluster.until(id, |status| status.ready).await;
}

async fn all_there(cluster: &Cluster, id: u64, names: u32) {
    let view = cluster.get(id).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    for n in 0..names {
        assert!(view.get(&key(&format!("f{n}"))).expect("readable").is_some(), "f{n}");
    }
}

/// A table of the log rots under a replica at work. The scan meets it and the replica stops; the next start finds that the
/// own state covers what is lost, and needs nobody for it. Both followers at once, at different places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_table_of_the_log_is_made_good_by_the_own_state() {
    let (mut cluster, _, followers) = filled(80).await;
    for id in &followers {
        reopen(&mut cluster, *id).await;
        cluster.home(*id).state.flush().expect("flushed");
    }
    let leader = cluster.leader().await;
    fill(&cluster, leader, 80..90).await;
    for id in &followers {
        flip_in_the_middle(&of_log(&cluster.data(*id), "sst")[0]);
    }
    for id in &followers {
        let why = cluster.stopped(*id).await;
        assert!(why.contains("the log is damaged") && why.contains(".sst"), "{why}");
        assert!(Home::is_condemned(&cluster.data(*id)));
    }
    for id in &followers {
        cluster.restart(*id).await;
        assert!(!Home::is_condemned(&cluster.data(*id)));
        assert!(cluster.data(*id).join("damaged-log").is_dir(), "what was damaged is kept to be looked at");
        assert_eq!(cluster.get(*id).status().repaired, [Repaired::Log]);
    }
    for id in &followers {
        cluster.until(*id, |status| status.ready).await;
    }
    let leader = cluster.leader().await;
    fill(&cluster, leader, 90..95).await;
    cluster.wait_for_revision(95).await;
    cluster.same_state().await;
    all_there(&cluster, followers[0], 95).await;
    cluster.stop().await;
}

/// What is lost of the log is not in the own state, which was lost as well: a peer's covers it, also of one that does not
/// lead, and the two are a quorum again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_entries_are_made_good_by_a_peer_that_does_not_lead() {
    let (mut cluster, _, followers) = filled(60).await;
    let hit = followers[0];
    reopen(&mut cluster, hit).await;
    let leader = cluster.leader().await;
    fill(&cluster, leader, 60..64).await;
    cluster.wait_for_revision(64).await;
    let other = cluster.ids().into_iter().find(|id| *id != hit && *id != leader).expect("the third");
    cluster.shut_down(leader).await;
    cluster.shut_down(hit).await;
    flip_in_the_middle(&of_log(&cluster.data(hit), "sst")[0]);
    std::fs::remove_dir_all(cluster.data(hit).join("state")).expect("removed");
    std::fs::remove_dir_all(cluster.data(hit).join("snapshots")).expect("removed");
    // As a scan would have said it.
    std::fs::write(cluster.data(hit).join("log/DAMAGED"), "a table").expect("written");
    cluster.restart(hit).await;
    assert_eq!(cluster.get(hit).status().repaired, [Repaired::State, Repaired::Log]);
    for id in [hit, other] {
        cluster.until(id, |status| status.ready).await;
    }
    last(cluster.get(hit).propose(create("after"), DEADLINE).await.expect("two of three agree"));
    cluster.restart(leader).await;
    cluster.wait_for_revision(65).await;
    cluster.same_state().await;
    cluster.stop().await;
}

/// The write-ahead log of a replica is damaged: nobody can say what it had acknowledged. While that may be what a quorum
/// rests on, the replica takes no part; once a leader has told how far it must reach, it has a state from there and is a
/// voter again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_end_is_lost_waits_for_a_leader() {
    let (mut cluster, leader, followers) = filled(20).await;
    let [lagging, hit] = followers[..] else { unreachable!("three replicas") };
    cluster.shut_down(lagging).await;
    // Acknowledged by the leader and the one that will be hit; the third has nothing of it.
    fill(&cluster, leader, 20..40).await;
    cluster.shut_down(hit).await;
    cluster.shut_down(leader).await;
    flip_in_the_middle(&of_log(&cluster.data(hit), "log")[0]);
    cluster.restart(lagging).await;
    let starting = cluster.begin_restart(hit);
    let elected = tokio::time::timeout(Duration::from_secs(4), cluster.leader()).await;
    assert_eq!(elected.ok(), None, "elected without what was acknowledged");
    assert!(!starting.is_finished(), "it came back although nobody could tell what it had acknowledged");
    // With the one that has it all there is a quorum without the replica that was hit.
    cluster.restart(leader).await;
    cluster.came_back(hit, starting).await;
    assert_eq!(cluster.get(hit).status().repaired, [Repaired::Log]);
    cluster.until(hit, |status| status.ready).await;
    cluster.same_state().await;
    all_there(&cluster, hit, 40).await;
    // It is counted on: it and the one that lagged go on alone.
    cluster.shut_down(leader).await;
    cluster.leader().await;
    last(cluster.get(hit).propose(create("after"), DEADLINE).await.expect("two of three agree"));
    all_there(&cluster, lagging, 40).await;
    cluster.restart(leader).await;
    cluster.same_state().await;
    cluster.stop().await;
}

/// The three replicas rot at once, each at another place: the state of one, the log of another, a table of the log of the
/// third. None has a whole copy, and together they have all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_at_another_place_of_each_replica() {
    let (mut cluster, leader, followers) = filled(80).await;
    for id in followers.iter().chain([&leader]) {
        reopen(&mut cluster, *id).await;
        cluster.home(*id).state.flush().expect("flushed");
    }
    let leader = cluster.leader().await;
    fill(&cluster, leader, 80..90).await;
    cluster.wait_for_revision(90).await;
    let ids = cluster.ids();
    for id in &ids {
        cluster.shut_down(*id).await;
    }
    flip_in_the_middle(&tables(&cluster.data(ids[0]))[0]);
    flip_in_the_middle(&of_log(&cluster.data(ids[1]), "sst")[0]);
    flip_in_the_middle(&of_log(&cluster.data(ids[2]), "log")[0]);
    cluster.restart(ids[0]).await;
    cluster.restart(ids[1]).await;
    // Both meet their damage when they read it, and come back.
    for id in &ids[..2] {
        let why = cluster.stopped(*id).await;
        assert!(why.contains("damaged"), "{why}");
    }
    cluster.restart(ids[1]).await;
    cluster.restart(ids[0]).await;
    for id in &ids[..2] {
        cluster.until(*id, |status| status.ready).await;
    }
    cluster.restart(ids[2]).await;
    cluster.until(ids[2], |status| status.ready).await;
    cluster.same_state().await;
    for id in ids {
        all_there(&cluster, id, 90).await;
    }
    cluster.stop().await;
}

/// A file of the leader's snapshot rots before it is sent: that is noticed there, another snapshot is made, and the replica
/// that needs it gets that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_not_sent() {
    let (mut cluster, leader, followers) = filled(10).await;
    let away = followers[0];
    cluster.shut_down(away).await;
    fill(&cluster, leader, 10..60).await;
    cluster.get(leader).admin().cut_log(0).await.expect("cut");
    cluster.until(leader, |status| status.purged_index.is_some_and(|index| index >= 40)).await;
    let kept =
        std::fs::read_dir(cluster.data(leader).join("snapshots")).expect("readable").flatten().next().expect("one");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(kept.path().join("data")).expect("readable").flatten().map(|file| file.path()).collect();
    files.sort_by_key(|file| std::fs::metadata(file).expect("there").len());
    let file = files.pop().expect("it has files");
    // Not the file of the state as well: that would be the state's damage.
    let content = flipped(&file);
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, content).expect("written");
    cluster.restart(away).await;
    cluster.until(away, |status| status.ready).await;
    cluster.same_state().await;
    all_there(&cluster, away, 60).await;
    assert!(cluster.get(leader).status().error.is_none());
    cluster.stop().await;
}
