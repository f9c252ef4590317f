//! `quiltd init`: keys and certificates for the first replicas of a control plane on several hosts.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use quilt_proto::ReplicaId;

use crate::assemble::identity;
use crate::cli::client::API_PORT;
use crate::cli::render_kubeconfig;
use crate::cli::server::member;
use crate::exit::{Failure, Hinted};
use crate::tls::authority::Authority;
use crate::tls::files::{self, ReplicaFiles};
use crate::{output, secret};

/// Runs a replica under systemd, with the flags of `server.env` beside its data.
const UNIT: &str = include_str!("../../systemd/quiltd.service");

/// Make keys and certificates for the first replicas of a control plane.
///
/// Writes one data directory for each replica, to be brought to its host as it is, and for whoever administers the
/// control plane `ca.crt`, `admin.key`, `admin.kubeconfig` and the systemd unit `quiltd.service`. Nothing is started and
/// no other host is touched. A lone replica and `quiltd dev` need none of this.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd init --initial-cluster 1=10.0.0.1:7443,2=10.0.0.2:7443,3=10.0.0.3:7443 --out cp\n  quiltd init --initial-cluster 1=cp-1:7443,2=cp-2:7443,3=cp-3:7443 --name api.example.org --out cp"
)]
pub(crate) struct Init {
    /// All first replicas and their peer addresses, as they are given to `quiltd server`.
    #[arg(long, required = true, value_delimiter = ',', value_parser = member, value_name = "N=HOST:PORT")]
    initial_cluster: Vec<(ReplicaId, String)>,
    /// A further name or address by which clients reach the replicas; repeatable. The hosts above need not be named.
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    /// A new directory for what is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Init {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        self.check()?;
        let at = |name: &str| self.out.join(name);
        files::private_dir(&self.out)?;
        let serving = Authority::create("quiltd serving CA")?;
        let peer = Authority::create("quiltd peer CA")?;
        files::write_pair(&(at("pki/ca.crt"), at("pki/ca.key")), serving.pair())?;
        files::write_pair(&(at("pki/peer-ca.crt"), at("pki/peer-ca.key")), peer.pair())?;
        let control_plane = uuid::Uuid::new_v4().to_string();
        let admin_key = secret::credential("qa_")?;
        let root_key = hex::encode(secret::random()?);
        for (id, address) in &self.initial_cluster {
            let place = ReplicaFiles::new(&at(&format!("replica-{id}")));
            let mut names = self.name.clone();
            names.push(host(address).to_owned());
            identity::issue(&place, *id, &serving, &peer, &names)?;
            identity::write_authorities(&place, &serving, &peer)?;
            files::write_private(&place.root_key(), root_key.as_bytes())?;
            files::write_public(&at(&format!("replica-{id}/server.env")), self.environment(*id, address).as_bytes())?;
            identity::write_bootstrap(&place, &control_plane, &admin_key, None)?;
        }
        files::write_public(&at("quiltd.service"), UNIT.as_bytes())?;
        files::write_public(&at("ca.crt"), serving.pair().certificate.as_bytes())?;
        files::write_private(&at("admin.key"), admin_key.as_bytes())?;
        let contexts: Vec<(String, String)> = self.initial_cluster.iter().map(context).collect();
        let kubeconfig = render_kubeconfig(&contexts, &serving.pair().certificate, &admin_key);
        files::write_private(&at("admin.kubeconfig"), kubeconfig.as_bytes())?;
        self.tell(&self.out);
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        let mut ids: Vec<ReplicaId> = self.initial_cluster.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair.first() == pair.last()) {
            let id = pair.first().copied().context("a pair has a first")?;
            return Err(Failure::Usage(format!("--initial-cluster names replica {id} twice")).into());
        }
        // Keys that were brought to a host are never made again over themselves.
        if self.out.exists() && std::fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::Refused(format!("directory '{}' is not empty", self.out.display())))
                .hint("choose a new directory with --out DIR");
        }
        Ok(())
    }

    /// What a replica's flags would say, for the service manager. An address is listened on as it is; behind a name may
    /// be any, so there all of the host's are.
    fn environment(&self, id: ReplicaId, address: &str) -> String {
        let port = address.rsplit_once(':').map_or("7443", |(_, port)| port);
        let host = host(address).parse::<IpAddr>().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let listen = |port: &str| if host.is_ipv6() { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        format!(
            "# Flags of quiltd server on this host, read by quiltd.service.\n\
             QUILTD_ID={id}\nQUILTD_LISTEN={}\nQUILTD_PEER_LISTEN={}\nQUILTD_INITIAL_CLUSTER={}\n",
            listen(&API_PORT.to_string()),
            listen(port),
            self.members()
        )
    }

    fn members(&self) -> String {
        let members: Vec<String> = self.initial_cluster.iter().map(|(id, address)| format!("{id}={address}")).collect();
        members.join(",")
    }

    fn tell(&self, out: &Path) {
        output::line(&format!(
            "{} holds the data directories of {} replicas and, for you, ca.crt, admin.key, admin.kubeconfig and \
             quiltd.service.\n\
             Keep pki/ and root.key safe: they are needed to restore replicas.\n\n\
             On the host of replica N, with replica-N copied to /var/lib/quiltd, start quiltd.service or run\n  \
             quiltd server --id N --initial-cluster {}",
            out.display(),
            self.initial_cluster.len(),
            self.members()
        ));
    }
}

/// The host of `HOST:PORT`, an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn context((id, address): &(ReplicaId, String)) -> (String, String) {
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    (format!("replica-{id}"), format!("https://{host}:{API_PORT}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::extensions::GeneralName;

    use super::*;

    fn init(out: PathBuf, members: &[(u64, &str)]) -> Init {
        let initial_cluster = members.iter().map(|(id, address)| (ReplicaId(*id), (*address).to_owned())).collect();
        Init { initial_cluster, name: vec!["api.example.org".into()], out }
    }

    /// Every replica gets a directory it can start from, with its own host in its certificate; secrets are private.
    #[test]
    fn makes_a_directory_for_each_replica() {
        let dir = std::env::temp_dir().join(format!("quiltd-init-{}", uuid::Uuid::new_v4()));
        init(dir.clone(), &[(1, "10.0.0.1:7443"), (2, "[fd00::2]:7443"), (3, "cp-3:7443")]).run().expect("makes");
        for (id, own) in [(1, "10.0.0.1"), (2, "fd00::2"), (3, "cp-3")] {
            let place = ReplicaFiles::new(&dir.join(format!("replica-{id}")));
            assert!(place.bootstrap().exists() && place.root_key().exists() && place.peer_ca().exists());
            let (certificate, key) = place.serving();
            assert_eq!(std::fs::metadata(key).expect("a key").permissions().mode() & 0o777, 0o600);
            let text = std::fs::read(certificate).expect("a certificate");
            let (_, pem) = x509_parser::pem::parse_x509_pem(&text).expect("pem");
            let certificate = pem.parse_x509().expect("x509");
            let names = certificate.subject_alternative_name().expect("readable").expect("there");
            let named = |wanted: &str| {
                let address = wanted.parse::<IpAddr>().ok().map(|address| match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                });
                names.value.general_names.iter().any(|name| match name {
                    GeneralName::DNSName(name) => *name == wanted,
                    GeneralName::IPAddress(bytes) => address.as_deref() == Some(*bytes),
                    _ => false,
                })
            };
            assert!(named(own) && named("api.example.org") && named("127.0.0.1"), "{own}: {names:?}");
        }
        let flags = |id: u64| std::fs::read_to_string(dir.join(format!("replica-{id}/server.env"))).expect("flags");
        assert!(flags(1).contains("QUILTD_ID=1\nQUILTD_LISTEN=10.0.0.1:6443\nQUILTD_PEER_LISTEN=10.0.0.1:7443\n"));
        assert!(flags(2).contains("QUILTD_LISTEN=[fd00::2]:6443\n"), "{}", flags(2));
        assert!(flags(3).contains("QUILTD_PEER_LISTEN=0.0.0.0:7443\n"), "{}", flags(3));
        let again = init(dir.clone(), &[(1, "a:1")]).run().expect_err("keys are not overwritten");
        assert!(format!("{again}").contains("is not empty"), "{again}");
        std::fs::remove_dir_all(dir).expect("removes");
    }

    /// The unit runs the command that the table of commands knows, with the flags that init writes.
    #[test]
    fn the_unit_starts_a_replica() {
        use clap::Parser;
        let told = |name: &str| UNIT.lines().find_map(|line| line.strip_prefix(name)).expect("told");
        assert_eq!(told("EnvironmentFile="), "/var/lib/quiltd/server.env");
        assert!(crate::cli::Cli::try_parse_from(told("ExecStart=").split(' ')).is_ok());
    }

    /// A replica named twice is a slip that would give two hosts one identity.
    #[test]
    fn numbers_are_unique() {
        let error = init("/nowhere".into(), &[(1, "a:1"), (2, "b:1"), (1, "c:1")]).run().expect_err("refused");
        assert_eq!(error.to_string(), "--initial-cluster names replica 1 twice");
    }
}
