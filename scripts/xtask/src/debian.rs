//! Single programs of a newer Debian, unpacked into the cache: nothing is installed, and the system's lists of packages
//! stay as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache;

/// The release whose packages are new enough.
pub(crate) const RELEASE: &str = "trixie";

/// Where the content of a package is, once it was fetched.
pub(crate) fn kept(package: &str) -> Result<PathBuf> {
    Ok(cache::dir()?.join(format!("{package}-{RELEASE}/root")))
}

/// Fetches a package and unpacks it into the cache: the directory its files are in.
pub(crate) fn fetch(package: &str) -> Result<PathBuf> {
    let _lock = cache::lock(package)?;
    let root = kept(package)?;
    let directory = root.parent().context("a directory below the cache")?;
    download(package, directory)?;
    Ok(root)
}

/// With lists of its own, so that the system's stay as they are.
fn download(package: &str, kept: &Path) -> Result<()> {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if !Path::new(KEYRING).exists() {
        bail!("Debian's keys are not there ({KEYRING}), so its {package} cannot be checked");
    }
    eprintln!("{package} of Debian {RELEASE} is fetched once, which takes about half a minute");
    let _ = std::fs::remove_dir_all(kept);
    for dir in ["lists/partial", "archives/partial", "root"] {
        std::fs::create_dir_all(kept.join(dir)).with_context(|| format!("making {}", kept.display()))?;
    }
    let source = format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE} main\n");
    std::fs::write(kept.join("sources.list"), source).context("writing a list of sources")?;
    std::fs::write(kept.join("status"), "").context("writing an empty list of packages")?;
    let set = |name: &str, path: &str| format!("{name}={}", kept.join(path).display());
    let options = [
        set("Dir::Etc::sourcelist", "sources.list"),
        "Dir::Etc::sourceparts=-".to_owned(),
        "Dir::Etc::preferencesparts=-".to_owned(),
        set("Dir::State::lists", "lists"),
        // What is installed has no say in what is fetched.
        set("Dir::State::status", "status"),
        set("Dir::Cache", "."),
        set("Dir::Cache::archives", "archives"),
        // Descriptions and icons are not needed.
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        // Whoever runs this owns the directories; apt's own user does not.
        "APT::Sandbox::User=".to_owned() + &user(),
    ];
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new("apt-get");
        command.current_dir(kept).arg("-qq");
        for option in &options {
            command.arg("-o").arg(option);
        }
        run(command.args(arguments))
    };
    apt(&["update"])?;
    apt(&["download", package])?;
    let archive = std::fs::read_dir(kept)
        .context("reading what was downloaded")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("apt-get downloaded nothing")?;
    run(Command::new("dpkg").arg("-x").arg(&archive).arg(kept.join("root")))?;
    for rest in ["lists", "archives"] {
        let _ = std::fs::remove_dir_all(kept.join(rest));
    }
    let _ = std::fs::remove_file(archive);
    Ok(())
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output();
    output.map_or_else(|_| "root".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    // What it prints is for a person; our own output is the path.
    let output = command.output().with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
