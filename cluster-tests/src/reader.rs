//! A reader who follows a page: one real shell for all its blocks, in order, and a terminal for each command that stays.
//!
//! The shell is strict where a person would notice: a command that fails, an unset variable, a broken pipe end the page,
//! which is told with its line. It has its own home, its own working directory and nothing of the environment of
//! whoever runs the test. The hosts that pages speak of are directories below its own, each with its own `/etc` and
//! `/var/lib`; see the programs in `cluster-tests/stand-ins`.

use std::env::var_os;
use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::binary;
use crate::cluster::Manifest;
use crate::pages::{self, Block, Page};
use crate::rules::{self, Awaits, Places, Step, Terminal};
use crate::wait::LIMIT;

/// Far above what any block of a page needs.
const BLOCK_LIMIT: Duration = Duration::from_secs(240);
/// How long a terminal's command may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The cluster of README, which a page that mentions it and starts none takes for granted.
const README_CLUSTER: &str = "./scripts/dev --dir /tmp/quilt --restart\n";

/// The page whose control plane one that speaks of hosts and makes no keys takes for granted.
const HOSTS_PAGE: &str = "docs/start/three-hosts.md";

/// How many hosts there are.
const HOSTS: u8 = 9;

/// What stands for the programs with which hosts are reached and run.
const HOST_PROGRAMS: &[(&str, &str)] = &[
    ("ssh", include_str!("../stand-ins/ssh")),
    ("scp", include_str!("../stand-ins/scp")),
    ("systemctl", include_str!("../stand-ins/systemctl")),
    ("journalctl", include_str!("../stand-ins/journalctl")),
];

/// What stands for cargo where a script of the clone builds.
const CARGO: &str = include_str!("../stand-ins/cargo");

/// Fails at the first command that fails, and notes its line.
const STRICT: &str = "set -Eeuo pipefail; trap 'printf \"%s\\n\" \"$LINENO\" >\"$FAILED_LINE\"' ERR\n";

/// A reader in the middle of a page.
#[derive(Debug)]
pub struct Reader {
    page: String,
    directory: Option<TempDir>,
    places: Places,
    shell: Child,
    stdin: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
    open: Vec<Open>,
    steps: usize,
    /// Its end, however it comes, ends what runs in the terminals.
    _hold: File,
}

/// A terminal in which something runs.
#[derive(Debug)]
struct Open {
    command: String,
    process: Pid,
    output: PathBuf,
}

/// Follows a page from its first to its last command.
///
/// # Errors
/// At the first block that fails, with its place, its output and its exit code.
pub async fn follow(page: &Page) -> Result<Read> {
    let mut reader = Reader::start(page)?;
    let result = reader.blocks(page).await;
    let stopped = reader.stop().await;
    match result.and(stopped) {
        Ok(()) => Ok(Read { directory: reader.directory.take(), said: reader.said(), places: reader.places.clone() }),
        Err(error) => {
            let mut text = format!("{error:#}");
            for open in &reader.open {
                let _infallible = write!(text, "\n── `{}` said, at last:\n{}", open.command, tail(&open.output));
            }
            for log in reader.host_logs() {
                let _infallible = write!(text, "\n── {}, at last:\n{}", log.display(), tail(&log));
            }
            if let Some(directory) = reader.directory.take() {
                let _infallible = write!(text, "\nits directory is kept: {}", directory.keep().display());
            }
            Err(anyhow!(text))
        }
    }
}

/// What a page left behind.
#[derive(Debug)]
pub struct Read {
    directory: Option<TempDir>,
    said: Vec<String>,
    places: Places,
}

impl Read {
    /// What each command in a terminal of its own has said.
    #[must_use]
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// What its commands have said, each block's by itself, in order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn answers(&self) -> Result<Vec<String>> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.places.root.join("steps"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.retain(|path| path.extension().is_some_and(|ending| ending == "out"));
        files.sort();
        Ok(files.iter().map(|path| read(path)).collect())
    }

    /// A text of the page with the places of this run.
    #[must_use]
    pub fn substitute(&self, text: &str) -> String {
        self.places.substitute(text)
    }

    /// Where the page was followed.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(TempDir::path)
    }
}

impl Reader {
    fn start(page: &Page) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("quiltd-page-").tempdir()?;
        let root = directory.path().canonicalize()?;
        for name in ["bin", "home", "clone", "steps", "tmp", "etc", "var/lib"] {
            std::fs::create_dir_all(root.join(name))?;
        }
        for host in 1..=HOSTS {
            for name in ["root", "run", "etc/systemd/system", "var/lib", "var/log"] {
                std::fs::create_dir_all(root.join(format!("hosts/{host}/{name}")))?;
            }
        }
        for (name, text) in HOST_PROGRAMS {
            program(&root.join("bin").join(name), text)?;
        }
        let quiltd = binary::quiltd()?;
        let kubectl = which(&binary::kubectl()?)?;
        symlink(&kubectl, root.join("bin/kubectl"))?;
        // `/tmp/quilt/env` brings its own; a page that does not use it is about an installed quiltd.
        if !mentions(page, "/tmp/quilt/env") {
            symlink(&quiltd, root.join("bin/quiltd"))?;
        }
        // Terminals read it; nothing is ever written to it.
        let hold = root.join("hold");
        ensure!(std::process::Command::new("mkfifo").arg(&hold).status()?.success(), "mkfifo failed");
        let held = OpenOptions::new().read(true).write(true).open(&hold)?;
        let path = var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut shell = Command::new("bash")
            .args(["--noprofile", "--norc", "-s"])
            .current_dir(root.join("clone"))
            .env_clear()
            .env("PATH", format!("{}:{}", root.join("bin").display(), path.display()))
            .env("HOME", root.join("home"))
            .env("TMPDIR", root.join("tmp"))
            .env("LANG", "C.UTF-8")
            .env("FAILED_LINE", root.join("failed-line"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context("bash cannot be run")?;
        let stdin = shell.stdin.take().context("standard input is piped")?;
        let told = BufReader::new(shell.stdout.take().context("standard output is piped")?).lines();
        let xtask = quiltd.with_file_name("xtask");
        let clone = prepare_build(&root, &quiltd, &xtask, &kubectl)?;
        let (chaos, network) = (quiltd.with_file_name("chaos"), Places::network_of(std::process::id()));
        let places = Places { xtask, chaos, clone, quiltd, network, ports: Vec::new(), root };
        let (page, directory, open) = (page.name.clone(), Some(directory), Vec::new());
        Ok(Self { page, directory, places, shell, stdin, told, open, steps: 0, _hold: held })
    }

    async fn blocks(&mut self, page: &Page) -> Result<()> {
        self.stdin.write_all(STRICT.as_bytes()).await?;
        let starts_one = |block: &Block| block.text.contains("quiltd dev") || block.text.contains("scripts/dev");
        if mentions(page, "/tmp/quilt") && !page.blocks.iter().any(starts_one) {
            self.block(&Block { line: 1, text: README_CLUSTER.into() }).await?;
        }
        let makes_hosts = |block: &Block| block.text.contains("quiltd init ");
        if mentions(page, "root@10.0.0.") && !page.blocks.iter().any(makes_hosts) {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(HOSTS_PAGE))?;
            self.each(&pages::read(HOSTS_PAGE, &text).0).await?;
        }
        self.each(page).await?;
        if let Some(block) = page.blocks.last()
            && matches!(rules::step(block, &self.places)?, Step::Terminal(_))
        {
            bail!("{}:{}: nothing after it shows that it works", self.page, block.line);
        }
        Ok(())
    }

    async fn each(&mut self, page: &Page) -> Result<()> {
        for block in &page.blocks {
            let place = format!("{}:{}", page.name, block.line);
            self.block(block).await.with_context(|| place)?;
        }
        Ok(())
    }

    async fn block(&mut self, block: &Block) -> Result<()> {
        match rules::step(block, &self.places)? {
            Step::Gate => Ok(()),
            Step::Typed(text) => self.typed(block.line, &text).await,
            Step::Terminal(terminal) => self.terminal(block.line, terminal).await,
        }
    }

    /// Runs a block in the shell, so that what it sets is there for the next one.
    async fn typed(&mut self, line: usize, text: &str) -> Result<()> {
        self.steps += 1;
        let file = self.places.root.join(format!("steps/{:03}-line-{line}.sh", self.steps));
        let output = file.with_extension("out");
        // Lines have the page's numbers, in what bash says too.
        std::fs::write(&file, "\n".repeat(line - 1) + text)?;
        let command = format!(". {} </dev/null >{} 2>&1; echo done\n", file.display(), output.display());
        self.stdin.write_all(command.as_bytes()).await.context("the shell takes no more commands")?;
        let Ok(told) = tokio::time::timeout(BLOCK_LIMIT, self.told.next_line()).await else {
            bail!("no end within {BLOCK_LIMIT:?}\n{text}── it said:\n{}", read(&output));
        };
        if told? == Some("done".to_owned()) {
            return Ok(());
        }
        let status = self.shell.wait().await?;
        let at = read(&self.places.root.join("failed-line"));
        let at = if at.trim().is_empty() { line.to_string() } else { at.trim().to_owned() };
        bail!("line {at}: {}\n{text}── it said:\n{}", shown(status), read(&output));
    }

    /// Runs a command with the shell's variables, in the background and out of the sight of `wait`.
    async fn terminal(&mut self, line: usize, terminal: Terminal) -> Result<()> {
        let output = self.places.root.join(format!("steps/line-{line}.terminal"));
        // The variable makes every command of quiltd end with its standard input.
        let build = self.places.root.join("build.env");
        let place = terminal.at.map_or_else(String::new, |at| format!("cd '{}'; . {};", at.display(), build.display()));
        let text = format!(
            "( {place} QUILTD_STOP_WITH_STDIN=1 exec {command} ) <{hold} >{output} 2>&1 &\necho $!\ndisown $!\n",
            command = terminal.command,
            hold = self.places.root.join("hold").display(),
            output = output.display(),
        );
        self.stdin.write_all(text.as_bytes()).await.context("the shell takes no more commands")?;
        let told =
            tokio::time::timeout(BLOCK_LIMIT, self.told.next_line()).await.context("the shell does not answer")?;
        let process = told?.and_then(|told| Pid::from_raw(told.parse().ok()?)).context("the shell tells no process")?;
        let awaits = terminal.awaits;
        self.open.push(Open { command: terminal.command.clone(), process, output: output.clone() });
        if awaits == Awaits::Ready {
            let started = Instant::now();
            while !read(&output).lines().any(|line| line == "ready") {
                ensure!(lives(process), "`{}` ended before it was ready", terminal.command);
                ensure!(started.elapsed() < LIMIT, "`{}` was not ready within {LIMIT:?}", terminal.command);
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            self.learn_ports(&read(&output))?;
        }
        Ok(())
    }

    /// Where the replicas listen that `quiltd dev` has started: its first line names its directory.
    fn learn_ports(&mut self, said: &str) -> Result<()> {
        let directory = said.lines().find_map(|line| line.split_once(" s in ")).context("dev names no directory")?.1;
        let path = Path::new(directory).join("dev.json");
        let bytes = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let manifest: Manifest = serde_json::from_slice(&bytes)?;
        let port =
            |url: &str| url.rsplit(':').next().and_then(|port| port.parse().ok()).context("an address has a port");
        self.places.ports =
            manifest.replicas.iter().map(|it| Ok((port(&it.api)?, port(&it.http)?))).collect::<Result<_>>()?;
        Ok(())
    }

    fn host_logs(&self) -> Vec<PathBuf> {
        let log = |host| self.places.root.join(format!("hosts/{host}/var/log/quiltd.log"));
        (1..=HOSTS).map(log).filter(|path| path.exists()).collect()
    }

    /// Processes that run on the hosts.
    fn services(&self) -> Vec<Pid> {
        let state = |host| self.places.root.join(format!("hosts/{host}/run/quiltd.pid"));
        let process = |path: PathBuf| Pid::from_raw(read(&path).trim().parse().ok()?);
        (1..=HOSTS).map(state).filter_map(process).filter(|process| lives(*process)).collect()
    }

    /// Ends what runs on the hosts and in the terminals, the last first. One that has ended early is no mistake in itself: the commands
    /// that came after it were typed in its sight.
    async fn stop(&mut self) -> Result<()> {
        let mut result = Ok(());
        let services = self.services();
        for process in &services {
            let _gone = kill_process(*process, Signal::TERM);
        }
        for process in services {
            result = result.and(self.end(process, "a host's service").await);
        }
        for open in self.open.iter().rev() {
            result = result.and(self.end(open.process, &open.command).await);
        }
        result
    }

    async fn end(&self, process: Pid, what: &str) -> Result<()> {
        let _gone = kill_process(process, Signal::TERM);
        let started = Instant::now();
        while lives(process) && started.elapsed() < STOP_LIMIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if lives(process) {
            let _gone = kill_process(process, Signal::KILL);
            bail!("{}: `{what}` did not stop within {STOP_LIMIT:?}", self.page);
        }
        Ok(())
    }

    fn said(&self) -> Vec<String> {
        self.open.iter().map(|open| read(&open.output)).collect()
    }
}

fn program(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

/// Lets the scripts of the clone find what was built for these tests, as if they had just built it; the clone, unless
/// it was built elsewhere than they build.
fn prepare_build(root: &Path, quiltd: &Path, xtask: &Path, kubectl: &Path) -> Result<Option<PathBuf>> {
    let target = quiltd.parent().filter(|profile| profile.ends_with("ci")).and_then(Path::parent);
    let Some(target) = target.filter(|_| xtask.is_file()) else { return Ok(None) };
    std::fs::create_dir_all(root.join("build"))?;
    program(&root.join("build/cargo"), CARGO)?;
    let home = PathBuf::from(var_os("HOME").unwrap_or_else(|| "/".into()));
    let kept = |name: &str, usual: &str| var_os(name).map_or_else(|| home.join(usual), PathBuf::from);
    let mut variables = vec![
        ("XTASK", xtask.to_owned()),
        ("REAL_CARGO", var_os("CARGO").map_or_else(|| which(Path::new("cargo")), |cargo| Ok(cargo.into()))?),
        ("CARGO_HOME", kept("CARGO_HOME", ".cargo")),
        ("RUSTUP_HOME", kept("RUSTUP_HOME", ".rustup")),
        ("CARGO_TARGET_DIR", target.to_owned()),
        ("QUILTD_KUBECTL", kubectl.to_owned()),
        ("QUILTD_CACHE", root.join("tmp")),
        // Of no use to a cargo that links nothing, and enough for the chores not to build it.
        ("ROCKSDB_LIB_DIR", root.join("tmp")),
    ];
    for name in ["RUSTUP_TOOLCHAIN", "LIBCLANG_PATH"] {
        variables.extend(var_os(name).map(|value| (name, PathBuf::from(value))));
    }
    let mut text = format!("export PATH='{}':$PATH\n", root.join("build").display());
    for (name, value) in variables {
        writeln!(text, "export {name}='{}'", value.display())?;
    }
    std::fs::write(root.join("build.env"), text)?;
    Ok(Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?))
}

fn mentions(page: &Page, word: &str) -> bool {
    page.blocks.iter().any(|block| block.text.contains(word))
}

/// A program's own path.
fn which(program: &Path) -> Result<PathBuf> {
    if program.components().count() > 1 {
        return Ok(program.canonicalize()?);
    }
    let path = var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("{} is not on the PATH", program.display()))
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn tail(path: &Path) -> String {
    let text = read(path);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

fn shown(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Whether a process runs: one whose parent has not collected it does not.
fn lives(process: Pid) -> bool {
    let state = |text: String| text.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    test_kill_process(process).is_ok() && stat.ok().and_then(state) != Some('Z')
}
