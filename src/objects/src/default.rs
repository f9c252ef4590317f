//! Declarative defaults of the table: what Kubernetes marks on its types as the value of an absent field.
//!
//! Only those; defaults that depend on other fields are written by hand per kind. Artefact defaults of OpenAPI documents are not in the table.

use serde_json::Value;

use crate::schema::{Node, Shape};

/// Fills absent fields that have a default, in every object that is present. Filling twice changes nothing.
pub fn fill(node: Node<'_>, value: &mut Value) {
    match (node.shape(), value) {
        (Shape::Object(object), Value::Object(map)) => {
            for field in object.fields() {
                let inner = node.at(field.ty);
                if let Some(value) = map.get_mut(&*field.name).filter(|value| !value.is_null()) {
                    fill(inner, value);
                } else if let Some(default) = &field.default {
                    map.insert(field.name.clone().into_owned(), default.clone());
                }
            }
        }
        (Shape::List(element, _), Value::Array(items)) => {
            for item in items {
                fill(node.at(*element), item);
            }
        }
        (Shape::Map(element), Value::Object(map)) => {
            for item in map.values_mut() {
                fill(node.at(*element), item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    //! Defaults come from markers only, at every depth.

    use serde_json::json;

    use super::fill;
    use crate::registry::registry;

    /// A container port gets its protocol, a probe's gRPC service its empty name, an ISCSI volume its interface; nothing else appears.
    #[test]
    fn absent_fields_get_their_default() {
        let pods = registry().resource("", "v1", "pods").expect("served");
        let mut pod = json!({"spec": {
            "containers": [{"name": "c", "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                "livenessProbe": {"grpc": {"port": 1}}}],
            "volumes": [{"name": "v", "iscsi": {"lun": 1}}]
        }});
        fill(pods.node(), &mut pod);
        let wanted = json!({"spec": {
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}],
                "livenessProbe": {"grpc": {"port": 1, "service": ""}}}],
            "volumes": [{"name": "v", "iscsi": {"lun": 1, "iscsiInterface": "default"}}]
        }});
        assert_eq!(pod, wanted);
        fill(pods.node(), &mut pod);
        assert_eq!(pod, wanted, "filling again changes nothing");
    }

    /// Defaults of other kinds: a Service port's protocol, and no phantom zeros on a Deployment.
    #[test]
    fn no_phantom_values_appear() {
        let services = registry().resource("", "v1", "services").expect("served");
        let mut service = json!({"spec": {"ports": [{"port": 80}]}});
        fill(services.node(), &mut service);
        assert_eq!(service, json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}));
        let deployments = registry().resource("apps", "v1", "deployments").expect("served");
        let mut deployment = json!({"spec": {"template": {"spec": {}}}});
        fill(deployments.node(), &mut deployment);
        assert_eq!(deployment, json!({"spec": {"template": {"spec": {}}}}));
    }
}
