//! What a person at a shell gets: `DIR/env` to be sourced, `DIR/bin` with the programs, and the words with the commands
//! to try. It only spells what the layout says; README's walk is made of the same commands.

use std::fmt::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::dev::layout::Layout;
use crate::tls::files;

/// Names a kubectl that is not on the `PATH`, when whoever starts dev has one.
const KUBECTL: &str = "QUILTD_KUBECTL";

/// A control plane smaller than this does not survive the loss of a replica.
const REPLICAS_FOR_FAILOVER: usize = 3;

/// Writes `DIR/env` and fills `DIR/bin`.
pub(crate) fn prepare(layout: &Layout) -> anyhow::Result<()> {
    let bin = layout.dir.join("bin");
    files::private_dir(&bin)?;
    link(&std::env::current_exe().context("this program does not know its own path")?, &bin.join("quiltd"))?;
    if let Some(kubectl) = std::env::var_os(KUBECTL).map(PathBuf::from).filter(|path| path.is_absolute()) {
        link(&kubectl, &bin.join("kubectl"))?;
    }
    files::write_private(&layout.dir.join("env"), environment(layout, &bin).as_bytes())
}

fn link(program: &Path, place: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace '{}'", place.display()));
        }
        _ => {}
    }
    symlink(program, place).with_context(|| format!("cannot make '{}'", place.display()))
}

fn environment(layout: &Layout, bin: &Path) -> String {
    let addresses: Vec<&str> = layout.replicas.iter().map(|replica| replica.api.as_str()).collect();
    let variables = [
        ("KUBECONFIG", layout.kubeconfig.display().to_string()),
        ("QUILTD_ADDRESS", addresses.join(",")),
        ("QUILTD_CA", layout.ca.display().to_string()),
        ("QUILTD_TOKEN_FILE", layout.admin_key_file.display().to_string()),
    ];
    let mut text = "# For a shell: makes kubectl and quiltd talk to this development cluster.\n".to_owned();
    for (name, value) in variables {
        let _infallible = writeln!(text, "export {name}={}", quoted(&value));
    }
    let _infallible = writeln!(text, "export PATH={}:$PATH", quoted(&bin.display().to_string()));
    text
}

/// One word for any shell, whatever is in it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:,=".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What is said once everything runs: each indented line can be typed as it is.
pub(crate) fn greeting(layout: &Layout, elapsed: Duration) -> String {
    let path = |name: &str| quoted(&layout.dir.join(name).display().to_string());
    let count = layout.replicas.len();
    // The second of them, for all answer alike; a lone one is its own second.
    let api = layout.replicas.get(1).or_else(|| layout.replicas.first()).map_or("", |replica| replica.api.as_str());
    let several = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (replicas, agents) = (several(count, "replica"), several(layout.agents.len(), "agent"));
    let mut text = format!(
        "{replicas} and {agents} run after {seconds:.1} s in {dir}\n\n\
         In another terminal:\n  \
         . {env}\n  \
         quiltd status\n  \
         kubectl get nodes\n  \
         kubectl create deployment hello --image=none --replicas=3 -- /bin/sh -c 'while :; do date; sleep 1; done'\n  \
         kubectl rollout status deployment hello\n  \
         kubectl get pods -o wide\n  \
         curl -s --cacert {ca} -H \"X-Api-Key: $(cat {key})\" {api}/api/clusters/default/placements\n\n",
        seconds = elapsed.as_secs_f32(),
        dir = layout.dir.display(),
        env = path("env"),
        ca = path("ca.crt"),
        key = path("api.key"),
    );
    if count >= REPLICAS_FOR_FAILOVER {
        let _infallible = write!(
            text,
            "Kill the leader and go on through another replica:\n  \
             leader=$(quiltd status -o jsonpath={{.leader}})\n  \
             kill -9 \"$(cat {run}/replica-$leader.pid)\"\n  \
             kubectl --context \"replica-$((leader % {count} + 1))\" scale deployment hello --replicas=5\n  \
             quiltd status\n\n",
            run = path("run"),
        );
    }
    text.push_str("Ctrl-C stops everything.");
    text
}

#[cfg(test)]
mod tests {
    use super::quoted;

    /// A path becomes one word: as it is when it is plain, in quotes otherwise.
    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted("/tmp/quilt/ca.crt"), "/tmp/quilt/ca.crt");
        assert_eq!(quoted("/home/a b/it's"), r"'/home/a b/it'\''s'");
    }
}
