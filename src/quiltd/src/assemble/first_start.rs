//! What the first leader puts into an empty state: tenant and cluster `default`, and the first keys, by their hashes.

use std::time::Duration;

use anyhow::Context;
use quilt_api::RootKey;
use quilt_api::authn::Digest;
use quilt_api::roster::{Authorities, Roster};
use quilt_raft::{Leadership, Replica};
use tokio::sync::watch;

/// What is put there.
#[derive(Clone)]
pub(crate) struct First {
    pub(crate) admin_key_sha256: String,
    pub(crate) api_key_sha256: Option<String>,
    pub(crate) serving_ca_pem: String,
    /// The keys of the authorities, where this replica has them.
    pub(crate) authorities: Option<Authorities>,
}

/// Network of the pods of the built-in cluster.
const POD_CIDR: &str = "10.244.0.0/16";

/// Runs on every replica and acts on the one that leads. Repeating it changes nothing.
pub(crate) async fn bootstrap(
    replica: Replica,
    first: First,
    root: RootKey,
    mut stopping: watch::Receiver<bool>,
    deadline: Duration,
) {
    let mut leadership = replica.leadership();
    let make = async {
        loop {
            let leads = matches!(*leadership.borrow_and_update(), Leadership::Leader(_));
            if leads {
                match put(&replica, &first, &root, deadline).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "the first objects could not be made yet"),
                }
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = make => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

async fn put(replica: &Replica, first: &First, root: &RootKey, deadline: Duration) -> anyhow::Result<()> {
    let control_plane = quilt_api::bootstrap::ControlPlane {
        admin_key: digest(&first.admin_key_sha256)?,
        tenant_key: first.api_key_sha256.as_deref().map(digest).transpose()?,
        pod_cidr: POD_CIDR.into(),
        serving_ca_pem: first.serving_ca_pem.clone(),
    };
    quilt_api::bootstrap::control_plane(replica, &control_plane, deadline).await?;
    if let Some(authorities) = &first.authorities {
        Roster::new(replica.clone(), deadline).keep_authorities(root, authorities).await?;
    }
    Ok(())
}

fn digest(hex: &str) -> anyhow::Result<Digest> {
    Digest::from_hex(hex).context("bootstrap.json holds a key hash that is not 64 hexadecimal digits")
}
