//! Sentences about Kubernetes' types, for OpenAPI and `kubectl explain`.
//!
//! They come from crate `k8s-openapi`, whose JSON schemas carry them under the same definition names as the kinds table.
//! Only sentences are taken: structure is the table's. Nothing is in memory until a client asks for OpenAPI.

use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::schemars::SchemaGenerator;
use serde_json::Value;

/// Sentences of one definition.
#[derive(Default)]
struct Definition {
    own: String,
    fields: HashMap<String, String>,
}

static DEFINITIONS: LazyLock<HashMap<String, Definition>> = LazyLock::new(collect);

/// The description of a definition, or of one of its fields.
pub(crate) fn describe(definition: &str, field: Option<&str>) -> Option<String> {
    let known = DEFINITIONS.get(definition)?;
    let text = field.map_or(Some(&known.own), |field| known.fields.get(field));
    text.filter(|text| !text.is_empty()).cloned()
}

fn collect() -> HashMap<String, Definition> {
    let mut generator = SchemaGenerator::default();
    add_roots(&mut generator);
    let text = |schema: &Value| schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let definition = |schema: &Value| {
        let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        Definition { own: text(schema), fields: fields.map(|(name, field)| (name.clone(), text(field))).collect() }
    };
    generator.definitions().iter().map(|(name, schema)| (name.clone(), definition(schema))).collect()
}

/// Adds every type that is served, and with each the types it is made of.
fn add_roots(generator: &mut SchemaGenerator) {
    macro_rules! add {
        ($($root:path,)*) => { $(generator.subschema_for::<$root>();)* };
    }
    add!(
        k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy,
        k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding,
        k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration,
        k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy,
        k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration,
        k8s_openapi::api::apps::v1::ControllerRevision,
        k8s_openapi::api::apps::v1::DaemonSet,
        k8s_openapi::api::apps::v1::Deployment,
        k8s_openapi::api::apps::v1::ReplicaSet,
        k8s_openapi::api::apps::v1::StatefulSet,
        k8s_openapi::api::authentication::v1::SelfSubjectReview,
        k8s_openapi::api::authentication::v1::TokenRequest,
        k8s_openapi::api::authentication::v1::TokenReview,
        k8s_openapi::api::authorization::v1::LocalSubjectAccessReview,
        k8s_openapi::api::authorization::v1::SelfSubjectAccessReview,
        k8s_openapi::api::authorization::v1::SelfSubjectRulesReview,
        k8s_openapi::api::authorization::v1::SubjectAccessReview,
        k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler,
        k8s_openapi::api::autoscaling::v1::Scale,
        k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler,
        k8s_openapi::api::batch::v1::CronJob,
        k8s_openapi::api::batch::v1::Job,
        k8s_openapi::api::certificates::v1::CertificateSigningRequest,
        k8s_openapi::api::coordination::v1::Lease,
        k8s_openapi::api::core::v1::Binding,
        k8s_openapi::api::core::v1::ComponentStatus,
        k8s_openapi::api::core::v1::ConfigMap,
        k8s_openapi::api::core::v1::Endpoints,
        k8s_openapi::api::core::v1::Event,
        k8s_openapi::api::core::v1::LimitRange,
        k8s_openapi::api::core::v1::Namespace,
        k8s_openapi::api::core::v1::Node,
        k8s_openapi::api::core::v1::PersistentVolume,
        k8s_openapi::api::core::v1::PersistentVolumeClaim,
        k8s_openapi::api::core::v1::Pod,
        k8s_openapi::api::core::v1::PodTemplate,
        k8s_openapi::api::core::v1::ReplicationController,
        k8s_openapi::api::core::v1::ResourceQuota,
        k8s_openapi::api::core::v1::Secret,
        k8s_openapi::api::core::v1::Service,
        k8s_openapi::api::core::v1::ServiceAccount,
        k8s_openapi::api::discovery::v1::EndpointSlice,
        k8s_openapi::api::events::v1::Event,
        k8s_openapi::api::flowcontrol::v1::FlowSchema,
        k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration,
        k8s_openapi::api::networking::v1::IPAddress,
        k8s_openapi::api::networking::v1::Ingress,
        k8s_openapi::api::networking::v1::IngressClass,
        k8s_openapi::api::networking::v1::NetworkPolicy,
        k8s_openapi::api::networking::v1::ServiceCIDR,
        k8s_openapi::api::node::v1::RuntimeClass,
        k8s_openapi::api::policy::v1::Eviction,
        k8s_openapi::api::policy::v1::PodDisruptionBudget,
        k8s_openapi::api::rbac::v1::ClusterRole,
        k8s_openapi::api::rbac::v1::ClusterRoleBinding,
        k8s_openapi::api::rbac::v1::Role,
        k8s_openapi::api::rbac::v1::RoleBinding,
        k8s_openapi::api::resource::v1::DeviceClass,
        k8s_openapi::api::resource::v1::ResourceClaim,
        k8s_openapi::api::resource::v1::ResourceClaimTemplate,
        k8s_openapi::api::resource::v1::ResourceSlice,
        k8s_openapi::api::scheduling::v1::PriorityClass,
        k8s_openapi::api::storage::v1::CSIDriver,
        k8s_openapi::api::storage::v1::CSINode,
        k8s_openapi::api::storage::v1::CSIStorageCapacity,
        k8s_openapi::api::storage::v1::StorageClass,
        k8s_openapi::api::storage::v1::VolumeAttachment,
        k8s_openapi::api::storage::v1::VolumeAttributesClass,
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions,
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Status,
        k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService,
    );
}

#[cfg(test)]
mod tests {
    use quilt_objects::openapi;
    use quilt_objects::registry::registry;

    use super::describe;

    /// Kubernetes' own types and their fields are described, whatever kind they are reached from.
    #[test]
    fn types_are_described() {
        let replicas = describe("io.k8s.api.apps.v1.DeploymentSpec", Some("replicas")).expect("described");
        assert!(replicas.starts_with("Number of desired pods."), "{replicas}");
        for definition in ["io.k8s.api.core.v1.PodSpec", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"] {
            assert!(describe(definition, None).is_some(), "{definition}");
        }
        assert_eq!(describe("no.such.Type", None), None);
    }

    /// Every definition that a document shows has a sentence: from Kubernetes, or our own.
    #[test]
    fn no_definition_is_left_out() {
        let mut silent = Vec::new();
        for (group, version) in registry().group_versions() {
            let document = openapi::v3_described(registry(), group, version, &describe);
            let schemas = document.pointer("/components/schemas").and_then(|schemas| schemas.as_object());
            for (name, schema) in schemas.expect("a document has schemas") {
                if schema.get("description").is_none() && !silent.contains(name) {
                    silent.push(name.clone());
                }
            }
        }
        assert!(silent.is_empty(), "{silent:?}");
    }
}
