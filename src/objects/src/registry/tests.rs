//! What the embedded table must hold.

use super::registry;
use crate::kind::{Scope, Verb};

/// The embedded table parses, and a kind is found by resource and by kind.
#[test]
fn lookups_find_the_same_kind() {
    let by_resource = registry().resource("quilt.sh", "v1", "workloads").expect("Workload is served");
    let by_kind = registry().kind("quilt.sh", "v1", "Workload").expect("Workload is a kind");
    assert_eq!(by_resource.plural, by_kind.plural);
    assert_eq!(by_kind.scope, Scope::Namespaced);
    assert!(by_kind.allows(Verb::Watch));
    assert!(registry().resource("quilt.sh", "v1", "nothing").is_none());
    let (field, _) = by_kind.node().path("spec.gpu_ids").expect("a field of Workload");
    assert_eq!(field.name, "gpu_ids");
}
