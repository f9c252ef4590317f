//! From a container's specification to a command that can be started, or to the reason why it waits.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::assignment::Assignment;
use crate::pod::Container;
use crate::runtime::process::ProcessConfig;
use crate::runtime::process::environment::{self, NodeFacts, expand};
use crate::runtime::process::volumes;

/// Why a container waits, as its waiting state says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) reason: &'static str,
    pub(super) message: Option<String>,
}

impl Obstacle {
    fn configuration(message: String) -> Self {
        Self { reason: "CreateContainerConfigError", message: Some(message) }
    }
}

/// A program of this host with all it needs to be started.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    program: PathBuf,
    words: Vec<String>,
    environment: BTreeMap<String, String>,
    directory: PathBuf,
}

/// Resolves everything a container names; makes its volumes on the way.
pub(super) fn prepare(
    config: &ProcessConfig,
    directory: &Path,
    assignment: &Assignment,
    container: &Container,
) -> Result<Launch, Obstacle> {
    let pod = &assignment.pod;
    let Some(materials) = &assignment.materials else {
        return Err(Obstacle {
            reason: "ContainerCreating",
            message: Some("waiting for the control plane".to_owned()),
        });
    };
    let node = NodeFacts { name: &config.node_name, address: config.node };
    let places = volumes::materialise(pod, materials, directory, node).map_err(Obstacle::configuration)?;
    let root = directory.join("containers").join(&container.name).join("root");
    volumes::link_mounts(container, &places, &root).map_err(Obstacle::configuration)?;

    let mut base = BTreeMap::from([
        ("PATH".to_owned(), config.search_path.clone()),
        ("HOSTNAME".to_owned(), pod.name.clone()),
        ("HOME".to_owned(), text(directory)),
        ("QUILT_POD_DIR".to_owned(), text(directory)),
        ("QUILT_ROOT".to_owned(), text(&root)),
    ]);
    for (volume, place) in &places {
        base.insert(volumes::variable(volume), text(place));
    }
    let environment = environment::build(base, pod, container, materials, node).map_err(Obstacle::configuration)?;

    let words: Vec<String> =
        container.command.iter().chain(&container.args).map(|word| expand(word, &environment)).collect();
    let working = match container.working_dir.as_deref() {
        None | Some("") => directory.to_owned(),
        Some(path) => PathBuf::from(path),
    };
    if !working.is_dir() {
        return Err(Obstacle {
            reason: "CreateContainerError",
            message: Some(format!("working directory \"{}\" does not exist on this host", working.display())),
        });
    }
    let launch = Launch { program: PathBuf::new(), words, environment, directory: working };
    launch.with_program(container)
}

impl Launch {
    fn with_program(mut self, container: &Container) -> Result<Self, Obstacle> {
        let not_runnable = |message: String| Obstacle { reason: "ImageNotRunnable", message: Some(message) };
        let Some(word) = self.words.first() else {
            return Err(not_runnable(format!(
                "the process runtime does not pull image \"{}\", and the container names no command of this host",
                container.image
            )));
        };
        self.program = self.find(word).ok_or_else(|| {
            not_runnable(format!(
                "\"{word}\" is not an executable of this host, and the process runtime does not pull image \"{}\"",
                container.image
            ))
        })?;
        Ok(self)
    }

    /// The executable a word means here: a path as it stands, a name by the container's `PATH`.
    fn find(&self, word: &str) -> Option<PathBuf> {
        if word.is_empty() {
            return None;
        }
        if word.contains('/') {
            let path = self.directory.join(word);
            return is_executable(&path).then_some(path);
        }
        let search = self.environment.get("PATH").map_or("", String::as_str);
        search
            .split(':')
            .filter(|directory| !directory.is_empty())
            .map(|directory| self.directory.join(directory).join(word))
            .find(|path| is_executable(path))
    }

    /// The container's own command, its output going to these files.
    pub(super) fn command(&self, stdout: File, stderr: File) -> Command {
        let mut command = self.bare(&self.program, &self.words);
        command.stdout(stdout).stderr(stderr);
        command
    }

    /// The command of a keeper that starts the container in its surroundings; it says how that went on its piped output.
    pub(super) fn kept(&self, keeper: &[OsString], exit_file: &Path, stdout: File, stderr: File) -> Option<Command> {
        let (program, arguments) = keeper.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).arg(exit_file).arg(&self.program).args(&self.words);
        command.env_clear().envs(&self.environment).current_dir(&self.directory);
        // A keeper reads nothing, so its standard input can carry the container's output.
        command.stdin(stdout).stdout(Stdio::piped()).stderr(stderr);
        Some(command)
    }

    /// Another command in the same surroundings, for a probe or a hook; nothing when it is no executable here.
    pub(super) fn beside(&self, words: &[String]) -> Option<Command> {
        let program = self.find(words.first()?)?;
        let mut command = self.bare(&program, words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Some(command)
    }

    fn bare(&self, program: &Path, words: &[String]) -> Command {
        let mut command = Command::new(program);
        if let Some((name, arguments)) = words.split_first() {
            command.arg0(name).args(arguments);
        }
        command.env_clear().envs(&self.environment).current_dir(&self.directory).stdin(Stdio::null());
        command
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| there.is_file() && there.permissions().mode() & 0o111 != 0)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
