//! What the control plane places on this node, as it arrives: one entry per placement, with its Pod and what the Pod's references
//! resolve to.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use thiserror::Error;

use crate::pod::{Pod, PodError};

/// One entry of the list of placements.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) placement_id: String,
    pub(crate) pod: Arc<Pod>,
    /// Nothing while the agent has resumed the Pod from disk and has not yet heard from the control plane.
    pub(crate) materials: Option<Materials>,
    /// The Pod is to be ended, and its end reported.
    pub(crate) terminating: bool,
}

/// Why an entry cannot be used. The placement id is known when at least that could be read.
#[derive(Debug, Error)]
pub(crate) enum AssignmentError {
    #[error("the entry has no placement.id")]
    NoPlacement,
    #[error("placement {placement_id} has no usable pod: {source}")]
    Pod { placement_id: String, source: PodError },
}

impl Assignment {
    pub(crate) fn parse(entry: &Value) -> Result<Self, AssignmentError> {
        let placement_id = entry["placement"]["id"]
            .as_str()
            .filter(|id| !id.is_empty())
            .ok_or(AssignmentError::NoPlacement)?
            .to_owned();
        let pod = Pod::parse(&entry["pod"])
            .map_err(|source| AssignmentError::Pod { placement_id: placement_id.clone(), source })?;
        Ok(Self {
            placement_id,
            terminating: entry["terminating"].as_bool().unwrap_or(false) || pod.deletion_requested(),
            pod: Arc::new(pod),
            materials: Some(Materials::parse(&entry["materials"])),
        })
    }
}

/// What the ConfigMap and Secret references of one Pod resolve to: environment by container, files by volume.
///
/// ```json
/// {"env": {"<container>": {"NAME": "value"}}, "files": {"<volume>": {"relative/path": "<base64>"}}}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Materials {
    env: BTreeMap<String, BTreeMap<String, String>>,
    files: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl Materials {
    fn parse(value: &Value) -> Self {
        let mut materials = Self::default();
        for (container, variables) in value["env"].as_object().into_iter().flatten() {
            let variables = variables
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect();
            materials.env.insert(container.clone(), variables);
        }
        for (volume, files) in value["files"].as_object().into_iter().flatten() {
            let files = files
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(path, content)| {
                    let bytes = STANDARD.decode(content.as_str()?).ok()?;
                    Some((path.clone(), bytes))
                })
                .collect();
            materials.files.insert(volume.clone(), files);
        }
        materials
    }

    /// The variables that references of this container resolve to.
    pub(crate) fn env(&self, container: &str) -> impl Iterator<Item = (&str, &str)> {
        self.env.get(container).into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The files of a volume; nothing when the volume's source does not exist.
    pub(crate) fn files(&self, volume: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.files.get(volume)
    }
}
