//! [`Target`]: Quilt's writes of Kubernetes objects. They are the steps of the Kubernetes verbs (types, defaults,
//! admission, validation, what the kind allocates, no-change drop, graceful deletion), acting as whoever the route let
//! in; where a route needs more in the same transaction, it adds to the plan it gets from here.
//!
//! Must not know routes, or what objects mean.

use quilt_objects::decode::{self, FieldValidation};
use quilt_objects::kind::Kind;
use quilt_proto::Compare;
use quilt_raft::View;
use serde_json::Value;

use super::call::Call;
use crate::access::Admitted;
use crate::admission::Part;
use crate::commit::Plan;
use crate::problem::Problem;
use crate::request;
use crate::verbs::delete::DeleteOptions;
use crate::verbs::{create, delete, update};

/// One object, and who writes it.
pub(crate) struct Target {
    call: request::Call,
    admitted: Admitted,
}

impl Target {
    /// The object `name` of `kind` in the cluster of `admitted`.
    pub(crate) fn new(call: &Call<'_>, admitted: Admitted, kind: &'static Kind, namespace: &str, name: &str) -> Self {
        let call = request::Call::of_object(call.api, &admitted.cluster.id, kind, namespace, name);
        Self { call, admitted }
    }

    /// Makes the object, with this uid.
    pub(crate) fn create(&self, view: &View, object: Value, uid: &str) -> Result<Plan<Value>, Problem> {
        let object = self.typed(object)?;
        let plan = create::plan_with_uid(&self.call, view, &self.admitted, &object, 1, uid)?;
        Ok(plan.relying_on(self.guards()))
    }

    /// Changes the object, or a part of it, as `change` does.
    pub(crate) fn update(
        &self,
        view: &View,
        part: Part,
        change: impl Fn(&mut Value) -> Result<(), Problem> + Sync,
    ) -> Result<Plan<Value>, Problem> {
        let plan = update::plan(&self.call, view, &self.admitted, part, &|old| {
            let mut new = old.clone();
            change(&mut new)?;
            if new == *old { Ok(new) } else { self.typed(new) }
        })?;
        Ok(plan.relying_on(self.guards()))
    }

    /// Deletes the object, at once or when whatever holds it lets go.
    pub(crate) fn delete(&self, view: &View, options: &DeleteOptions) -> Result<Plan<()>, Problem> {
        let plan = delete::plan(&self.call, view, &self.admitted, &self.call.name, options)?;
        Ok(plan.map(drop).relying_on(self.guards()))
    }

    /// Only what the kind's schema knows, of the types it knows.
    fn typed(&self, object: Value) -> Result<Value, Problem> {
        Ok(decode::value(self.call.kind.target(), object, FieldValidation::Ignore)?.object)
    }

    fn guards(&self) -> Vec<Compare> {
        self.admitted.identity.guards.clone()
    }
}
