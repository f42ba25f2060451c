//! What can be written on the command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gateway_user::api;
use gateway_user::api::model::Target;
use gateway_user::pki;

/// Asks and steers the gateway agent of this member.
#[derive(Parser)]
#[command(name = "gatewayctl", version)]
pub(crate) struct Cli {
    /// The agent's control socket.
    #[arg(long, global = true, default_value = api::DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// This member at a glance.
    Status,
    /// The members of the cluster, their states, and why these changed last.
    Members,
    /// The view: who is in it, and who owns how many slots.
    View,
    /// The interfaces: up or down, members heard, XDP and fence; and the cluster's addresses.
    Interfaces,
    /// This member's critical devices.
    Pnotes,
    /// Who lost slots to whom, when and why, and how long it took.
    #[command(alias = "history")]
    FailoverHistory,
    /// The synchronisation with the other members.
    Sync,
    /// Whether upstream may send to this member: exit code 0 if so, 1 if not.
    Health,
    /// Hand this member's slots to the others; it stays a replica.
    Drain,
    /// Read the configuration file again: connections, secrets, keys, authorities. SAs stay.
    Reload,
    /// End a drain or a failover.
    Undrain,
    /// Hand this member's slots to another one.
    Failover {
        /// Its id.
        #[arg(long)]
        to: u8,
    },
    /// Form a view with this member alone. Only if no other member serves anything.
    Bootstrap,
    /// Who owns which negotiation and SA: SEP_my_IKE_packet, IKE_SA and ESP_SA.
    Table,
    /// Established IKE SAs and their CHILD_SAs.
    Sas {
        /// Also those that other members own.
        #[arg(long)]
        all: bool,
    },
    /// Bring up a connection. Any member can be asked: the owner of its slot does it.
    Initiate(About),
    /// Delete a connection's IKE SA, or a child of it, with a DELETE to the peer.
    Terminate(About),
    /// Make successors of a connection's IKE SA, or of a child of it.
    Rekey(About),
    /// The configured connections, who initiates them, and what of them is up.
    Connections,
    /// The agent's last log lines: why a tunnel does not come up, who took over.
    Log {
        /// At most so many; the agent keeps the last 1000.
        #[arg(short = 'n', long, default_value_t = 50)]
        lines: usize,
        /// Go on showing new ones.
        #[arg(short, long)]
        follow: bool,
        /// Only those about this connection.
        #[arg(long)]
        connection: Option<String>,
    },
    /// Counters of the XDP programs, the members and the engine.
    Stats,
    /// Live: packets, exchanges, SAs and sync lag, per second. `q` or Ctrl-C ends it.
    Top {
        /// Seconds between two pictures.
        #[arg(short, long, default_value_t = 1.0, value_parser = interval)]
        interval: f64,
        /// One picture, after one interval.
        #[arg(long)]
        once: bool,
    },
    /// Why a packet or a peer goes where it goes: what is looked up in which map, whose the slot is,
    /// and what XDP does.
    Explain {
        /// A peer's address or identity, an address in a peer's network (who encrypts for it), a
        /// connection's name, a cookie (16 hexadecimal digits), an SPI (8), or a packet in hexadecimal digits: an Ethernet frame, or with --source an IKE message.
        subject: String,
        /// Where the IKE message comes from; else the peer whose next negotiation is meant.
        #[arg(long)]
        source: Option<IpAddr>,
    },
    /// Pre-flight: what on this host would break the cluster, and how to mend it.
    Check {
        /// Check for this configuration file instead of asking the running agent.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Write what somebody who helps from afar has to see into an archive, without secrets.
    SupportBundle {
        /// The archive, FILE.tar.gz.
        file: PathBuf,
        /// The agent's configuration file: it goes in without its secrets and comments.
        #[arg(long, default_value = "/etc/gateway/gateway.toml")]
        config: PathBuf,
        /// Replace the archive if it is there.
        #[arg(long)]
        force: bool,
    },
    /// Send peers to another gateway (RFC 5685): those of this member, or of one connection.
    Redirect {
        /// Its address or domain name.
        to: String,
        /// Only the peers of this connection.
        #[arg(long)]
        connection: Option<String>,
    },
    /// Switch forwarding between members on or off, until the next start.
    Forwarding {
        /// Which.
        state: Switch,
    },
    /// The cluster's own certification authority.
    #[command(subcommand)]
    Pki(Pki),
    /// Print a completion script, for example into /etc/bash_completion.d/gatewayctl.
    Completions {
        /// Of which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder.
        dir: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct About {
    /// The connection's name.
    pub(crate) connection: String,
    /// One of its children instead of the IKE SA; with `initiate`: this one only.
    #[arg(long)]
    pub(crate) child: Option<String>,
}

impl About {
    pub(crate) fn target(&self) -> Target {
        Target {
            connection: self.connection.clone(),
            child: self.child.clone(),
            spi: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Forward to the owner.
    On,
    /// Leave every packet where it arrived; the agents relay IKE.
    Off,
}

#[derive(Subcommand)]
pub(crate) enum Pki {
    /// Make the CA of a cluster.
    Init(PkiInit),
    /// Issue a member's certificate.
    Issue(PkiIssue),
    /// Make the key that the members share with the witness.
    Witness(PkiWitness),
}

#[derive(Args)]
pub(crate) struct PkiWitness {
    /// The file; copy it to every member and to the witness.
    #[arg(long, default_value = "/etc/gateway/witness.key")]
    pub(crate) out: PathBuf,
    /// Replace an existing key.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct PkiInit {
    /// Folder for ca.crt and ca.key. Keep ca.key off the members.
    #[arg(long, default_value = "/etc/gateway/pki")]
    pub(crate) dir: PathBuf,
    /// The cluster's name, as in the configuration.
    #[arg(long, default_value = "gateway")]
    pub(crate) cluster: String,
    /// Days until it expires.
    #[arg(long, default_value_t = pki::CA_DAYS)]
    pub(crate) days: u32,
    /// Replace an existing CA: every member needs a new certificate then.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct PkiIssue {
    /// Folder of ca.crt and ca.key.
    #[arg(long, default_value = "/etc/gateway/pki")]
    pub(crate) dir: PathBuf,
    /// The cluster's name: refuse the CA of another one.
    #[arg(long)]
    pub(crate) cluster: Option<String>,
    /// The member's id, 1 to 63.
    #[arg(long)]
    pub(crate) member: u8,
    /// The member's address on the sync network.
    #[arg(long)]
    pub(crate) sync_address: IpAddr,
    /// Folder for member.crt, member.key and a copy of ca.crt; default: the CA's folder + member-<id>.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Days until it expires.
    #[arg(long, default_value_t = pki::MEMBER_DAYS)]
    pub(crate) days: u32,
    /// Replace an existing certificate.
    #[arg(long)]
    pub(crate) force: bool,
}

/// From a tenth of a second to an hour.
fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 3600".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn intervals_are_neither_zero_nor_endless() {
        assert_eq!(interval("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "NaN", "inf", "x", "3601"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
