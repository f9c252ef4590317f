//! [`Client`]: one connection to one server of either side. Everything around the call is the same for both: HTTP/2,
//! TLS, windows, runtime.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::wire::etcd::kv_client::KvClient as EtcdKv;
use super::wire::etcd::maintenance_client::MaintenanceClient;
use super::wire::etcd::watch_client::WatchClient;
use super::wire::etcd::{self, watch_request};
use super::wire::quilt::kv_client::KvClient as QuiltKv;
use super::wire::quilt::{self, watch_request::What};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// quiltd.
    Quiltd,
    /// etcd.
    Etcd,
}

/// How the servers of one side are reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dial {
    /// Whose they are.
    pub side: Side,
    /// IP:PORT of each.
    pub servers: Vec<String>,
    /// The authority their certificates are signed by, PEM.
    pub authority: String,
    /// What the operator of quiltd shows with every call; etcd asks for nothing here.
    pub token: Option<String>,
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freshness {
    /// Linearizable.
    Linear,
    /// What the server asked has applied; etcd calls it serializable.
    Stale,
}

/// One connection.
#[derive(Clone, Debug)]
pub enum Client {
    /// To a replica of quiltd.
    Quiltd {
        /// The key-value service.
        kv: QuiltKv<Channel>,
        /// Sent with every call.
        bearer: MetadataValue<Ascii>,
    },
    /// To a member of etcd.
    Etcd {
        /// Its connection.
        channel: Channel,
    },
}

/// Values of keys that have changed, as they come.
pub type Changes = Pin<Box<dyn Stream<Item = Result<Vec<Bytes>, Status>> + Send>>;

impl Dial {
    /// Connects to one of the servers.
    ///
    /// # Errors
    /// When it is not reached.
    pub async fn connect(&self, server: usize) -> Result<Client> {
        let address = self.servers[server % self.servers.len()].clone();
        let tls = self.tls()?;
        // The scheme only keeps tonic from adding TLS of its own: the connector below brings it.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let name = ServerName::try_from("localhost").context("a plain name")?;
        let to = address.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let (to, tls, name) = (to.clone(), tls.clone(), name.clone());
            async move {
                let socket = TcpStream::connect(&to).await?;
                socket.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(tls.connect(name, socket).await?))
            }
        });
        let channel =
            endpoint.connect_with_connector(connector).await.with_context(|| format!("no way to {address}"))?;
        Ok(match self.side {
            Side::Quiltd => {
                let token = self.token.as_deref().context("quiltd asks for the admin key")?;
                Client::Quiltd { kv: QuiltKv::new(channel), bearer: format!("Bearer {token}").parse()? }
            }
            Side::Etcd => Client::Etcd { channel },
        })
    }

    fn tls(&self) -> Result<TlsConnector> {
        // A second installation is refused and harmless.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.as_bytes()) {
            roots.add(certificate?)?;
        }
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn signed<T>(bearer: &MetadataValue<Ascii>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer.clone());
    request
}

impl Client {
    /// Writes a key.
    ///
    /// # Errors
    /// What the server says.
    pub async fn put(&mut self, key: String, value: Bytes) -> Result<(), Status> {
        match self {
            Self::Quiltd { kv, bearer } => {
                let put = quilt::PutRequest { key, value, expected_revision: None };
                kv.put(signed(bearer, put)).await.map(drop)
            }
            Self::Etcd { channel } => {
                EtcdKv::new(channel.clone()).put(etcd::PutRequest { key: key.into(), value }).await.map(drop)
            }
        }
    }

    /// Reads a key; the length of its value when it is there.
    ///
    /// # Errors
    /// What the server says.
    pub async fn get(&mut self, key: String, freshness: Freshness) -> Result<Option<usize>, Status> {
        match self {
            Self::Quiltd { kv, bearer } => {
                let consistency = match freshness {
                    Freshness::Linear => quilt::Consistency::Linearizable,
                    Freshness::Stale => quilt::Consistency::Stale,
                };
                let get = quilt::GetRequest { key, consistency: consistency.into(), revision: 0 };
                let reply = kv.get(signed(bearer, get)).await?.into_inner();
                Ok(reply.item.map(|item| item.value.len()))
            }
            Self::Etcd { channel } => {
                let range = etcd::RangeRequest { key: key.into(), serializable: freshness == Freshness::Stale };
                let reply = EtcdKv::new(channel.clone()).range(range).await?.into_inner();
                Ok(reply.kvs.first().map(|item| item.value.len()))
            }
        }
    }

    /// Watches one key; the watch is in place when this returns.
    ///
    /// # Errors
    /// What the server says.
    pub async fn watch(&mut self, key: String) -> Result<Changes, Status> {
        let ended = || Status::unavailable("the watch ended before it began");
        match self {
            Self::Quiltd { kv, bearer } => {
                let watch = quilt::WatchRequest { what: Some(What::Key(key)), after_revision: 0 };
                let mut replies = kv.watch(signed(bearer, watch)).await?.into_inner();
                replies.message().await?.ok_or_else(ended)?;
                Ok(replies
                    .map(|reply| Ok(reply?.events.into_iter().filter_map(|event| Some(event.item?.value)).collect()))
                    .boxed())
            }
            Self::Etcd { channel } => {
                let create = etcd::WatchCreateRequest { key: key.into() };
                let union = Some(watch_request::RequestUnion::CreateRequest(create));
                // The watch lives as long as the requests go on.
                let requests = futures::stream::iter([etcd::WatchRequest { request_union: union }]);
                let requests = requests.chain(futures::stream::pending());
                let mut replies = WatchClient::new(channel.clone()).watch(requests).await?.into_inner();
                let created = replies.message().await?.ok_or_else(ended)?;
                if !created.created {
                    return Err(ended());
                }
                Ok(replies
                    .map(|reply| Ok(reply?.events.into_iter().filter_map(|event| Some(event.kv?.value)).collect()))
                    .boxed())
            }
        }
    }

    /// What the member asked says of itself; of etcd only.
    ///
    /// # Errors
    /// What the server says.
    pub async fn etcd_status(&mut self) -> Result<EtcdStatus, Status> {
        let mut asked = self.etcd_maintenance()?;
        let status = asked.status(etcd::StatusRequest {}).await?.into_inner();
        let id = status.header.map_or(0, |header| header.member_id);
        Ok(EtcdStatus { id, leads: status.leader != 0 && status.leader == id, term: status.raft_term })
    }

    /// Has the member asked, which leads, hand over to another; of etcd only.
    ///
    /// # Errors
    /// What the server says.
    pub async fn etcd_move_leader(&mut self, to: u64) -> Result<(), Status> {
        let mut asked = self.etcd_maintenance()?;
        asked.move_leader(etcd::MoveLeaderRequest { target_id: to }).await.map(drop)
    }

    fn etcd_maintenance(&self) -> Result<MaintenanceClient<Channel>, Status> {
        match self {
            Self::Quiltd { .. } => Err(Status::unimplemented("quiltd has an operator's API of its own")),
            Self::Etcd { channel } => Ok(MaintenanceClient::new(channel.clone())),
        }
    }
}

/// What a member of etcd says of itself.
#[derive(Clone, Copy, Debug)]
pub struct EtcdStatus {
    /// Its id.
    pub id: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Its term.
    pub term: u64,
}
