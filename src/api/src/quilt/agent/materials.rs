//! Materials: what a Pod's references to ConfigMaps and Secrets come to, for the agent that runs it.
//!
//! Resolved on each read and never stored again. Environment by container, files by volume with their contents in
//! base64. A reference that leads nowhere is left out; whether that matters is the agent's to judge by `optional`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quilt_raft::View;
use serde_json::{Map, Value, json};

use crate::context::RootKey;
use crate::problem::Problem;
use crate::quilt::refuse;
use crate::seal;
use crate::store::{CONFIG_MAPS, SECRETS, Stored, text};

/// Contents by key.
type Contents = BTreeMap<String, Vec<u8>>;

struct Resolver<'a> {
    view: &'a View,
    cluster: &'a str,
    namespace: &'a str,
    root: &'a RootKey,
}

/// The materials of `pod`.
pub(crate) fn of(view: &View, cluster: &str, root: &RootKey, pod: &Stored) -> Result<Value, Problem> {
    let resolver = Resolver { view, cluster, namespace: pod.namespace(), root };
    let mut env = Map::new();
    for field in ["initContainers", "containers"] {
        for container in items(&pod.value["spec"], field) {
            let found = resolver.environment(container)?;
            if !found.is_empty() {
                env.insert(text(container, "/name").into(), Value::Object(found));
            }
        }
    }
    let mut files = Map::new();
    for volume in items(&pod.value["spec"], "volumes") {
        if let Some(found) = resolver.volume(volume)? {
            files.insert(text(volume, "/name").into(), json!(found));
        }
    }
    Ok(json!({"env": env, "files": files}))
}

fn items<'a>(parent: &'a Value, field: &str) -> &'a [Value] {
    parent[field].as_array().map_or(&[], Vec::as_slice)
}

impl Resolver<'_> {
    fn config_map(&self, name: &str) -> Result<Option<Contents>, Problem> {
        let Some(object) = CONFIG_MAPS.get(self.view, self.cluster, self.namespace, name)? else { return Ok(None) };
        let mut contents = Contents::new();
        for (key, value) in object.value["data"].as_object().into_iter().flatten() {
            contents.insert(key.clone(), value.as_str().unwrap_or_default().as_bytes().to_vec());
        }
        contents.extend(decoded(&object.value["binaryData"]));
        Ok(Some(contents))
    }

    fn secret(&self, name: &str) -> Result<Option<Contents>, Problem> {
        let Some(key) = SECRETS.key(self.cluster, self.namespace, name) else { return Ok(None) };
        let Some(record) = self.view.get(&key)? else { return Ok(None) };
        if record.sealed.is_empty() {
            return Ok(Some(Contents::new()));
        }
        let object = Stored::parse(key, &record)?;
        let bound_to = [SECRETS.kind, object.namespace(), object.name(), object.uid()].join("\0");
        let plain = seal::open(self.root, bound_to.as_bytes(), &record.sealed).map_err(refuse::internal)?;
        let fields: Value = serde_json::from_slice(&plain).map_err(refuse::internal)?;
        Ok(Some(decoded(&fields["data"])))
    }

    fn environment(&self, container: &Value) -> Result<Map<String, Value>, Problem> {
        let mut found = Map::new();
        let mut set = |name: &str, value: &[u8]| {
            if let Ok(value) = std::str::from_utf8(value) {
                found.insert(name.into(), json!(value));
            }
        };
        for source in items(container, "envFrom") {
            let prefix = text(source, "/prefix");
            let contents = match (source.pointer("/configMapRef/name"), source.pointer("/secretRef/name")) {
                (Some(Value::String(name)), _) => self.config_map(name)?,
                (_, Some(Value::String(name))) => self.secret(name)?,
                _ => None,
            };
            for (key, value) in contents.into_iter().flatten() {
                set(&format!("{prefix}{key}"), &value);
            }
        }
        for variable in items(container, "env") {
            let from = &variable["valueFrom"];
            let contents = match (&from["configMapKeyRef"], &from["secretKeyRef"]) {
                (reference @ Value::Object(_), _) => {
                    self.config_map(text(reference, "/name"))?.map(|found| (reference, found))
                }
                (_, reference @ Value::Object(_)) => {
                    self.secret(text(reference, "/name"))?.map(|found| (reference, found))
                }
                _ => None,
            };
            if let Some((reference, contents)) = contents
                && let Some(value) = contents.get(text(reference, "/key"))
            {
                set(text(variable, "/name"), value);
            }
        }
        Ok(found)
    }

    /// The files of a volume; `None` for volumes that are not made from ConfigMaps or Secrets, or whose source does
    /// not exist.
    fn volume(&self, volume: &Value) -> Result<Option<BTreeMap<String, String>>, Problem> {
        let mut files = BTreeMap::new();
        let mut any = self.source(&volume["configMap"], "/name", Self::config_map, &mut files)?;
        any |= self.source(&volume["secret"], "/secretName", Self::secret, &mut files)?;
        for source in items(&volume["projected"], "sources") {
            any |= self.source(&source["configMap"], "/name", Self::config_map, &mut files)?;
            any |= self.source(&source["secret"], "/name", Self::secret, &mut files)?;
        }
        Ok(any.then_some(files))
    }

    fn source(
        &self,
        source: &Value,
        name_at: &str,
        read: fn(&Self, &str) -> Result<Option<Contents>, Problem>,
        files: &mut BTreeMap<String, String>,
    ) -> Result<bool, Problem> {
        if !source.is_object() {
            return Ok(false);
        }
        let Some(contents) = read(self, text(source, name_at))? else { return Ok(false) };
        let wanted = items(source, "items");
        if wanted.is_empty() {
            files.extend(contents.into_iter().map(|(key, bytes)| (key, STANDARD.encode(bytes))));
            return Ok(true);
        }
        for item in wanted {
            if let Some(bytes) = contents.get(text(item, "/key")) {
                files.insert(text(item, "/path").into(), STANDARD.encode(bytes));
            }
        }
        Ok(true)
    }
}

/// Values in base64, as bytes.
fn decoded(data: &Value) -> Contents {
    let entries = data.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), STANDARD.decode(value.as_str()?).ok()?))).collect()
}
