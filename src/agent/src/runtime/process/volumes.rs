//! The volumes of a pod as directories, and the links by which a container without a mount namespace finds them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::assignment::Materials;
use crate::durable;
use crate::pod::{Container, Pod, Volume};
use crate::runtime::process::environment::{NodeFacts, pod_field};

/// Where each volume of the pod is. An error is a message for the reason `CreateContainerConfigError`.
pub(super) fn materialise(
    pod: &Pod,
    materials: &Materials,
    directory: &Path,
    node: NodeFacts<'_>,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut places = BTreeMap::new();
    for volume in &pod.spec.volumes {
        let place = directory.join("volumes").join(&volume.name);
        let place = one(volume, place, pod, materials, node)?;
        places.insert(volume.name.clone(), place);
    }
    Ok(places)
}

fn one(
    volume: &Volume,
    place: PathBuf,
    pod: &Pod,
    materials: &Materials,
    node: NodeFacts<'_>,
) -> Result<PathBuf, String> {
    let failed = |error: io::Error| format!("volume \"{}\" cannot be made: {error}", volume.name);
    if let Some(host) = &volume.host_path {
        return Ok(PathBuf::from(&host.path));
    }
    durable::private_directory(&place).map_err(failed)?;
    if volume.empty_dir.is_some() {
        return Ok(place);
    }
    if let Some(downward) = &volume.downward_api {
        let mut files = BTreeMap::new();
        for item in &downward.items {
            let path = item.field_ref.as_ref().map_or("", |field| &field.field_path);
            let value = pod_field(pod, path, node)
                .ok_or_else(|| format!("volume \"{}\": field \"{path}\" is not supported", volume.name))?;
            files.insert(item.path.clone(), value.into_bytes());
        }
        write_files(&place, &files, None).map_err(failed)?;
        return Ok(place);
    }
    let (mode, optional, kind) = match (&volume.config_map, &volume.secret, &volume.projected) {
        (Some(source), _, _) => (source.default_mode, source.optional, "configmap"),
        (_, Some(source), _) => (source.default_mode, source.optional, "secret"),
        // A service account's token cannot be had through this agent; the other sources come as materials.
        (_, _, Some(source)) => (source.default_mode, true, "projected source"),
        _ => {
            let kind = volume.others.keys().next().map_or("no source", String::as_str);
            return Err(format!("volume \"{}\" ({kind}) is not supported by the process runtime", volume.name));
        }
    };
    match materials.files(&volume.name) {
        Some(files) => write_files(&place, files, mode).map_err(failed)?,
        None if optional => {}
        None => return Err(format!("{kind} of volume \"{}\" not found", volume.name)),
    }
    Ok(place)
}

/// Makes the directory hold exactly these files; each is replaced at once, never half written.
fn write_files(place: &Path, files: &BTreeMap<String, Vec<u8>>, mode: Option<u32>) -> io::Result<()> {
    for (name, bytes) in files {
        let path = inside(place, name).ok_or_else(|| io::Error::other(format!("\"{name}\" leaves the volume")))?;
        if let Some(parent) = path.parent() {
            durable::private_directory(parent)?;
        }
        if durable::read_if_there(&path)?.as_deref() != Some(bytes) {
            durable::swap(&path, bytes)?;
        }
        let mode = mode.unwrap_or(0o644) & 0o777;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    remove_others(place, place, files)
}

fn remove_others(root: &Path, place: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for entry in std::fs::read_dir(place)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(root, &path, files)?;
            continue;
        }
        let known = path.strip_prefix(root).ok().and_then(Path::to_str).is_some_and(|name| files.contains_key(name));
        if !known {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A tree in which each of the container's mount paths is a link to its volume.
pub(super) fn link_mounts(
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
    root: &Path,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("mounts cannot be linked: {error}");
    durable::private_directory(root).map_err(failed)?;
    for mount in &container.volume_mounts {
        let volume =
            volumes.get(&mount.name).ok_or_else(|| format!("volume \"{}\" of a mount does not exist", mount.name))?;
        let target = inside(volume, &mount.sub_path)
            .ok_or_else(|| format!("subPath \"{}\" leaves its volume", mount.sub_path))?;
        let link = inside(root, mount.mount_path.trim_start_matches('/'))
            .filter(|link| link != root)
            .ok_or_else(|| format!("mountPath \"{}\" cannot be linked", mount.mount_path))?;
        if std::fs::read_link(&link).is_ok_and(|there| there == target) {
            continue;
        }
        if let Some(parent) = link.parent() {
            durable::private_directory(parent).map_err(failed)?;
        }
        symlink(&target, &link).map_err(failed)?;
    }
    Ok(())
}

/// `root/path`, unless that would not be inside `root`.
fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)).then(|| root.join(path))
}

/// The variable that tells where a volume is: `QUILT_VOLUME_WEB_CONFIG` for `web-config`.
pub(super) fn variable(volume: &str) -> String {
    let name: String = volume
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' })
        .collect();
    format!("QUILT_VOLUME_{name}")
}
