//! Who is not the peer that is meant gets nothing and is taken for nothing, over real connections: whoever dials, and whoever
//! answers.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use openraft::type_config::TypeConfigExt;
use quilt_proto::ReplicaId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::purpose::Purpose;
use super::*;
use crate::peer::data_client::DataClient;
use crate::peer::snapshot_transfer_client::SnapshotTransferClient;
use crate::peer::{AppendRequest, AskRequest, ForwardRequest, Hello, SnapshotAsk, SnapshotPart};
use crate::replica::{Options, Parts, Replica};
use crate::settings::Timing;
use crate::transport::TransportOptions;
use crate::transport::authority::Authority;
use crate::transport::connection::Introduce;
use crate::transport::control::introduce;
use crate::types::TypeConfig;

const DEADLINE: Duration = Duration::from_secs(20);

async fn in_time<T: Send>(wanted: impl Future<Output = T> + Send) -> T {
    TypeConfig::timeout(DEADLINE, wanted).await.expect("in time")
}

/// Replica 1 of three, of which the other two do not run.
async fn one_of_three(authority: &Authority) -> (Replica, String) {
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let id = ReplicaId(1);
    let options = Options { timing: Timing::relaxed(), epoch: 5, ..Options::new(id, "here") };
    let transport = TransportOptions { listener, identity: authority.identity(id) };
    let replica = Replica::open(options, Parts::memory(), Some(transport)).await.expect("opens");
    let nowhere = "127.0.0.1:1".to_owned();
    let members =
        BTreeMap::from([(id, address.clone()), (ReplicaId(2), nowhere.clone()), (ReplicaId(3), nowhere.clone())]);
    replica.admin().initialize(members).await.expect("founded");
    in_time(async {
        while replica.status().members.len() < 3 {
            TypeConfig::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    (replica, address)
}

/// Which of the others the replica believes to have heard.
fn heard(replica: &Replica) -> Vec<u64> {
    let members = replica.status().members;
    members.into_iter().filter(|it| it.last_heard_ms.is_some()).map(|it| it.id.0).collect()
}

/// Comes over the control connection.
async fn knock(tls: &Tls, address: &str, hello: &Hello) -> io::Result<()> {
    let (resets, _unused) = mpsc::unbounded_channel();
    let stream = control(tls, address, 1, resets).await?;
    introduce(stream, hello).await.map(drop)
}

/// Asks all that can be asked over the connections of log and snapshots; gives what came of each.
async fn ask_all(data: &Channel, snapshots: &Channel, hello: &Hello) -> [(&'static str, Result<(), Code>); 5] {
    let introduce = Introduce::new(hello).expect("plain ASCII");
    let mut data = DataClient::with_interceptor(data.clone(), introduce.clone());
    let mut snapshots = SnapshotTransferClient::with_interceptor(snapshots.clone(), introduce);
    let code = |status: tonic::Status| status.code();
    [
        ("append", data.append(stream::empty::<AppendRequest>()).await.map(drop).map_err(code)),
        ("forward", data.forward(ForwardRequest::default()).await.map(drop).map_err(code)),
        ("ask", data.ask(AskRequest::default()).await.map(drop).map_err(code)),
        ("fetch", snapshots.fetch(stream::empty::<SnapshotAsk>()).await.map(drop).map_err(code)),
        ("install", snapshots.install(stream::empty::<SnapshotPart>()).await.map(drop).map_err(code)),
    ]
}

/// Replica 2, with its own certificate: whatever it says that is not true of both, no connection takes, nothing that can be asked
/// is done, and it does not count as heard. What is true is taken on all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_says_is_checked_on_every_connection() {
    let authority = Authority::new();
    let (replica, address) = one_of_three(&authority).await;
    let tls = Arc::new(Tls::new(ReplicaId(2), authority.identity(ReplicaId(2))).expect("its own"));
    let data = data(1, &address, Arc::clone(&tls)).expect("an address");
    let snapshots = snapshots(1, &address, Arc::clone(&tls), &Handle::current()).expect("an address");

    let right = Hello { cluster: "here".into(), epoch: 5, from: 2, to: 1 };
    let wrong = [
        (Hello { cluster: "there".into(), ..right.clone() }, "control plane here, not there"),
        (Hello { epoch: 4, ..right.clone() }, "you are at 4"),
        (Hello { epoch: 6, ..right.clone() }, "you are at 6"),
        (Hello { to: 3, ..right.clone() }, "replica 1, not 3"),
        (Hello { from: 3, ..right.clone() }, "does not belong to replica 3"),
    ];
    for (hello, why) in wrong {
        let refused = in_time(knock(&tls, &address, &hello)).await.expect_err("refused");
        assert!(refused.to_string().contains(why), "{hello:?}: {refused}");
        for (what, came) in in_time(ask_all(&data, &snapshots, &hello)).await {
            assert_eq!(came, Err(Code::PermissionDenied), "{what} of {hello:?}");
        }
        assert_eq!(heard(&replica), Vec::<u64>::new(), "{hello:?}");
    }
    in_time(knock(&tls, &address, &right)).await.expect("welcome");
    assert_eq!(heard(&replica), [2]);
    for (what, came) in in_time(ask_all(&data, &snapshots, &right)).await {
        assert_eq!(came, Ok(()), "{what}");
    }
    replica.shutdown().await;
}

/// Comes over the control connection with a certificate of any kind, or none.
async fn intrude(
    root: CertificateDer<'static>,
    certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    address: &str,
    hello: &Hello,
) -> io::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks it")
        .with_root_certificates(roots);
    let mut config = match certificate {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).expect("they fit"),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![tls::CONTROL.to_vec()];
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(&[Purpose::Control.byte()]).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(tls::server_name(1), socket).await?;
    introduce(PeerStream::new(stream, 1, None), hello).await.map(drop)
}

/// Nobody is listened to whose certificate names no replica, or another one, or was given by somebody else, or who has none,
/// whatever is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_opens_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (replica, address) = one_of_three(&authority).await;
    let hello = Hello { cluster: "here".into(), epoch: 5, from: 2, to: 1 };
    let name = |id| peer_name(ReplicaId(id));
    let wrong = [
        ("of no replica", Some(authority.certify("quiltd.example".into()))),
        ("of a number that is none", Some(authority.certify("replica-two".into()))),
        ("of replica 3", Some(authority.certify(name(3)))),
        ("of replica 1 itself", Some(authority.certify(name(1)))),
        ("of another authority", Some(other.certify(name(2)))),
        ("none", None),
    ];
    for (whose, certificate) in wrong {
        let came = in_time(intrude(authority.root(), certificate, &address, &hello)).await;
        assert!(came.is_err(), "a certificate {whose}");
        assert_eq!(heard(&replica), Vec::<u64>::new(), "a certificate {whose}");
    }
    let own = Some(authority.certify(name(2)));
    in_time(intrude(authority.root(), own, &address, &hello)).await.expect("welcome");
    assert_eq!(heard(&replica), [2]);
    replica.shutdown().await;
}

/// Where another replica answers at a peer's address, whoever dials notices before it says anything, on every connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_at_an_address_must_be_who_was_meant() {
    let authority = Authority::new();
    let (replica, address) = one_of_three(&authority).await;
    let tls = Arc::new(Tls::new(ReplicaId(2), authority.identity(ReplicaId(2))).expect("its own"));
    let (resets, _unused) = mpsc::unbounded_channel();
    let taken = in_time(control(&tls, &address, 3, resets)).await.err();
    assert!(taken.as_ref().is_some_and(|error| error.to_string().contains("not valid for name")), "{taken:?}");

    // What would be said is true, so that nothing but the name can be what keeps it from being said.
    let true_words = Hello { cluster: "here".into(), epoch: 5, from: 2, to: 1 };
    let data = data(3, &address, Arc::clone(&tls)).expect("an address");
    let snapshots = snapshots(3, &address, Arc::clone(&tls), &Handle::current()).expect("an address");
    for (what, came) in in_time(ask_all(&data, &snapshots, &true_words)).await {
        assert!(came.is_err(), "{what}");
    }
    assert_eq!(heard(&replica), Vec::<u64>::new());
    replica.shutdown().await;
}

/// A replica does not start with the certificate of another one.
#[tokio::test]
async fn a_replica_needs_its_own_certificate() {
    let authority = Authority::new();
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let transport = TransportOptions { listener, identity: authority.identity(ReplicaId(3)) };
    let opened = Replica::open(Options::new(ReplicaId(2), "here"), Parts::memory(), Some(transport)).await;
    let refused = opened.expect_err("refused").to_string();
    assert!(refused.contains("does not carry the name replica-2"), "{refused}");
}
