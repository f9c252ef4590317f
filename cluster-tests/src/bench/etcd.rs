//! [`Etcd`]: a cluster of three real etcd processes, with TLS for clients and between members, as etcd's own
//! documentation sets one up. Settings are etcd's defaults except for what is named in [`FLAGS`].

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Dial, Side};

/// What differs from etcd's defaults: room for a long run, history kept as long as ours, and less talk.
pub const FLAGS: [&str; 4] = [
    "--quota-backend-bytes=8589934592",
    "--auto-compaction-mode=periodic",
    "--auto-compaction-retention=10m",
    "--log-level=error",
];

const MEMBERS: usize = 3;

/// The running cluster. Dropping it ends its processes.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    directory: PathBuf,
    authority: String,
    /// For clients and for other members, of each.
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Child>>,
}

impl Etcd {
    /// Starts the members in a directory of their own.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn start(program: &Path, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let authority = certificates(directory)?;
        let ports = free_ports(2 * MEMBERS)?;
        let ports = ports.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let members = (0..MEMBERS).map(|_| None).collect();
        let mut etcd = Self { program: program.to_owned(), directory: directory.to_owned(), authority, ports, members };
        for member in 0..MEMBERS {
            etcd.begin(member)?;
        }
        Ok(etcd)
    }

    /// How clients reach it.
    #[must_use]
    pub fn dial(&self) -> Dial {
        let servers = self.ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect();
        Dial { side: Side::Etcd, servers, authority: self.authority.clone(), token: None }
    }

    /// The living members' processes.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        self.members.iter().flatten().filter_map(|child| i32::try_from(child.id()).ok()).collect()
    }

    /// `kill -9`, and the process is gone when this returns.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        let mut child = self.members[member].take().context("the member does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops a member in the middle of whatever it does, or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        let child = self.members[member].as_ref().context("the member does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a pid is positive")?;
        kill_process(pid, signal).with_context(|| format!("member {member} cannot be sent {signal:?}"))
    }

    /// Starts a member, for the first time or again.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn begin(&mut self, member: usize) -> Result<()> {
        ensure!(self.members[member].is_none(), "member {member} runs");
        let (client, peer) = self.ports[member];
        let all: Vec<String> =
            self.ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=https://127.0.0.1:{peer}")).collect();
        let file = |name: &str| self.directory.join(name).display().to_string();
        let arguments = [
            ("--name", format!("m{member}")),
            ("--data-dir", file(&format!("m{member}"))),
            ("--listen-client-urls", format!("https://127.0.0.1:{client}")),
            ("--advertise-client-urls", format!("https://127.0.0.1:{client}")),
            ("--listen-peer-urls", format!("https://127.0.0.1:{peer}")),
            ("--initial-advertise-peer-urls", format!("https://127.0.0.1:{peer}")),
            ("--initial-cluster", all.join(",")),
            ("--initial-cluster-state", "new".to_owned()),
            ("--cert-file", file("member.crt")),
            ("--key-file", file("member.key")),
            ("--peer-cert-file", file("member.crt")),
            ("--peer-key-file", file("member.key")),
            ("--peer-trusted-ca-file", file("ca.crt")),
        ];
        let log = OpenOptions::new().create(true).append(true).open(self.directory.join(format!("m{member}.log")))?;
        let child = Command::new(&self.program)
            .args(arguments.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]))
            .arg("--peer-client-cert-auth")
            .args(FLAGS)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        self.members[member] = Some(child);
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _gone = child.kill();
            let _collected = child.wait();
        }
    }
}

/// An authority and one certificate of it for all members, who live on one address.
fn certificates(directory: &Path) -> Result<String> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "etcd");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "member");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&key, &issuer)?;
    fs::write(directory.join("ca.crt"), &authority_pem)?;
    fs::write(directory.join("member.crt"), leaf.pem())?;
    fs::write(directory.join("member.key"), key.serialize_pem())?;
    Ok(authority_pem)
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// What the program says of its version.
///
/// # Errors
/// When it does not run.
pub fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").stderr(File::open("/dev/null")?).output();
    let output = output.with_context(|| format!("{} does not run", program.display()))?;
    ensure!(output.status.success(), "{} does not run", program.display());
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim_start_matches("etcd Version: ").to_owned())
}
