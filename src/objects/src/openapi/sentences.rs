//! Sentences about definitions that are ours and that no other crate describes.

/// The description of an own definition, or of one of its fields; lists are described by what they hold.
pub(super) fn own(definition: &str, field: Option<&str>) -> Option<String> {
    let name = definition.rsplit('.').next().unwrap_or_default();
    let field = field.unwrap_or_default();
    let known = OWN.iter().find(|(own, own_field, _)| *own == definition && *own_field == field);
    if let Some((_, _, text)) = known {
        return Some((*text).to_owned());
    }
    let item = name.strip_suffix("List").filter(|item| !item.is_empty())?;
    match field {
        "" => Some(format!("{name} is a list of {item} objects.")),
        "items" => Some(format!("The {item} objects, ordered by namespace and name.")),
        "metadata" => Some("Version of the list, and where it goes on when it is not complete.".to_owned()),
        "kind" => Some("Kind of this document.".to_owned()),
        "apiVersion" => Some("Group and version of this document.".to_owned()),
        _ => None,
    }
}

const WORKLOAD: &str = "sh.quilt.v1.Workload";
const SPEC: &str = "sh.quilt.v1.WorkloadSpec";
const STATUS: &str = "sh.quilt.v1.WorkloadStatus";
const SLOT: &str = "sh.quilt.v1.WorkloadSlot";
const NODE_METRICS: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics";
const POD_METRICS: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics";
const CONTAINER_METRICS: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics";

const OWN: &[(&str, &str, &str)] = &[
    (
        WORKLOAD,
        "",
        "Workload is a Quilt workload: a number of replicas of one command, placed on nodes and kept running.",
    ),
    (WORKLOAD, "apiVersion", "Group and version of this object."),
    (WORKLOAD, "kind", "Kind of this object."),
    (WORKLOAD, "metadata", "Name, labels and the like; the uid is the workload's id in the Quilt API."),
    (WORKLOAD, "spec", "What is wanted; the same as in the Quilt API."),
    (WORKLOAD, "status", "What is; written by the control plane only."),
    (SPEC, "", "WorkloadSpec says what to run, how often, and with which resources. Unknown fields are kept."),
    (SPEC, "name", "Name in the Quilt API. Several workloads may have the same."),
    (SPEC, "replicas", "How many replicas to run, 1 to 10000."),
    (SPEC, "command", "What to run: program and arguments."),
    (SPEC, "image", "Image to run it in. Without one it runs on the node itself."),
    (SPEC, "environment", "Environment variables."),
    (SPEC, "labels", "Labels that go to every replica."),
    (SPEC, "memory_limit_mb", "Most memory of a replica, in MiB."),
    (SPEC, "cpu_limit_percent", "Most CPU of a replica; 100 is one CPU."),
    (SPEC, "strict", "Passed to the agent as it is."),
    (SPEC, "gpu_count", "How many GPUs each replica gets, for itself alone."),
    (SPEC, "gpu_ids", "Exactly these GPUs; as many as gpu_count says."),
    (STATUS, "", "WorkloadStatus counts replicas by what they are doing."),
    (STATUS, "replicas", "Replicas there are."),
    (STATUS, "pending", "Replicas without a node."),
    (STATUS, "assigned", "Replicas with a node that has not started them yet."),
    (STATUS, "running", "Replicas that run."),
    (STATUS, "failed", "Replicas that failed."),
    (STATUS, "observed_generation", "Generation of the spec that this status is about."),
    (STATUS, "slots", "One slot per replica; a slot keeps its placement while its pods come and go."),
    (SLOT, "", "WorkloadSlot is the place of one replica."),
    (SLOT, "index", "Number of the replica, from 0."),
    (SLOT, "placementId", "Id of the placement in the Quilt API."),
    (SLOT, "podName", "Pod that fills the slot now."),
    (NODE_METRICS, "", "NodeMetrics says what a node uses."),
    (NODE_METRICS, "metadata", "Name and labels of the node."),
    (NODE_METRICS, "timestamp", "End of the time the figures are taken over."),
    (NODE_METRICS, "window", "Length of the time the figures are taken over."),
    (NODE_METRICS, "usage", "CPU and memory in use."),
    (POD_METRICS, "", "PodMetrics says what a pod's containers use."),
    (POD_METRICS, "metadata", "Name, namespace and labels of the pod."),
    (POD_METRICS, "timestamp", "End of the time the figures are taken over."),
    (POD_METRICS, "window", "Length of the time the figures are taken over."),
    (POD_METRICS, "containers", "What each container uses."),
    (CONTAINER_METRICS, "", "ContainerMetrics says what one container uses."),
    (CONTAINER_METRICS, "name", "Name of the container."),
    (CONTAINER_METRICS, "usage", "CPU and memory in use."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::registry;

    /// Every sentence is about a definition and field that exist, and no field of a Workload lacks one.
    #[test]
    fn sentences_fit_the_table() {
        for (definition, field, _) in OWN {
            let node = registry().types().named(definition).unwrap_or_else(|| panic!("{definition} is in the table"));
            assert!(field.is_empty() || node.field(field).is_some(), "{definition} has {field}");
        }
        for definition in [WORKLOAD, SPEC, STATUS, SLOT] {
            let node = registry().types().named(definition).expect("checked above");
            for field in node.object().expect("an object").fields() {
                assert!(own(definition, Some(&field.name)).is_some(), "{definition} {}", field.name);
            }
        }
        assert_eq!(own("io.k8s.api.core.v1.PodList", None).as_deref(), Some("PodList is a list of Pod objects."));
        assert_eq!(own("io.k8s.api.core.v1.Pod", None), None);
    }
}
