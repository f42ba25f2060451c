//! The command line of the gateway.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use gateway_common::member::MemberId;
use gateway_user::api::model::{
    Accepted, Check, Checks, Connections, Health, Log, Members, Ordered, Pnotes, Redirected,
    Reloaded, Request, Sas, Stats, Status, SyncStatus, Table, Target, ViewStatus,
};
use gateway_user::api::{self, render, render_cluster, render_connections};
use gateway_user::{manual, pki};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How often `log --follow` asks.
const FOLLOW: std::time::Duration = std::time::Duration::from_millis(500);

/// Asks and steers the gateway agent of this member.
#[derive(Parser)]
#[command(name = "gatewayctl", version)]
struct Cli {
    /// The agent's control socket.
    #[arg(long, global = true, default_value = api::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// This member at a glance.
    Status,
    /// The members of the cluster, their states, and why these changed last.
    Members,
    /// The view: who is in it, and who owns how many slots.
    View,
    /// This member's critical devices.
    Pnotes,
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
    /// Pre-flight: what on this host would break the cluster, and how to mend it.
    Check {
        /// Check for this configuration file instead of asking the running agent.
        #[arg(long)]
        config: Option<PathBuf>,
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
struct About {
    /// The connection's name.
    connection: String,
    /// One of its children instead of the IKE SA; with `initiate`: this one only.
    #[arg(long)]
    child: Option<String>,
}

impl About {
    fn target(&self) -> Target {
        Target {
            connection: self.connection.clone(),
            child: self.child.clone(),
            spi: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// Forward to the owner.
    On,
    /// Leave every packet where it arrived; the agents relay IKE.
    Off,
}

#[derive(Subcommand)]
enum Pki {
    /// Make the CA of a cluster.
    Init(PkiInit),
    /// Issue a member's certificate.
    Issue(PkiIssue),
    /// Make the key that the members share with the witness.
    Witness(PkiWitness),
}

#[derive(Args)]
struct PkiWitness {
    /// The file; copy it to every member and to the witness.
    #[arg(long, default_value = "/etc/gateway/witness.key")]
    out: PathBuf,
    /// Replace an existing key.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct PkiInit {
    /// Folder for ca.crt and ca.key. Keep ca.key off the members.
    #[arg(long, default_value = "/etc/gateway/pki")]
    dir: PathBuf,
    /// The cluster's name, as in the configuration.
    #[arg(long, default_value = "gateway")]
    cluster: String,
    /// Days until it expires.
    #[arg(long, default_value_t = pki::CA_DAYS)]
    days: u32,
    /// Replace an existing CA: every member needs a new certificate then.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct PkiIssue {
    /// Folder of ca.crt and ca.key.
    #[arg(long, default_value = "/etc/gateway/pki")]
    dir: PathBuf,
    /// The cluster's name: refuse the CA of another one.
    #[arg(long)]
    cluster: Option<String>,
    /// The member's id, 1 to 63.
    #[arg(long)]
    member: u8,
    /// The member's address on the sync network.
    #[arg(long)]
    sync_address: std::net::IpAddr,
    /// Folder for member.crt, member.key and a copy of ca.crt; default: the CA's folder + member-<id>.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Days until it expires.
    #[arg(long, default_value_t = pki::MEMBER_DAYS)]
    days: u32,
    /// Replace an existing certificate.
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gatewayctl: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Status => ask::<Status>(cli, &Request::Status, render::status)?,
        Command::Members => ask::<Members>(cli, &Request::Members, render_cluster::members)?,
        Command::View => ask::<ViewStatus>(cli, &Request::View, render_cluster::view)?,
        Command::Pnotes => ask::<Pnotes>(cli, &Request::Pnotes, render_cluster::pnotes)?,
        Command::Sync => ask::<SyncStatus>(cli, &Request::Sync, render_cluster::sync)?,
        Command::Health => return health(cli),
        Command::Drain => order(cli, &Request::Drain)?,
        Command::Reload => {
            ask::<Reloaded>(cli, &Request::Reload, render_connections::reloaded)?;
        }
        Command::Undrain => order(cli, &Request::Undrain)?,
        Command::Failover { to } => order(cli, &Request::Failover { to: *to })?,
        Command::Bootstrap => order(cli, &Request::Bootstrap)?,
        Command::Table => ask::<Table>(cli, &Request::Table, render::table)?,
        Command::Sas { all } => ask::<Sas>(cli, &Request::Sas { all: *all }, render::sas)?,
        Command::Initiate(about) => about_sas(cli, &Request::Initiate(about.target()))?,
        Command::Terminate(about) => about_sas(cli, &Request::Terminate(about.target()))?,
        Command::Rekey(about) => about_sas(cli, &Request::Rekey(about.target()))?,
        Command::Connections => {
            ask::<Connections>(cli, &Request::Connections, render_connections::connections)?;
        }
        Command::Log {
            lines,
            follow,
            connection,
        } => log(cli, *lines, *follow, connection.as_deref())?,
        Command::Stats => ask::<Stats>(cli, &Request::Stats, render::stats)?,
        Command::Redirect { to, connection } => {
            let request = Request::Redirect {
                to: to.clone(),
                connection: connection.clone(),
            };
            ask::<Redirected>(cli, &request, render_cluster::redirected)?;
        }
        Command::Forwarding { state } => {
            ask::<Status>(
                cli,
                &Request::Forwarding {
                    enabled: *state == Switch::On,
                },
                render::status,
            )?;
        }
        Command::Check { config } => return check(cli, config.as_deref()),
        Command::Pki(command) => pki(command)?,
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(*shell, &mut command, "gatewayctl", &mut std::io::stdout());
        }
        Command::Man { dir } => manual::write(Cli::command(), dir)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn about_sas(cli: &Cli, request: &Request) -> Result<()> {
    ask::<Ordered>(cli, request, render_connections::ordered)
}

fn order(cli: &Cli, request: &Request) -> Result<()> {
    ask::<Accepted>(cli, request, render_cluster::accepted)
}

/// With `--json` each line is an object of its own.
fn log(cli: &Cli, lines: usize, follow: bool, connection: Option<&str>) -> Result<()> {
    let mut request = Request::Log {
        lines,
        after: 0,
        connection: connection.map(str::to_owned),
    };
    loop {
        let log: Log = api::call(&cli.socket, &request)?;
        for line in &log.lines {
            if cli.json {
                println!("{}", serde_json::to_string(line)?);
            } else {
                print!("{}", render::log_line(line));
            }
        }
        if !follow {
            return Ok(());
        }
        if let Request::Log { after, lines, .. } = &mut request {
            // After a restart of the agent they are counted anew.
            *after = if log.last < *after { 0 } else { log.last };
            *lines = usize::MAX;
        }
        std::thread::sleep(FOLLOW);
    }
}

/// Without an agent, too, nothing may be sent here.
fn health(cli: &Cli) -> Result<ExitCode> {
    let health: Health = match api::call(&cli.socket, &Request::Health) {
        Ok(health) => health,
        Err(error) => {
            eprintln!("gatewayctl: {error}");
            return Ok(ExitCode::from(1));
        }
    };
    show(cli, &health, render_cluster::health)?;
    Ok(if health.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn ask<T: DeserializeOwned + Serialize>(
    cli: &Cli,
    request: &Request,
    render: impl Fn(&T) -> String,
) -> Result<()> {
    show(cli, &api::call::<T>(&cli.socket, request)?, render)
}

fn show<T: Serialize>(cli: &Cli, answer: &T, render: impl Fn(&T) -> String) -> Result<()> {
    if cli.json {
        println!("{}", serde_json::to_string_pretty(answer)?);
    } else {
        print!("{}", render(answer));
    }
    Ok(())
}

/// Exit code 1 if an error was found; warnings alone are a success.
fn check(cli: &Cli, config: Option<&Path>) -> Result<ExitCode> {
    let checks = match config {
        Some(file) => {
            let config = gateway_user::config::Config::load(file)?;
            Checks {
                checks: gateway_user::agent::preflight(&config),
            }
        }
        None => api::call(&cli.socket, &Request::Check)
            .context("to check without a running agent, name the file: check --config FILE")?,
    };
    show(cli, &checks, render::checks)?;
    let failed = checks.checks.iter().any(Check::is_error);
    Ok(if failed {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

fn pki(command: &Pki) -> Result<()> {
    let written = match command {
        Pki::Witness(witness) => {
            pki::witness_key(&witness.out, witness.force)?;
            println!("wrote {}", witness.out.display());
            return Ok(());
        }
        Pki::Init(init) => pki::init(
            &init.dir,
            &pki::InitOptions {
                cluster: init.cluster.clone(),
                days: init.days,
                force: init.force,
            },
        )?,
        Pki::Issue(issue) => {
            let member = MemberId::new(issue.member)
                .with_context(|| format!("--member {}: 1 to 63 is allowed", issue.member))?;
            let default = || issue.dir.join(format!("member-{member}"));
            let options = pki::IssueOptions {
                member,
                cluster: issue.cluster.clone(),
                sync_address: issue.sync_address,
                days: issue.days,
                force: issue.force,
            };
            pki::issue(
                &issue.dir,
                &issue.out.clone().unwrap_or_else(default),
                &options,
            )?
        }
    };
    for file in &written.files {
        println!("wrote {}", file.display());
    }
    println!("valid until {}", written.not_after.date());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
