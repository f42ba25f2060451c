//! The command line of the gateway.

mod bundle;
mod cli;
mod terminal;
mod top;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use gateway_common::member::MemberId;
use gateway_user::api::model::{
    Accepted, Check, Checks, Connections, ExplainQuery, Explanation, FailoverHistory, Health,
    Interfaces, Log, Members, Ordered, Pnotes, Redirected, Reloaded, Request, SaPage, SaQuery,
    Stats, Status, SyncStatus, Table, ViewStatus,
};
use gateway_user::api::{self, render};
use gateway_user::{manual, pki};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::cli::{Cli, Command, Pki, Switch};

/// How often `log --follow` asks.
const FOLLOW: std::time::Duration = std::time::Duration::from_millis(500);

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
        Command::Members => ask::<Members>(cli, &Request::Members, render::cluster::members)?,
        Command::View => ask::<ViewStatus>(cli, &Request::View, render::cluster::view)?,
        Command::Interfaces => {
            ask::<Interfaces>(cli, &Request::Interfaces, render::interfaces)?;
        }
        Command::FailoverHistory => {
            ask::<FailoverHistory>(cli, &Request::FailoverHistory, render::failovers::history)?;
        }
        Command::Pnotes => ask::<Pnotes>(cli, &Request::Pnotes, render::cluster::pnotes)?,
        Command::Sync => ask::<SyncStatus>(cli, &Request::Sync, render::cluster::sync)?,
        Command::Health => return health(cli),
        Command::Drain => order(cli, &Request::Drain)?,
        Command::Reload => {
            ask::<Reloaded>(cli, &Request::Reload, render::connections::reloaded)?;
        }
        Command::Undrain => order(cli, &Request::Undrain)?,
        Command::Failover { to } => order(cli, &Request::Failover { to: *to })?,
        Command::Bootstrap => order(cli, &Request::Bootstrap)?,
        Command::Table => ask::<Table>(cli, &Request::Table, render::table)?,
        Command::Sas { all } => sas(cli, *all)?,
        Command::Initiate(about) => about_sas(cli, &Request::Initiate(about.target()))?,
        Command::Terminate(about) => about_sas(cli, &Request::Terminate(about.target()))?,
        Command::Rekey(about) => about_sas(cli, &Request::Rekey(about.target()))?,
        Command::Connections => {
            ask::<Connections>(cli, &Request::Connections, render::connections::connections)?;
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
            ask::<Redirected>(cli, &request, render::cluster::redirected)?;
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
        Command::Top { interval, once } => top::run(cli, *interval, *once)?,
        Command::Explain { subject, source } => explain(cli, subject, *source)?,
        Command::SupportBundle {
            file,
            config,
            force,
        } => bundle::write(cli, file, config, *force)?,
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

/// Page by page, each shown as it comes: there may be very many.
fn sas(cli: &Cli, all: bool) -> Result<()> {
    let owner = match all {
        true => None,
        false => Some(api::call::<Status>(&cli.socket, &Request::Status)?.member),
    };
    let mut query = SaQuery {
        owner,
        ..SaQuery::default()
    };
    let stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let mut listing = render::SaListing::new(stdout, cli.json);
    loop {
        let page: SaPage = api::call(&cli.socket, &Request::SaPage(query.clone()))?;
        listing.page(&page.ike_sas)?;
        if page.next.is_none() {
            return Ok(listing.end()?);
        }
        query.after = page.next;
    }
}

/// Asks for all parts of the answer.
fn explain(cli: &Cli, subject: &str, source: Option<IpAddr>) -> Result<()> {
    let mut query = ExplainQuery {
        subject: subject.into(),
        source,
        after: None,
    };
    let mut whole: Explanation = api::call(&cli.socket, &Request::Explain(query.clone()))?;
    while let Some(after) = whole.next.take() {
        query.after = Some(after);
        let part: Explanation = api::call(&cli.socket, &Request::Explain(query.clone()))?;
        whole.findings.extend(part.findings);
        whole.next = part.next;
    }
    show(cli, &whole, render::explain::explanation)
}

fn about_sas(cli: &Cli, request: &Request) -> Result<()> {
    ask::<Ordered>(cli, request, render::connections::ordered)
}

fn order(cli: &Cli, request: &Request) -> Result<()> {
    ask::<Accepted>(cli, request, render::cluster::accepted)
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
    show(cli, &health, render::cluster::health)?;
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
