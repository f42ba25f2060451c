//! The gateway agent.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use gateway_user::agent::{self, Agent};
use gateway_user::config::{self, Config, WitnessConfig};
use gateway_user::recent::Recent;
use gateway_user::vici::LogLayer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// One member of an IKEv2/IPsec gateway cluster.
#[derive(Parser)]
#[command(name = "gatewayd", version)]
struct Cli {
    /// The configuration file.
    #[arg(long, default_value = "/etc/gateway/gateway.toml")]
    config: PathBuf,
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
    #[command(subcommand)]
    task: Option<Task>,
}

/// What to do instead of running.
#[derive(Subcommand)]
enum Task {
    /// Check the configuration file, and what it names; the running agent is left alone.
    CheckConfig,
    /// Print the OpenAPI document of the REST API, without a running gateway.
    Openapi,
    /// Print the JSON schema of the configuration file, with --witness that of the witness's.
    ConfigSchema,
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder.
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("GATEWAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let recent = Recent::default();
    let journal = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_filter(filter);
    tracing_subscriber::registry()
        .with(journal)
        .with(recent.clone().with_filter(LevelFilter::INFO))
        .with(LogLayer)
        .init();
    match run(&Cli::parse(), recent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, recent: Recent) -> Result<()> {
    match &cli.task {
        Some(Task::CheckConfig) => return check_config(cli),
        Some(Task::Openapi) => {
            // Whoever reads it may have seen enough.
            let _ = writeln!(io::stdout(), "{}", gateway_user::rest::openapi());
            return Ok(());
        }
        Some(Task::ConfigSchema) => {
            let schema = if cli.witness {
                config::witness_schema()
            } else {
                config::schema()
            };
            let _ = writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&schema)?);
            return Ok(());
        }
        Some(Task::Man { dir }) => {
            gateway_user::manual::write(Cli::command(), dir)?;
            return Ok(std::fs::write(
                dir.join("gateway.toml.5"),
                config::manual(),
            )?);
        }
        None => {}
    }
    if cli.witness {
        return witness(cli);
    }
    if cli.uninstall {
        return agent::uninstall(&Config::load_for_removal(&cli.config)?);
    }
    if cli.withdraw {
        return agent::withdraw(&Config::load_for_removal(&cli.config)?);
    }
    let config = Config::load(&cli.config)?;
    agent::forbid_core_dumps().context("core dumps could not be switched off")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let file = cli.config.clone();
    // On a worker, where what was received wakes the agent without another thread's waking up.
    let agent =
        runtime.spawn(async move { Agent::start(config, &file, recent).await?.run().await });
    runtime
        .block_on(agent)
        .context("the agent ended without a result")?
}

fn check_config(cli: &Cli) -> Result<()> {
    if cli.witness {
        WitnessConfig::load(&cli.config)?;
    } else {
        let config = Config::load(&cli.config)?;
        if let Some(finding) = config.exposed {
            eprintln!("warning: {finding}");
        }
    }
    println!("{}: ok", cli.config.display());
    Ok(())
}

fn witness(cli: &Cli) -> Result<()> {
    let config = WitnessConfig::load(&cli.config)?;
    agent::forbid_core_dumps().context("core dumps could not be switched off")?;
    gateway_user::heartbeat::serve_witness(&config)
        .with_context(|| format!("witness on {}", config.listen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
