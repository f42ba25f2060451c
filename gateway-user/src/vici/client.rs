//! One client: its requests one after the other, and the events that it wants.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gateway_vici::{Packet, Section, packet_length};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::commands::{self, Answer};
use super::hub::Happened;
use super::log::{self, Line};
use super::server::Links;
use crate::api;
use crate::api::model::{Request, Status};

/// Packets that a client may send before it has the answer to its request.
const BACKLOG: usize = 16;

/// Events that clients can register for; [`commands`] streams those of the lists.
const EVENTS: [&str; 11] = [
    "list-sa",
    "list-conn",
    "list-cert",
    "list-policy",
    "list-authority",
    "control-log",
    "log",
    "ike-updown",
    "ike-rekey",
    "child-updown",
    "child-rekey",
];

/// Serves a client until it goes or says something that is no VICI.
pub(super) async fn serve(stream: UnixStream, links: Links, patience: Duration) {
    let (read, write) = stream.into_split();
    // Reading is a task of its own: what has been read of a packet must not be lost when an event
    // comes.
    let (sender, packets) = mpsc::channel(1);
    let reader = tokio::spawn(read_all(read, sender, patience));
    let mut client = Client {
        write,
        events: links.hub.listen(),
        lines: log::listen(),
        links,
        registered: BTreeSet::new(),
        backlog: VecDeque::new(),
        following: None,
        patience,
    };
    if let Err(error) = client.run(packets).await {
        tracing::debug!("VICI client: {error:#}");
    }
    reader.abort();
}

/// Between packets a client may be silent, for it may wait for events.
async fn read_all(
    mut read: impl AsyncRead + Unpin,
    packets: mpsc::Sender<Packet>,
    patience: Duration,
) {
    loop {
        let mut prefix = [0; 4];
        if read.read_exact(&mut prefix).await.is_err() {
            return;
        }
        let Ok(len) = packet_length(prefix) else {
            return;
        };
        let mut octets = Zeroizing::new(vec![0; len]);
        match timeout(patience, read.read_exact(&mut octets)).await {
            Ok(Ok(_)) => {}
            _ => return,
        }
        match Packet::parse(&octets) {
            Ok(packet) => {
                if packets.send(packet).await.is_err() {
                    return;
                }
            }
            Err(error) => return tracing::debug!("VICI client: {error}"),
        }
    }
}

struct Client {
    write: OwnedWriteHalf,
    events: broadcast::Receiver<Arc<Happened>>,
    lines: broadcast::Receiver<Arc<Line>>,
    links: Links,
    registered: BTreeSet<String>,
    /// Packets that came while a request was carried out.
    backlog: VecDeque<Packet>,
    /// While an order runs: its connection, and how detailed its log may be.
    following: Option<(Option<String>, u8)>,
    /// Who reads nothing for so long is given up.
    patience: Duration,
}

impl Client {
    async fn run(&mut self, mut packets: mpsc::Receiver<Packet>) -> anyhow::Result<()> {
        loop {
            if let Some(packet) = self.backlog.pop_front() {
                self.handle(packet, &mut packets).await?;
                continue;
            }
            tokio::select! {
                packet = packets.recv() => match packet {
                    Some(packet) => self.handle(packet, &mut packets).await?,
                    None => return Ok(()),
                },
                event = self.events.recv() => self.pass_event(event).await?,
                line = self.lines.recv() => self.pass_line(line).await?,
            }
        }
    }

    async fn handle(
        &mut self,
        packet: Packet,
        packets: &mut mpsc::Receiver<Packet>,
    ) -> anyhow::Result<()> {
        match packet {
            Packet::Register(name) if EVENTS.contains(&name.as_str()) => {
                self.registered.insert(name);
                self.send(&Packet::Confirm).await
            }
            Packet::Unregister(name) if self.registered.remove(&name) => {
                self.send(&Packet::Confirm).await
            }
            Packet::Register(_) | Packet::Unregister(_) => self.send(&Packet::UnknownEvent).await,
            Packet::Request { command, message } => {
                self.carry_out(&command, message, packets).await
            }
            _ => anyhow::bail!("a packet that only servers send"),
        }
    }

    /// Events go on while a request is carried out; a client that goes meanwhile ends it.
    async fn carry_out(
        &mut self,
        command: &str,
        message: Section,
        packets: &mut mpsc::Receiver<Packet>,
    ) -> anyhow::Result<()> {
        if command == "list-sas" {
            return self.list_sas(&message).await;
        }
        let level = message
            .text("loglevel")
            .and_then(|level| level.parse().ok());
        let (told, mut connection) = tokio::sync::watch::channel(None);
        let links = self.links.clone();
        let mut running = std::pin::pin!(commands::run(&links, command, message, &told));
        self.following = Some((None, level.unwrap_or(1)));
        let answer = loop {
            if let Some((following, _)) = &mut self.following
                && connection.has_changed().unwrap_or(false)
            {
                following.clone_from(&connection.borrow_and_update());
            }
            tokio::select! {
                biased;
                event = self.events.recv() => self.pass_event(event).await?,
                line = self.lines.recv() => self.pass_line(line).await?,
                answer = &mut running => break answer,
                packet = packets.recv() => match packet {
                    Some(packet) if self.backlog.len() < BACKLOG => self.backlog.push_back(packet),
                    Some(_) => anyhow::bail!("it does not wait for answers"),
                    None => anyhow::bail!("gone"),
                },
            }
        };
        while let Ok(line) = self.lines.try_recv() {
            self.pass_line(Ok(line)).await?;
        }
        self.following = None;
        let Some(Answer {
            name,
            events,
            response,
        }) = answer
        else {
            return self.send(&Packet::UnknownCommand).await;
        };
        if self.registered.contains(name) {
            for message in events {
                let name = name.to_owned();
                self.send(&Packet::Event { name, message }).await?;
            }
        }
        self.send(&Packet::Response(response)).await
    }

    /// Page by page: there may be very many.
    async fn list_sas(&mut self, message: &Section) -> anyhow::Result<()> {
        let links = self.links.clone();
        let mut pages = api::SaPages::of(&links.calls, message.text("ike"));
        let listed = async {
            let status: Status = commands::ask(&links, Request::Status).await?;
            let wanted = self.registered.contains("list-sa");
            while let Some(page) = commands::next_page(&mut pages).await? {
                let events = commands::sa_events(message, &page, status.member);
                for message in events.into_iter().filter(|_| wanted) {
                    let name = "list-sa".to_owned();
                    if self.send(&Packet::Event { name, message }).await.is_err() {
                        return Err("gone".to_owned());
                    }
                }
            }
            Ok(Section::new())
        };
        let response = listed.await;
        let response = response.unwrap_or_else(|error: String| commands::failure(&error));
        self.send(&Packet::Response(response)).await
    }

    async fn pass_event(&mut self, event: Result<Arc<Happened>, RecvError>) -> anyhow::Result<()> {
        match event {
            Ok(event) if self.registered.contains(event.name) => {
                let name = event.name.to_owned();
                let message = event.message.clone();
                self.send(&Packet::Event { name, message }).await
            }
            Ok(_) | Err(RecvError::Lagged(_)) => Ok(()),
            Err(RecvError::Closed) => anyhow::bail!("the agent is stopping"),
        }
    }

    async fn pass_line(&mut self, line: Result<Arc<Line>, RecvError>) -> anyhow::Result<()> {
        let Ok(line) = line else {
            return Ok(());
        };
        let section = || {
            Section::new()
                .with("group", line.group)
                .with("level", line.level)
                .with("thread", 0)
                .with_some("ikesa-name", line.connection.as_ref())
                .with("msg", &line.message)
        };
        let follows = self.following.as_ref().is_some_and(|(connection, level)| {
            line.level <= *level && connection.is_some() && *connection == line.connection
        });
        if follows && self.registered.contains("control-log") {
            let name = "control-log".to_owned();
            let message = section();
            self.send(&Packet::Event { name, message }).await?;
        }
        if self.registered.contains("log") {
            let name = "log".to_owned();
            let message = section();
            self.send(&Packet::Event { name, message }).await?;
        }
        Ok(())
    }

    async fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        let octets = match packet.encode() {
            Ok(octets) => octets,
            Err(error) => Packet::Response(commands::failure(&error.to_string())).encode()?,
        };
        let written = timeout(self.patience, self.write.write_all(&octets));
        Ok(written.await.context("it does not read")??)
    }
}
