//! [`Admission`]: whom a replica listens to. A peer says of which control plane it is, at which epoch, who it is and whom it
//! means; all four must be right, and its certificate must say the same of it. Knows no connection: whoever serves one asks.

use quilt_proto::ReplicaId;

use crate::peer::Hello;

/// What a peer's words are held against.
pub(crate) struct Admission {
    pub(crate) id: ReplicaId,
    pub(crate) cluster: String,
    pub(crate) epoch: u64,
}

impl Admission {
    /// Who asks, or why it is not listened to. `proven` is the replica that its certificate names.
    pub(super) fn judge(&self, proven: Option<u64>, hello: &Hello) -> Result<u64, String> {
        let Hello { cluster, epoch, from, to } = hello;
        if *cluster != self.cluster {
            return Err(format!("this is control plane {}, not {cluster}", self.cluster));
        }
        if *epoch != self.epoch {
            let reason = format!("this control plane is at epoch {}, you are at {epoch}", self.epoch);
            return Err(format!("{reason}: one side was restored from a backup and the other was not"));
        }
        if *to != self.id.0 {
            return Err(format!("this is replica {}, not {to}", self.id));
        }
        match proven {
            Some(peer) if peer == *from => Ok(peer),
            _ => Err(format!("the certificate does not belong to replica {from}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word that is wrong is enough to be refused, and the reason names it; only what is right in all of them is let in.
    #[test]
    fn one_wrong_word_is_enough() {
        let admission = Admission { id: ReplicaId(1), cluster: "here".into(), epoch: 5 };
        let right = Hello { cluster: "here".into(), epoch: 5, from: 2, to: 1 };
        assert_eq!(admission.judge(Some(2), &right), Ok(2));
        let wrong = [
            (Some(2), Hello { cluster: "there".into(), ..right.clone() }, "control plane here, not there"),
            (Some(2), Hello { cluster: String::new(), ..right.clone() }, "control plane here, not"),
            (Some(2), Hello { epoch: 4, ..right.clone() }, "at epoch 5, you are at 4"),
            (Some(2), Hello { epoch: 6, ..right.clone() }, "at epoch 5, you are at 6"),
            (Some(2), Hello { to: 3, ..right.clone() }, "replica 1, not 3"),
            (Some(2), Hello { to: 0, ..right.clone() }, "replica 1, not 0"),
            (Some(2), Hello { from: 3, ..right.clone() }, "does not belong to replica 3"),
            (Some(3), right.clone(), "does not belong to replica 2"),
            (Some(1), right.clone(), "does not belong to replica 2"),
            (None, right, "does not belong to replica 2"),
            (None, Hello::default(), "control plane here, not"),
        ];
        for (proven, hello, why) in wrong {
            let refused = admission.judge(proven, &hello);
            assert!(refused.as_ref().is_err_and(|it| it.contains(why)), "{proven:?} {hello:?}: {refused:?}");
        }
    }
}
