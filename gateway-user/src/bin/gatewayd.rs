//! The gateway agent.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use gateway_user::agent::{self, Agent};
use gateway_user::config::{Config, WitnessConfig};
use tracing_subscriber::EnvFilter;

/// One member of an IKEv2/IPsec gateway cluster.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The configuration file.
    #[arg(long, default_value = "/etc/gateway/gateway.toml")]
    config: PathBuf,
    /// Only check the configuration file, then exit.
    #[arg(long)]
    check_config: bool,
    /// Take this host's share away: detach the programs, remove the pins, then exit.
    #[arg(long, conflicts_with_all = ["withdraw", "witness"])]
    uninstall: bool,
    /// Take back what draws traffic here (floating addresses, health), then exit: for the time
    /// without an agent.
    #[arg(long, conflicts_with = "witness")]
    withdraw: bool,
    /// Run as witness: the third vote of two members. The file is the witness's own.
    #[arg(long)]
    witness: bool,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("GATEWAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if cli.witness {
        return witness(cli);
    }
    let config = Config::load(&cli.config)?;
    if cli.check_config {
        println!("{}: ok", cli.config.display());
        return Ok(());
    }
    if cli.uninstall {
        return agent::uninstall(&config);
    }
    if cli.withdraw {
        return agent::withdraw(&config);
    }
    agent::forbid_core_dumps().context("core dumps could not be switched off")?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime could not be started")?
        .block_on(async { Agent::start(config).await?.run().await })
}

fn witness(cli: &Cli) -> Result<()> {
    let config = WitnessConfig::load(&cli.config)?;
    if cli.check_config {
        println!("{}: ok", cli.config.display());
        return Ok(());
    }
    agent::forbid_core_dumps().context("core dumps could not be switched off")?;
    gateway_user::heartbeat::serve_witness(&config)
        .with_context(|| format!("witness on {}", config.listen))
}
