//! `/api/agent/clusters/{c}/nodes/...`: what agents ask, by join token or node token. An agent never learns which
//! clusters or nodes exist: every wrong credential is the same 401.

pub(crate) mod allocation;
pub(crate) mod deregister;
pub(crate) mod events;
pub(crate) mod heartbeat;
pub(crate) mod materials;
pub(crate) mod peers;
pub(crate) mod placements;
pub(crate) mod register;
pub(crate) mod report;
