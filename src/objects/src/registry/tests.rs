//! What the embedded table must hold.

use super::{Registry, TABLES, registry};
use crate::kind::{Generation, Scope, Verb};
use crate::schema::{ListType, Shape};

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

/// All stable resources and subresources of Kubernetes 1.36 are there, beside the three own ones.
#[test]
fn all_stable_resources_are_served() {
    let (own, upstream): (Vec<_>, Vec<_>) =
        registry().kinds().iter().partition(|kind| kind.group == "quilt.sh" || kind.group == "metrics.k8s.io");
    assert_eq!(own.len(), 3);
    assert_eq!(upstream.len(), 68);
    assert_eq!(upstream.iter().map(|kind| kind.subresources.len()).sum::<usize>(), 45);
}

/// A Deployment's facts come out as Kubernetes documents them.
#[test]
fn deployment_has_its_facts() {
    let kind = registry().resource("apps", "v1", "deployments").expect("served");
    assert_eq!((&*kind.kind, &*kind.list_kind, &*kind.singular), ("Deployment", "DeploymentList", "deployment"));
    assert_eq!(kind.short_names, ["deploy"]);
    assert_eq!(kind.categories, ["all"]);
    assert_eq!(kind.generation, Generation::Spec);
    assert_eq!(kind.verbs, Verb::ALL);
    let scale = kind.subresource("scale").expect("deployments scale");
    assert_eq!((&*scale.kind.group, &*scale.kind.kind), ("autoscaling", "Scale"));
    let (replicas, _) = kind.node().path("spec.replicas").expect("a field");
    assert!(replicas.pointer && replicas.omitempty);
    let (ports, node) = kind.node().path("spec.template.spec.containers.ports").expect("a field");
    assert_eq!(ports.list_type, Some(ListType::Map(vec!["containerPort".into(), "protocol".into()])));
    assert_eq!((ports.patch.merge, &*ports.patch.merge_key), (true, "containerPort"));
    let protocol = node.element().and_then(|port| port.field("protocol")).expect("a field").0;
    assert_eq!(protocol.default, Some("TCP".into()));
    assert_eq!(protocol.enumeration, ["SCTP", "TCP", "UDP"]);
}

/// Two resources over one store name the same storage group.
#[test]
fn aliases_share_a_store() {
    let events = registry().resource("events.k8s.io", "v1", "events").expect("served");
    assert_eq!((&*events.storage_group, &*events.storage_version), ("", "v1"));
    let scalers = registry().resource("autoscaling", "v1", "horizontalpodautoscalers").expect("served");
    assert_eq!((&*scalers.storage_group, &*scalers.storage_version), ("autoscaling", "v2"));
}

/// Bodies that are no resources of their own are found by group, version and kind.
#[test]
fn bodies_are_found() {
    for (group, version, kind) in [
        ("autoscaling", "v1", "Scale"),
        ("policy", "v1", "Eviction"),
        ("", "v1", "Binding"),
        ("authentication.k8s.io", "v1", "TokenRequest"),
        ("authorization.k8s.io", "v1", "SelfSubjectAccessReview"),
        ("", "v1", "Status"),
        ("apps", "v1", "DeploymentList"),
        ("meta.k8s.io", "v1", "PartialObjectMetadata"),
    ] {
        assert!(registry().target(group, version, kind).is_some(), "{group}/{version} {kind}");
    }
    assert!(registry().target("apps", "v1", "DeleteOptions").is_some());
    assert_eq!(registry().delete_options().kind, "DeleteOptions");
}

/// Every selectable field exists in the kind's type, every list and subresource kind has a type or is an options kind of a connect call.
#[test]
fn the_table_is_consistent() {
    for kind in registry().kinds() {
        for path in &kind.selectable_fields {
            assert!(kind.node().path(path).is_some(), "{} has no field {path}", kind.kind);
        }
        assert_eq!(kind.list_kind.is_empty(), !kind.allows(Verb::List), "{}", kind.kind);
        for sub in &kind.subresources {
            let found = registry().target(&sub.kind.group, &sub.kind.version, &sub.kind.kind).is_some();
            assert!(found || sub.kind.kind.ends_with("Options"), "{}/{}", kind.plural, sub.name);
        }
        let (_, metadata) = kind.node().field("metadata").expect("every kind has metadata");
        assert!(matches!(metadata.shape(), Shape::Object(_)));
    }
}

/// A broken line is named by table and line.
#[test]
fn a_broken_table_names_the_line() {
    let error = Registry::parse(&["type a\n\tx 1 nothing\n"]).expect_err("nothing is no type");
    assert_eq!((error.table, error.line), (0, 2));
    assert!(error.to_string().contains("nothing"), "{error}");
}

/// Parsing is linear work over a few thousand lines: the text stays small enough to be read at start.
#[test]
fn the_table_is_small() {
    let bytes: usize = TABLES.iter().map(|table| table.len()).sum();
    assert!(bytes < 300_000, "{bytes}");
}
