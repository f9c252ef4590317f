//! Who may import whom (house style, section 5). The compiler would accept any edge that makes no circle; this table
//! does not.

use anyhow::Result;

use crate::workspace::{Package, Workspace, verdict};

/// Our crates, and which of ours each may import.
const OURS: &[(&str, &[&str])] = &[
    ("quilt-proto", &[]),
    // Stands in for a crate openraft asks for.
    ("base2histogram", &[]),
    ("quilt-state", &["quilt-proto"]),
    ("quilt-storage", &["quilt-proto", "quilt-state"]),
    ("quilt-raft", &["quilt-proto", "quilt-state", "quilt-storage"]),
    ("quilt-objects", &["quilt-proto"]),
    ("quilt-api", &["quilt-proto", "quilt-objects", "quilt-raft"]),
    ("quilt-controllers", &["quilt-proto", "quilt-objects", "quilt-raft"]),
    ("quilt-scheduler", &["quilt-proto", "quilt-objects", "quilt-raft"]),
    ("quilt-agent", &["quilt-proto", "quilt-objects"]),
    (
        "quiltd",
        &[
            "quilt-proto",
            "quilt-state",
            "quilt-storage",
            "quilt-raft",
            "quilt-objects",
            "quilt-api",
            "quilt-controllers",
            "quilt-scheduler",
            "quilt-agent",
        ],
    ),
    // Clients of the binary.
    ("cluster-tests", &["quilt-proto", "quilt-state", "quilt-storage", "quilt-raft"]),
    // The sources of quilt-raft on a modelled host, and what drives them (decision 22).
    ("quilt-raft-simulated", &["quilt-proto", "quilt-state", "quilt-storage"]),
    ("simulation", &["quilt-proto", "quilt-state", "quilt-storage", "quilt-raft-simulated"]),
    // Stands between any process and the C library.
    ("cluster-tests-shim", &[]),
    ("xtask", &["quilt-proto", "quilt-objects"]),
];

/// Outside crates that only some of ours may name, and why. A trailing `*` stands for any ending.
const THEIRS: &[(&str, &[&str], &str)] = &[
    ("rocksdb", &["quilt-storage"], "the database is the home's business"),
    ("librocksdb-sys", &["quilt-storage"], "the database is the home's business"),
    ("openraft*", &["quilt-raft", "quilt-raft-simulated"], "one crate names the consensus library"),
    ("quorum-set", &["quilt-raft", "quilt-raft-simulated"], "one crate names the consensus library"),
    ("bincode", &["quilt-raft", "quilt-raft-simulated"], "for the consensus library's fixed small records only"),
    (
        "tonic*",
        &["quilt-raft", "quilt-raft-simulated", "quilt-proto", "quiltd", "cluster-tests"],
        "replicas speak it, and who measures them",
    ),
    ("axum*", &["quilt-api", "quiltd"], "HTTP is served there"),
    ("k8s-openapi", &["quilt-api", "cluster-tests", "xtask"], "the kinds table is the object model"),
    ("kube", &["cluster-tests"], "a client, for tests"),
];

/// Crates that compute and do nothing else, and what must not be near them.
const PURE: &[&str] = &["quilt-proto", "quilt-state", "quilt-objects"];
const IMPURE: &[&str] =
    &["tokio*", "futures*", "hyper*", "axum*", "tonic*", "reqwest", "rand*", "getrandom", "uuid", "rustix", "libc"];

/// Compares the manifests with the tables.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut complaints = Vec::new();
    for package in workspace.members() {
        complaints.extend(check_package(package));
    }
    verdict(complaints)
}

fn check_package(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = OURS.iter().find(|(ours, _)| *ours == name) else {
        return vec![format!("{name} is not in the table of edges: say what it may import")];
    };
    let mut complaints = Vec::new();
    for dependency in &package.dependencies {
        let theirs = dependency.name.as_str();
        let for_tests = dependency.kind.as_deref() == Some("dev");
        if OURS.iter().any(|(ours, _)| *ours == theirs) {
            if !allowed.contains(&theirs) && theirs != name {
                complaints.push(format!("{name} must not import {theirs}"));
            }
            continue;
        }
        // Tests may look at a neighbour's tools; what ships may not.
        if for_tests {
            continue;
        }
        for (pattern, owners, reason) in THEIRS {
            if matches(pattern, theirs) && !owners.contains(&name) {
                complaints.push(format!("{name} must not name {theirs}: {reason}"));
            }
        }
        if PURE.contains(&name) && dependency.kind.is_none() && IMPURE.iter().any(|pattern| matches(pattern, theirs)) {
            complaints.push(format!("{name} is pure and must not name {theirs}"));
        }
    }
    complaints
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn check(name: &str, dependencies: &[(&str, Option<&str>)]) -> Vec<String> {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(str::to_owned) })
            .collect();
        let (id, version, license) = (String::new(), String::new(), None);
        check_package(&Package { id, name: name.into(), version, license, manifest_path: "".into(), dependencies })
    }

    /// A forbidden edge is named, an allowed one is not, and a test may use a neighbour's outside crate but not the
    /// neighbour.
    #[test]
    fn edges_are_judged() {
        assert!(check("quilt-api", &[("quilt-raft", None), ("axum", None), ("serde", None)]).is_empty());
        assert_eq!(check("quilt-api", &[("quilt-storage", None)]), ["quilt-api must not import quilt-storage"]);
        assert_eq!(check("quilt-api", &[("quilt-scheduler", Some("dev"))]).len(), 1);
        assert_eq!(check("quilt-controllers", &[("openraft-rt", None)]).len(), 1);
        assert_eq!(check("quilt-state", &[("tokio", None)]).len(), 1);
        assert!(check("quilt-agent", &[("axum", Some("dev"))]).is_empty());
        assert_eq!(check("quilt-new", &[]).len(), 1);
    }
}
