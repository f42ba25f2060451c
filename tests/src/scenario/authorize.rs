//! Peers that somebody else decides about: the shipped example's program, and one that hangs.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{ESP_PROPOSAL, GATEWAY_ID, INSIDE_NETWORK, PROPOSAL, Plan, tail};

/// As the members see it.
const SOCKET: &str = "/run/gateway-authorize/socket";
/// Where nobody ever answers.
const SILENT: &str = "/run/gateway-authorize/silent";
/// Less than the peer waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Four sites: the first and the last are let in, the second is on the list, the third's decider
/// hangs, and the last one comes meanwhile.
pub(super) fn decided_elsewhere(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: 4,
            ..Plan::default()
        },
        connection: "authorize = \"/run/gateway-authorize/socket\"",
        tables: silent_table(),
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "authorize", &wishes)?;
    let list = lab.run.log("refused");
    fs::write(
        &list,
        "site-9\tis not one of ours\nsite-2\tits contract has ended\n",
    )?;
    let mut silent = Vec::new();
    for member in &lab.network.members {
        let place = |path: &str| place(member.run_dir(), path);
        serve(listen(&place(SOCKET)?)?, list.clone());
        silent.push(listen(&place(SILENT)?)?);
    }
    lab.bring_up(0)?;
    said(&lab, &["site-1 is let in, by", SOCKET])?;

    ensure!(
        lab.peer.initiate("site-2", 20).is_err(),
        "site-2 was let in"
    );
    let why = [
        "site-2 proved who it is and is not let in, by",
        "its contract has ended",
    ];
    said(&lab, &why)?;
    let log = lab.peer.log();
    ensure!(
        log.contains("N(AUTH_FAILED)"),
        "the peer was not told:\n{}",
        tail(&log, 6)
    );

    let begin = Instant::now();
    let (meanwhile, refused) = std::thread::scope(|scope| {
        let hanging = scope.spawn(|| lab.peer.initiate("site-3", 20).is_err());
        std::thread::sleep(Duration::from_millis(500));
        let meanwhile = lab.bring_up(3).map(|_| begin.elapsed());
        (meanwhile, hanging.join().unwrap_or(false))
    });
    let (meanwhile, took) = (meanwhile?, begin.elapsed());
    ensure!(refused, "site-3 was let in by nobody");
    ensure!(
        meanwhile < PATIENCE && took >= PATIENCE,
        "site-4 was up after {meanwhile:?}, site-3 refused after {took:?}"
    );
    said(&lab, &["site-3 proved", SILENT, "no answer within 3 s"])?;
    ensure!(
        lab.cluster.ike_sas()?.len() == 2,
        "others than two IKE SAs are left"
    );
    let counted = |name: &str| lab.cluster.engine(name);
    let (asked, not) = (counted("decisions_asked")?, counted("decisions_refused")?);
    ensure!((asked, not) == (4, 2), "{asked} asked, {not} refused");
    lab.every_exchange_once(0)?;
    Ok(format!(
        "two let in, one refused by the list; one refused after {:.1} s of silence, while another \
         came up after {:.1} s",
        took.as_secs_f64(),
        meanwhile.as_secs_f64()
    ))
}

/// The third site's own connection.
fn silent_table() -> String {
    format!(
        "[[connection]]\nname = \"silent\"\nproposals = [\"{PROPOSAL}\"]\n\
         authorize = \"{SILENT}\"\nauthorize_timeout = \"{}s\"\n\
         [connection.local]\nid = \"{GATEWAY_ID}\"\n[connection.remote]\nid = \"site-3\"\n\
         [connection.children.net]\nlocal_ts = [\"{INSIDE_NETWORK}\"]\n\
         remote_ts = [\"10.2.0.0/16\"]\nesp_proposals = [\"{ESP_PROPOSAL}\"]\n",
        PATIENCE.as_secs()
    )
}

/// One member has one line with these words.
fn said(lab: &Lab, words: &[&str]) -> Result<()> {
    let lines = lab.log_lines(words);
    ensure!(lines.len() == 1, "not one line with {words:?}: {lines:#?}");
    Ok(())
}

/// Where a member's `path` is for us.
fn place(run_dir: &Path, path: &str) -> Result<PathBuf> {
    let relative = path.strip_prefix("/run/").context("not below /run")?;
    Ok(run_dir.join(relative))
}

fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    UnixListener::bind(path).with_context(|| path.display().to_string())
}

/// As systemd does with `Accept=yes`: the example's program for each connection. It ends with the
/// process.
fn serve(listener: UnixListener, list: PathBuf) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(stream, &list) {
                eprintln!("the example's program: {error:#}");
            }
        }
    });
}

fn answer(stream: UnixStream, list: &Path) -> Result<()> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/examples/authorize/gateway-authorize");
    let output = OwnedFd::from(stream.try_clone()?);
    let status = Command::new(program)
        .env("GATEWAY_AUTHORIZE_LIST", list)
        .stdin(Stdio::from(OwnedFd::from(stream)))
        .stdout(Stdio::from(output))
        .status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
