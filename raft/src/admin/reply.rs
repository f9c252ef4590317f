//! The leader's answer to a change, as it travels: refusals keep their parts, so that whoever shows them can say more.

use quilt_proto::ReplicaId;

use crate::error::{AdminError, SilentVoter, UnsafeChange};
use crate::membership::Changed;
use crate::peer::admin_reply::Outcome;
use crate::peer::{self, AdminReply};

pub(super) fn written(changed: Result<Changed, AdminError>) -> AdminReply {
    let outcome = match changed {
        Ok(Changed::Done(id)) => Outcome::Done(id),
        Ok(Changed::Moved) | Err(AdminError::NotLeader { .. }) => Outcome::Moved(true),
        Err(AdminError::UnknownMember { id, members }) => Outcome::UnknownMember(peer::UnknownMember {
            id: id.0,
            members: members.into_iter().map(|member| member.0).collect(),
        }),
        Err(AdminError::Unsafe(change)) => Outcome::Unsafe(peer::UnsafeChange {
            id: change.id.0,
            left: change.left,
            reachable: change.reachable,
            needed: change.needed,
            silent: change
                .silent
                .into_iter()
                .map(|voter| peer::SilentVoter { id: voter.id.0, silent_ms: voter.silent_ms })
                .collect(),
        }),
        Err(AdminError::Timeout(text)) => Outcome::TimedOut(text),
        Err(AdminError::Refused(text)) => Outcome::Refused(text),
        Err(error @ (AdminError::Propose(_) | AdminError::Stopped)) => Outcome::Refused(error.to_string()),
    };
    AdminReply { outcome: Some(outcome) }
}

pub(super) fn read(reply: AdminReply) -> Result<Changed, AdminError> {
    match reply.outcome {
        Some(Outcome::Done(id)) => Ok(Changed::Done(id)),
        Some(Outcome::Moved(_)) => Ok(Changed::Moved),
        Some(Outcome::Refused(text)) => Err(AdminError::Refused(text)),
        Some(Outcome::TimedOut(text)) => Err(AdminError::Timeout(text)),
        Some(Outcome::UnknownMember(unknown)) => Err(AdminError::UnknownMember {
            id: ReplicaId(unknown.id),
            members: unknown.members.into_iter().map(ReplicaId).collect(),
        }),
        Some(Outcome::Unsafe(change)) => Err(AdminError::Unsafe(UnsafeChange {
            id: ReplicaId(change.id),
            left: change.left,
            reachable: change.reachable,
            needed: change.needed,
            silent: change
                .silent
                .into_iter()
                .map(|voter| SilentVoter { id: ReplicaId(voter.id), silent_ms: voter.silent_ms })
                .collect(),
        })),
        None => Err(AdminError::Refused("the leader gave an answer this release does not know".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A refusal arrives with all its parts, and a leader that is none sends the question on.
    #[test]
    fn refusals_keep_their_parts() {
        let silent = vec![SilentVoter { id: ReplicaId(3), silent_ms: Some(4200) }];
        let change = UnsafeChange { id: ReplicaId(2), left: 2, reachable: 1, needed: 2, silent };
        for error in [
            AdminError::Unsafe(change),
            AdminError::UnknownMember { id: ReplicaId(9), members: vec![ReplicaId(1)] },
            AdminError::Timeout("late".into()),
            AdminError::Refused("no".into()),
        ] {
            assert_eq!(read(written(Err(error.clone()))), Err(error));
        }
        assert_eq!(read(written(Err(AdminError::NotLeader { leader: None }))), Ok(Changed::Moved));
    }
}
