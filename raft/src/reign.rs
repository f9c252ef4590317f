//! Work of the leader: begun when this replica gains leadership, dropped when it loses it, and how such work gets its
//! first view of the state. Knows nothing of what the work is.

use std::future::Future;
use std::time::Duration;

use futures::future::{Either, select};
use openraft::type_config::TypeConfigExt;
use quilt_proto::{Key, KeyPrefix, Record};

use crate::error::ReadError;
use crate::host;
use crate::hub::EventStream;
use crate::leadership::LeaderId;
use crate::replica::Replica;
use crate::types::TypeConfig;
use crate::view::{Consistency, Limit};

/// Pause before work that ended under a leadership that lasts is begun anew.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Records listed at a time.
const PAGE: Limit = Limit { records: 1_000, bytes: 1 << 20 };

impl Replica {
    /// Does `work` during every leadership this replica holds, until `stop` completes. When the leadership is lost the
    /// work's future is dropped and with it all it holds; work that ends earlier is begun anew after a pause.
    pub async fn while_leading<F>(&self, stop: impl Future<Output = ()>, mut work: impl FnMut(LeaderId) -> F)
    where
        F: Future<Output = ()>,
    {
        let mut leadership = self.leadership();
        let mut stop = std::pin::pin!(stop);
        loop {
            let held = leadership.borrow_and_update().held();
            let reign = async {
                let Some(leader) = held else { return std::future::pending().await };
                loop {
                    work(leader).await;
                    TypeConfig::sleep(AGAIN_AFTER).await;
                }
            };
            let (reign, changed) = (std::pin::pin!(reign), std::pin::pin!(leadership.changed()));
            let over = std::pin::pin!(async {
                match select(changed, reign).await {
                    Either::Left((changed, _)) => changed.is_err(),
                    Either::Right((never, _)) => never,
                }
            });
            match select(&mut stop, over).await {
                Either::Left(_) | Either::Right((true, _)) => return,
                Either::Right((false, _)) => {}
            }
        }
    }

    /// Shows `each` every record below the prefixes of `list` as of one revision, then watches `watch` from there: what
    /// happens in between is neither missed nor told twice. The revision listed at is the stream's first position.
    ///
    /// # Errors
    /// See [`ReadError`]; what `each` was shown is worth nothing then.
    pub async fn list_then_watch(
        &self,
        consistency: Consistency,
        deadline: Duration,
        list: &[KeyPrefix],
        watch: KeyPrefix,
        mut each: impl FnMut(&Key, &Record),
    ) -> Result<EventStream, ReadError> {
        let view = self.read(consistency, deadline).await?;
        for prefix in list {
            let mut after: Option<Key> = None;
            loop {
                let page = view.scan(prefix, after.as_ref(), PAGE)?;
                for (key, record) in &page.records {
                    each(key, record);
                }
                after = page.records.into_iter().last().map(|(key, _)| key);
                if !page.more || after.is_none() {
                    break;
                }
                host::yield_now().await;
            }
        }
        Ok(self.watch(watch, view.revision()))
    }
}
