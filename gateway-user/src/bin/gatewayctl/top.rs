//! `gatewayctl top`: asks twice, shows the difference, and so on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use gateway_user::api::model::Request;
use gateway_user::api::top::{Sample, Top, top};
use gateway_user::api::{self, render};

use crate::cli::Cli;
use crate::terminal::Screen;

/// With `--json` a line for each interval. On a terminal it is redrawn in place.
pub(crate) fn run(cli: &Cli, interval: f64, once: bool) -> Result<()> {
    let interval = Duration::from_secs_f64(interval);
    let begun = Instant::now();
    let mut before = sample(cli, begun)?;
    let screen = if once || cli.json {
        None
    } else {
        Screen::open()?
    };
    if let Some(screen) = &screen {
        screen.draw(&render::top::top(&top(&before, &before)))?;
    }
    loop {
        match &screen {
            Some(screen) if screen.wait(interval)? => return Ok(()),
            Some(_) => {}
            None => std::thread::sleep(interval),
        }
        let after = sample(cli, begun)?;
        let picture = top(&before, &after);
        match &screen {
            Some(screen) => screen.draw(&render::top::top(&picture))?,
            None => print(cli, &picture, once)?,
        }
        if once {
            return Ok(());
        }
        before = after;
    }
}

fn print(cli: &Cli, picture: &Top, once: bool) -> Result<()> {
    if cli.json {
        println!("{}", serde_json::to_string(picture)?);
    } else {
        let between = if once { "" } else { "\n" };
        print!("{}{between}", render::top::top(picture));
    }
    Ok(())
}

fn sample(cli: &Cli, begun: Instant) -> Result<Sample> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let stats = api::call(&cli.socket, &Request::Stats)?;
    Ok(Sample {
        at: begun.elapsed(),
        time: since_1970.map_or(0.0, |time| time.as_secs_f64()),
        stats,
        status: api::call(&cli.socket, &Request::Status)?,
        members: api::call(&cli.socket, &Request::Members)?,
        sync: api::call(&cli.socket, &Request::Sync)?,
    })
}
