//! Workloads: Deployments and relatives, Jobs, Quilt's own.

use serde_json::{Map, Value};

use super::{
    AGE, Cell, NAME, Printer, age, cell, cell_or, column, count, duration_text, integer, joined, labels_text, name,
    text, unix_seconds, wide,
};
use crate::place;
use crate::select::LabelSelector;

const CONTAINERS: super::Column = wide("Containers", "Names of the template's containers.");
const IMAGES: super::Column = wide("Images", "Images of the template's containers.");
const SELECTOR: super::Column = wide("Selector", "Which pods belong to the object.");

fn container_texts(object: &Value, template: &[&str]) -> [Value; 2] {
    let spec = place::get(object, template).unwrap_or(&Value::Null);
    let containers = place::items(spec, &["spec", "containers"]);
    ["name", "image"].map(|key| joined(containers.iter().filter_map(|one| place::text(one, &[key]))).into())
}

fn selector_text(object: &Value) -> Value {
    let selector = LabelSelector::from_object(place::get(object, &["spec", "selector"]));
    let text = selector.map(|selector| selector.to_string()).unwrap_or_default();
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn with_template(mut cells: Vec<Value>, object: &Value) -> Vec<Value> {
    cells.extend(container_texts(object, &["spec", "template"]));
    cells
}

fn with_selector(cells: Vec<Value>, object: &Value) -> Vec<Value> {
    let mut cells = with_template(cells, object);
    cells.push(selector_text(object));
    cells
}

fn of_replicas(object: &Value, ready: &str) -> Value {
    let ready = place::int(object, &["status", ready]).unwrap_or(0);
    format!("{ready}/{}", place::int(object, &["spec", "replicas"]).unwrap_or(0)).into()
}

pub(crate) static DEPLOYMENTS: Printer = Printer {
    columns: &[
        NAME,
        text("Ready", "Ready pods of wanted pods."),
        integer("Up-to-date", "Pods of the newest template."),
        integer("Available", "Pods ready for long enough."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let updated = count(object, &["status", "updatedReplicas"]);
        let available = count(object, &["status", "availableReplicas"]);
        with_selector(
            vec![name(object), of_replicas(object, "readyReplicas"), updated, available, age(object, now)],
            object,
        )
    },
};

static REPLICA_COLUMNS: &[super::Column] = &[
    NAME,
    integer("Desired", "Pods wanted."),
    integer("Current", "Pods there are."),
    integer("Ready", "Pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn replica_cells(object: &Value, now: i64) -> Vec<Value> {
    let desired = count(object, &["spec", "replicas"]);
    let current = count(object, &["status", "replicas"]);
    let ready = count(object, &["status", "readyReplicas"]);
    with_template(vec![name(object), desired, current, ready, age(object, now)], object)
}

pub(crate) static REPLICA_SETS: Printer = Printer {
    columns: REPLICA_COLUMNS,
    cells: |object, now| {
        let mut cells = replica_cells(object, now);
        cells.push(selector_text(object));
        cells
    },
};

pub(crate) static REPLICATION_CONTROLLERS: Printer = Printer {
    columns: REPLICA_COLUMNS,
    cells: |object, now| {
        let mut cells = replica_cells(object, now);
        cells.push(labels_text(place::get(object, &["spec", "selector"])).into());
        cells
    },
};

pub(crate) static STATEFUL_SETS: Printer = Printer {
    columns: &[NAME, text("Ready", "Ready pods of wanted pods."), AGE, CONTAINERS, IMAGES],
    cells: |object, now| {
        with_template(vec![name(object), of_replicas(object, "readyReplicas"), age(object, now)], object)
    },
};

pub(crate) static DAEMON_SETS: Printer = Printer {
    columns: &[
        NAME,
        integer("Desired", "Nodes that should run a pod."),
        integer("Current", "Nodes that have a pod."),
        integer("Ready", "Nodes with a ready pod."),
        integer("Up-to-date", "Nodes with a pod of the newest template."),
        integer("Available", "Nodes with a pod ready for long enough."),
        text("Node Selector", "Labels a node must carry."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let mut cells = vec![name(object)];
        for field in [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ] {
            cells.push(count(object, &["status", field]));
        }
        cells.push(labels_text(place::get(object, &["spec", "template", "spec", "nodeSelector"])).into());
        cells.push(age(object, now));
        with_selector(cells, object)
    },
};

pub(crate) static JOBS: Printer = Printer {
    columns: &[
        NAME,
        text("Status", "What the job is doing."),
        text("Completions", "Successful pods of wanted ones."),
        text("Duration", "Time from start to completion."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let succeeded = place::int(object, &["status", "succeeded"]).unwrap_or(0);
        let parallelism = place::int(object, &["spec", "parallelism"]).unwrap_or(0);
        let completions = match place::int(object, &["spec", "completions"]) {
            Some(wanted) => format!("{succeeded}/{wanted}"),
            None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            None => format!("{succeeded}/1"),
        };
        let start = place::text(object, &["status", "startTime"]).and_then(unix_seconds);
        let end = place::text(object, &["status", "completionTime"]).and_then(unix_seconds).unwrap_or(now);
        let duration = start.map_or_else(String::new, |start| duration_text(end.saturating_sub(start)));
        let cells =
            vec![name(object), job_status(object).into(), completions.into(), duration.into(), age(object, now)];
        with_selector(cells, object)
    },
};

fn job_status(object: &Value) -> &'static str {
    let holds = |condition_type: &str| {
        place::items(object, &["status", "conditions"]).iter().any(|condition| {
            place::text(condition, &["type"]) == Some(condition_type)
                && place::text(condition, &["status"]) == Some("True")
        })
    };
    let words = [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ];
    if let Some((_, word)) = words.iter().find(|(condition, _)| holds(condition)) {
        return word;
    }
    if place::get(object, &["metadata", "deletionTimestamp"]).is_some() { "Terminating" } else { "Running" }
}

pub(crate) static CRON_JOBS: Printer = Printer {
    columns: &[
        NAME,
        text("Schedule", "When jobs are made."),
        text("Timezone", "Time zone of the schedule."),
        column("Suspend", Cell::Flag, "Whether no jobs are made for now."),
        integer("Active", "Jobs that are running."),
        text("Last Schedule", "Time since a job was last made."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let last = place::text(object, &["status", "lastScheduleTime"]);
        let last = last.map_or_else(|| "<none>".to_owned(), |last| super::since(Some(last), now));
        let mut cells = vec![
            name(object),
            cell(object, &["spec", "schedule"]),
            cell_or(object, &["spec", "timeZone"], "<none>"),
            place::flag(object, &["spec", "suspend"]).into(),
            place::items(object, &["status", "active"]).len().into(),
            last.into(),
            age(object, now),
        ];
        cells.extend(container_texts(object, &["spec", "jobTemplate", "spec", "template"]));
        let selector = LabelSelector::from_object(place::get(object, &["spec", "jobTemplate", "spec", "selector"]));
        let text = selector.map(|selector| selector.to_string()).unwrap_or_default();
        cells.push(if text.is_empty() { "<none>".into() } else { text.into() });
        cells
    },
};

pub(crate) static POD_TEMPLATES: Printer = Printer {
    columns: &[
        NAME,
        text("Containers", "Names of the template's containers."),
        text("Images", "Images of the template's containers."),
        text("Pod Labels", "Labels of the template."),
    ],
    cells: |object, _| {
        let mut cells = vec![name(object)];
        cells.extend(container_texts(object, &["template"]));
        cells.push(labels_text(place::get(object, &["template", "metadata", "labels"])).into());
        cells
    },
};

pub(crate) static CONTROLLER_REVISIONS: Printer = Printer {
    columns: &[NAME, text("Controller", "Owner of the revision."), integer("Revision", "Number of the revision."), AGE],
    cells: |object, now| {
        let owners = place::items(object, &["metadata", "ownerReferences"]);
        let owner = owners.iter().find(|owner| place::flag(owner, &["controller"]));
        let owner = owner.map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let kind = place::text_or_empty(owner, &["kind"]).to_lowercase();
                let group = place::text_or_empty(owner, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
                let dot = if group.is_empty() { "" } else { "." };
                format!("{kind}{dot}{group}/{}", place::text_or_empty(owner, &["name"]))
            },
        );
        vec![name(object), owner.into(), count(object, &["revision"]), age(object, now)]
    },
};

pub(crate) static WORKLOADS: Printer = Printer {
    columns: &[
        NAME,
        text("Ready", "Running replicas of wanted ones."),
        integer("Pending", "Replicas without a node."),
        integer("Failed", "Replicas that failed."),
        AGE,
        wide("Image", "Image of the replicas."),
        wide("Command", "What the replicas run."),
        wide("Quilt Name", "Name in the Quilt API."),
    ],
    cells: |object, now| {
        let command: Vec<&str> = place::items(object, &["spec", "command"]).iter().filter_map(Value::as_str).collect();
        vec![
            name(object),
            of_replicas(object, "running"),
            count(object, &["status", "pending"]),
            count(object, &["status", "failed"]),
            age(object, now),
            cell_or(object, &["spec", "image"], "<none>"),
            command.join(" ").into(),
            cell(object, &["spec", "name"]),
        ]
    },
};

/// Number of entries of a map.
pub(crate) fn entries(object: &Value, path: &[&str]) -> usize {
    place::map(object, path).map_or(0, Map::len)
}
