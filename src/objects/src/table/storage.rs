//! Volumes, claims, classes, drivers.

use serde_json::Value;

use super::{AGE, Cell, NAME, Printer, age, cell, cell_or, column, integer, joined, name, text, wide};
use crate::place;

/// Access modes in their short form, each once.
fn access_modes(object: &Value, path: &[&str]) -> Value {
    let mut words: Vec<&str> = Vec::new();
    for (mode, short) in
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
    {
        if place::items(object, path).iter().any(|one| one.as_str() == Some(mode)) {
            words.push(short);
        }
    }
    words.join(",").into()
}

/// Annotation by which objects of old named their class.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn storage_class(object: &Value) -> Value {
    let old = place::text(object, &["metadata", "annotations", OLD_CLASS]);
    old.unwrap_or_else(|| place::text_or_empty(object, &["spec", "storageClassName"])).into()
}

fn terminating_or<'a>(object: &'a Value, phase: &'a str) -> &'a str {
    if place::get(object, &["metadata", "deletionTimestamp"]).is_some() { "Terminating" } else { phase }
}

pub(crate) static PERSISTENT_VOLUMES: Printer = Printer {
    columns: &[
        NAME,
        text("Capacity", "Size."),
        text("Access Modes", "How it may be mounted."),
        text("Reclaim Policy", "What becomes of it when released."),
        text("Status", "Whether it is free or bound."),
        text("Claim", "Claim it is bound to."),
        text("StorageClass", "Class it belongs to."),
        text("VolumeAttributesClass", "Attributes it has."),
        text("Reason", "Why it is in this state."),
        AGE,
        wide("VolumeMode", "File system or block device."),
    ],
    cells: |object, now| {
        let claim = place::get(object, &["spec", "claimRef"]).map_or_else(String::new, |claim| {
            format!("{}/{}", place::text_or_empty(claim, &["namespace"]), place::text_or_empty(claim, &["name"]))
        });
        vec![
            name(object),
            cell(object, &["spec", "capacity", "storage"]),
            access_modes(object, &["spec", "accessModes"]),
            cell(object, &["spec", "persistentVolumeReclaimPolicy"]),
            terminating_or(object, place::text_or_empty(object, &["status", "phase"])).into(),
            claim.into(),
            storage_class(object),
            cell_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
            cell(object, &["status", "reason"]),
            age(object, now),
            cell_or(object, &["spec", "volumeMode"], "<unset>"),
        ]
    },
};

pub(crate) static PERSISTENT_VOLUME_CLAIMS: Printer = Printer {
    columns: &[
        NAME,
        text("Status", "Whether it is bound."),
        text("Volume", "Volume it is bound to."),
        text("Capacity", "Size of that volume."),
        text("Access Modes", "How it may be mounted."),
        text("StorageClass", "Class it asks for."),
        text("VolumeAttributesClass", "Attributes it asks for."),
        AGE,
        wide("VolumeMode", "File system or block device."),
    ],
    cells: |object, now| {
        let bound = !place::text_or_empty(object, &["spec", "volumeName"]).is_empty();
        let (capacity, modes) = if bound {
            (cell(object, &["status", "capacity", "storage"]), access_modes(object, &["status", "accessModes"]))
        } else {
            ("".into(), "".into())
        };
        vec![
            name(object),
            terminating_or(object, place::text_or_empty(object, &["status", "phase"])).into(),
            cell(object, &["spec", "volumeName"]),
            capacity,
            modes,
            storage_class(object),
            cell_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
            age(object, now),
            cell_or(object, &["spec", "volumeMode"], "<unset>"),
        ]
    },
};

pub(crate) static STORAGE_CLASSES: Printer = Printer {
    columns: &[
        NAME,
        text("Provisioner", "Who makes its volumes."),
        text("ReclaimPolicy", "What becomes of released volumes."),
        text("VolumeBindingMode", "When volumes are bound."),
        column("AllowVolumeExpansion", Cell::Flag, "Whether volumes may grow."),
        AGE,
    ],
    cells: |object, now| {
        let annotations =
            ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        let is_default =
            annotations.iter().any(|key| place::text(object, &["metadata", "annotations", key]) == Some("true"));
        let plain = place::text_or_empty(object, &["metadata", "name"]);
        vec![
            if is_default { format!("{plain} (default)").into() } else { plain.into() },
            cell(object, &["provisioner"]),
            cell_or(object, &["reclaimPolicy"], "Delete"),
            cell_or(object, &["volumeBindingMode"], "Immediate"),
            place::flag(object, &["allowVolumeExpansion"]).into(),
            age(object, now),
        ]
    },
};

pub(crate) static CSI_DRIVERS: Printer = Printer {
    columns: &[
        NAME,
        column("AttachRequired", Cell::Flag, "Whether volumes are attached before they are mounted."),
        column("PodInfoOnMount", Cell::Flag, "Whether the driver is told about the pod."),
        column("StorageCapacity", Cell::Flag, "Whether the driver reports capacity."),
        text("TokenRequests", "Audiences of tokens the driver gets."),
        column("RequiresRepublish", Cell::Flag, "Whether mounts are refreshed."),
        text("Modes", "Lifecycles of its volumes."),
        AGE,
    ],
    cells: |object, now| {
        let flag = |field: &str| Value::from(place::flag(object, &["spec", field]));
        let tokens = place::items(object, &["spec", "tokenRequests"]);
        let tokens: Vec<&str> = tokens.iter().filter_map(|token| place::text(token, &["audience"])).collect();
        let tokens = if tokens.is_empty() { "<unset>".to_owned() } else { tokens.join(",") };
        let modes = place::items(object, &["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str);
        vec![
            name(object),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            tokens.into(),
            flag("requiresRepublish"),
            joined(modes).into(),
            age(object, now),
        ]
    },
};

pub(crate) static CSI_NODES: Printer = Printer {
    columns: &[NAME, integer("Drivers", "Number of drivers on the node."), AGE],
    cells: |object, now| vec![name(object), place::items(object, &["spec", "drivers"]).len().into(), age(object, now)],
};

pub(crate) static VOLUME_ATTACHMENTS: Printer = Printer {
    columns: &[
        NAME,
        text("Attacher", "Driver that attaches."),
        text("PV", "Volume."),
        text("Node", "Node it is attached to."),
        column("Attached", Cell::Flag, "Whether it is attached."),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            cell(object, &["spec", "attacher"]),
            cell(object, &["spec", "source", "persistentVolumeName"]),
            cell(object, &["spec", "nodeName"]),
            place::flag(object, &["status", "attached"]).into(),
            age(object, now),
        ]
    },
};
