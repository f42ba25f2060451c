//! A member of the cluster under test: `gatewayd` in a node, asked over its control socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::authority::secret_file;
use super::limit;
use super::node::{Node, Process};
use super::tap::Moment;
use super::wait::wait_until;

/// A member. Dropping it kills its agent.
#[derive(Debug)]
pub struct Member {
    /// Its id in the cluster, from 1.
    pub id: u8,
    process: Process,
    binaries: PathBuf,
    config: PathBuf,
    socket: PathBuf,
}

impl Member {
    /// Writes the configuration and starts `gatewayd`, without waiting for it.
    ///
    /// # Errors
    /// The file cannot be written or the program not started.
    pub fn start(binaries: &Path, node: &Node, id: u8, config: &str) -> Result<Self> {
        let file = node.log("gateway.toml");
        // Pre-shared keys stand in it.
        secret_file(&file, config).with_context(|| file.display().to_string())?;
        let process = spawn(binaries, node, &file)?;
        let socket = node.run_dir().join("gateway/gateway.sock");
        Ok(Self {
            id,
            process,
            binaries: binaries.to_owned(),
            config: file,
            socket,
        })
    }

    /// An agent that was started otherwise, once its socket answers.
    ///
    /// # Errors
    /// It ends or does not answer in time.
    pub fn started(binaries: &Path, node: &Node, id: u8, process: Process) -> Result<Self> {
        let mut member = Self {
            id,
            process,
            binaries: binaries.to_owned(),
            config: PathBuf::from("/etc/gateway/gateway.toml"),
            socket: node.run_dir().join("gateway/gateway.sock"),
        };
        member.wait_ready()?;
        Ok(member)
    }

    /// Starts the agent again, after [`Member::kill`] or [`Member::stop`].
    ///
    /// # Errors
    /// As for [`Member::start`] and [`Member::wait_ready`].
    pub fn restart(&mut self, node: &Node) -> Result<()> {
        self.process = spawn(&self.binaries, node, &self.config)?;
        self.wait_ready()
    }

    /// Starts the agent on another host, with the same configuration.
    ///
    /// # Errors
    /// As for [`Member::restart`].
    pub fn move_to(&mut self, node: &Node) -> Result<()> {
        self.socket = node.run_dir().join("gateway/gateway.sock");
        self.restart(node)
    }

    /// From now on an agent that somebody else started answers for this member.
    pub fn answer_at(&mut self, socket: PathBuf) {
        self.socket = socket;
    }

    /// Waits until its socket answers.
    ///
    /// # Errors
    /// It ends or does not answer in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        wait_until(
            Duration::from_secs(20),
            &format!("member {} to answer", self.id),
            || {
                self.process.check_alive()?;
                Ok(call(&self.socket, &json!({"command": "status"})).is_ok())
            },
        )
    }

    /// SIGKILL: the agent gets no chance to clean up.
    pub fn kill(&mut self) {
        self.process.kill();
        // Nobody listens behind it any more; a new agent makes its own.
        let _ = fs::remove_file(&self.socket);
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end in 10 s, or with a code other than 0.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.stop(Duration::from_secs(10))?;
        if !status.success() {
            bail!("member {} ended with {status}", self.id);
        }
        Ok(())
    }

    /// Asks the agent: `status`, `members`, `table`, `sas`, `stats`, `check`.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn ask(&self, command: &str) -> Result<Value> {
        self.request(&json!({ "command": command }))
    }

    /// Sends any request.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn request(&self, request: &Value) -> Result<Value> {
        call(&self.socket, request).with_context(|| format!("member {}: {request}", self.id))
    }

    /// One of the engine's counters; one that was never raised is 0.
    ///
    /// # Errors
    /// No answer.
    pub fn engine(&self, counter: &str) -> Result<u64> {
        Ok(self.ask("stats")?["engine"][counter].as_u64().unwrap_or(0))
    }

    /// Frames that the programs ended with one of the reasons.
    ///
    /// # Errors
    /// No answer.
    pub fn reasons(&self, names: &[&str]) -> Result<u64> {
        let stats = self.ask("stats")?;
        let count = |name: &&str| stats["reasons"][*name]["packets"].as_u64().unwrap_or(0);
        Ok(names.iter().map(count).sum())
    }

    /// What the agent logged.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// When this member's log first said, after `from`, that member `other` is lost, or that there
    /// is a view without it.
    pub fn judged_since(&self, other: u8, from: Moment) -> Option<Moment> {
        let about = format!("member={other}");
        let names = |line: &str| line.split_whitespace().any(|word| word == about);
        self.logged_since(from, |line| {
            let lost = line.contains("-> LOST") && names(line);
            lost || view_members(line).is_some_and(|members| !members.contains(&other))
        })
    }

    /// When this member's log first said, after `from`, what `wanted` looks for in a line.
    pub fn logged_since(&self, from: Moment, wanted: impl Fn(&str) -> bool) -> Option<Moment> {
        let log = self.log();
        let mut moments = log
            .lines()
            .filter(|line| wanted(line))
            .filter_map(log_moment);
        moments.find(|moment| *moment > from)
    }

    /// Runs `gatewayctl` against this member.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn gatewayctl(&self, args: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(self.binaries.join("gatewayctl"));
        command.arg("--socket").arg(&self.socket).args(args);
        limit::output(&mut command).context("gatewayctl")
    }

    /// The agent's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }
}

fn spawn(binaries: &Path, node: &Node, config: &Path) -> Result<Process> {
    let mut command = node.enclosed(binaries.join("gatewayd"))?;
    command.arg("--config").arg(config).env("NO_COLOR", "1");
    node.spawn(command, "gatewayd.log")
}

/// One request, one answer.
fn call(socket: &Path, request: &Value) -> Result<Value> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10) * super::patience()))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&stream).write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    parse_answer(&answer)
}

fn parse_answer(answer: &str) -> Result<Value> {
    let mut reply: Value = serde_json::from_str(answer).context("the agent's answer")?;
    match (reply["ok"].take(), &reply["error"]) {
        (Value::Null, Value::String(error)) => Err(anyhow!("refused: {error}")),
        (Value::Null, _) => bail!("an answer with neither `ok` nor `error`: {answer}"),
        (value, _) => Ok(value),
    }
}

/// The members of a view that a log line tells: `… view of members {m1, m3} epoch=4`.
fn view_members(line: &str) -> Option<Vec<u8>> {
    let (_, rest) = line.split_once("view of members {")?;
    let (list, _) = rest.split_once('}')?;
    let ids = list
        .split(',')
        .map(|name| name.trim().trim_start_matches('m').parse());
    ids.collect::<Result<_, _>>().ok()
}

/// The time at the beginning of a log line: `2026-01-31T23:59:59.123456Z`.
fn log_moment(line: &str) -> Option<Moment> {
    let stamp = line.split_whitespace().next()?.strip_suffix('Z')?;
    let (date, time) = stamp.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.split(':');
    let (hour, minute): (u64, u64) = (time.next()?.parse().ok()?, time.next()?.parse().ok()?);
    let second: f64 = time.next()?.parse().ok()?;
    // Days since 1970-01-01, counted in years that begin in March (the leap day is the last).
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60;
    Some(Moment(seconds * 1_000_000_000).plus(Duration::try_from_secs_f64(second).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_log_lines() {
        let moment = log_moment("2026-11-22T04:48:00.5Z  INFO gateway: member 1 is LOST").unwrap();
        assert_eq!(moment, Moment(1_795_322_880_500_000_000));
        assert_eq!(log_moment("1970-01-01T00:00:00.000000Z x"), Some(Moment(0)));
        assert_eq!(log_moment("no time"), None);
    }

    #[test]
    fn members_of_views() {
        let line = "2026-11-22T08:03:46.6Z  INFO x: view of members {m1, m12} epoch=4";
        assert_eq!(view_members(line), Some(vec![1, 12]));
        assert_eq!(view_members("2026-11-22T08:03:46.6Z  INFO x: level"), None);
    }

    #[test]
    fn answers() {
        assert_eq!(
            parse_answer(r#"{"ok": {"member": 1}}"#).unwrap()["member"],
            1
        );
        assert!(
            parse_answer(r#"{"error": "no"}"#)
                .unwrap_err()
                .to_string()
                .contains("no")
        );
        assert!(parse_answer("{}").is_err());
    }
}
