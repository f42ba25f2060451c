//! What clients can ask for.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use gateway_vici::{Item, Section};
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};

use super::server::Links;
use super::{Call, sas, show, wait};
use crate::api;
use crate::api::model::{
    ChildInfo, Connections, IkeSaInfo, Ordered, Redirected, Reply, Request, SaPage, Stats, Status,
};

/// The answer to a request: events first, if the client registered for them, then the response.
pub(super) struct Answer {
    /// Name of the events.
    pub(super) name: &'static str,
    /// The events.
    pub(super) events: Vec<Section>,
    /// The response.
    pub(super) response: Section,
}

impl From<Section> for Answer {
    fn from(response: Section) -> Self {
        Self {
            name: "",
            events: Vec::new(),
            response,
        }
    }
}

/// Carries out a request; `None` for one that is not known. `told` gets the connection that an order
/// is about.
pub(super) async fn run(
    links: &Links,
    command: &str,
    message: Section,
    told: &watch::Sender<Option<String>>,
) -> Option<Answer> {
    let answer = match command {
        "version" => version().await,
        "stats" => stats(links).await,
        "get-counters" | "reset-counters" => counters(links, command, &message).await,
        "get-algorithms" => Ok(show::algorithms().into()),
        "get-pools" => Ok(Section::new().into()),
        "flush-certs" => Ok(success().into()),
        "load-pool" | "unload-pool" => {
            Err("virtual addresses are not supported yet: leave the pools out".to_owned())
        }
        "install" | "uninstall" => Err(
            "trap policies are not supported: use start_action = start, or --initiate".to_owned(),
        ),
        "list-conns" => list_conns(links, &message).await,
        "list-policies" => list_policies(links, &message).await,
        "list-certs" => list_certs(links, message).await,
        "list-authorities" => listed(links, "list-authority", command, message).await,
        "initiate" => wait::initiate(links, &message, told).await.map(Into::into),
        "terminate" => wait::terminate(links, &message, told).await.map(Into::into),
        "rekey" => rekey(links, &message, told).await,
        "redirect" => redirect(links, &message).await,
        "load-conn" | "unload-conn" | "load-shared" | "unload-shared" | "load-key"
        | "unload-key" | "load-cert" | "load-token" | "clear-creds" | "load-authority"
        | "unload-authority" | "reload-settings" => {
            let sections = load(links, command, message).await;
            sections.map(|sections| {
                let entries = sections.iter().flat_map(Section::entries);
                let mut response = success();
                entries.for_each(|(name, item)| response.push(name, Item::clone(item)));
                response.into()
            })
        }
        "get-conns" | "get-shared" | "get-keys" | "get-authorities" => {
            let sections = load(links, command, message).await;
            sections.map(|sections| sections.into_iter().next().unwrap_or_default().into())
        }
        _ => return None,
    };
    Some(answer.unwrap_or_else(|error| failure(&error).into()))
}

pub(super) fn success() -> Section {
    Section::new().with("success", "yes")
}

pub(super) fn failure(why: &str) -> Section {
    Section::new().with("success", "no").with("errmsg", why)
}

/// Asks the agent's loop.
pub(super) async fn ask<T: DeserializeOwned>(links: &Links, request: Request) -> Result<T, String> {
    let answer = api::ask(&links.calls, request).await;
    match answer.ok_or_else(|| "the agent is stopping".to_owned())? {
        Reply::Ok(value) => serde_json::from_value(value).map_err(|error| error.to_string()),
        Reply::Error(error) => Err(error),
        Reply::Refused(refusal) => Err(refusal.reason),
    }
}

/// The next SAs of the cluster.
pub(super) async fn next_page(pages: &mut api::SaPages<'_>) -> Result<Option<SaPage>, String> {
    pages.next().await.map_err(|refused| match refused {
        Reply::Refused(refusal) => refusal.reason,
        Reply::Error(error) => error,
        Reply::Ok(value) => value.to_string(),
    })
}

async fn load(links: &Links, command: &str, message: Section) -> Result<Vec<Section>, String> {
    let (reply, answer) = oneshot::channel();
    let stopping = || "the agent is stopping".to_owned();
    let command = command.to_owned();
    let call = Call {
        command,
        message,
        reply,
    };
    links.loads.send(call).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

async fn version() -> Result<Answer, String> {
    let read = |file: &'static str| async move {
        let text = tokio::fs::read_to_string(format!("/proc/sys/kernel/{file}")).await;
        text.map_or_else(|_| String::new(), |text| text.trim().to_owned())
    };
    Ok(Section::new()
        .with("daemon", "gatewayd")
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("sysname", read("ostype").await)
        .with("release", read("osrelease").await)
        .with("machine", std::env::consts::ARCH)
        .into())
}

async fn stats(links: &Links) -> Result<Answer, String> {
    let status: Status = ask(links, Request::Status).await?;
    let running = std::time::Duration::from_secs_f64(status.uptime_seconds.max(0.0));
    let uptime = Section::new()
        .with("running", words(running.as_secs()))
        .with("since", date(links.started));
    let none = ["critical", "high", "medium", "low"];
    let zero = || {
        none.iter()
            .fold(Section::new(), |all, name| all.with(name, 0))
    };
    let workers = Section::new()
        .with("total", 2)
        .with("idle", 2)
        .with_section("active", zero());
    let sas = Section::new()
        .with("total", status.ike_sas + status.half_open)
        .with("half-open", status.half_open);
    Ok(Section::new()
        .with_section("uptime", uptime)
        .with_section("workers", workers)
        .with_section("queues", zero())
        .with("scheduled", 0)
        .with_section("ikesas", sas)
        .with_list("plugins", ["vici", "kernel-netlink", "aws-lc"])
        .into())
}

/// `3 hours`, as strongSwan writes a duration.
fn words(seconds: u64) -> String {
    let (number, unit) = match seconds {
        s if s >= 2 * 86_400 => (s / 86_400, "days"),
        s if s >= 2 * 3600 => (s / 3600, "hours"),
        s if s >= 2 * 60 => (s / 60, "minutes"),
        s => (s, "seconds"),
    };
    format!("{number} {unit}")
}

/// `Nov 22 10:55:21 2026`, in UTC.
fn date(at: std::time::SystemTime) -> String {
    let at = time::OffsetDateTime::from(at);
    let month = at.month().to_string();
    let month: String = month.chars().take(3).collect();
    format!(
        "{month} {:02} {:02}:{:02}:{:02} {}",
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.year()
    )
}

/// charon's counters, in its order, and the engine's that count the same.
const STOCK_COUNTERS: [(&str, &str); 21] = [
    ("ike-rekey-init", "ike_rekeys_initiated"),
    ("ike-rekey-resp", "ike_rekeys_answered"),
    ("child-rekey", "child_rekeys"),
    ("invalid", "dropped_malformed"),
    ("invalid-spi", "dropped_unknown_spi"),
    ("ike-init-in-req", "init_requests"),
    ("ike-init-in-resp", "init_responses"),
    ("ike-init-out-req", "init_requests_sent"),
    ("ike-init-out-resp", "init_responses_sent"),
    ("ike-auth-in-req", "auth_requests"),
    ("ike-auth-in-resp", "auth_responses"),
    ("ike-auth-out-req", "auth_requests_sent"),
    ("ike-auth-out-resp", "auth_responses_sent"),
    ("create-child-in-req", "create_child_requests"),
    ("create-child-in-resp", "create_child_responses"),
    ("create-child-out-req", "create_child_requests_sent"),
    ("create-child-out-resp", "create_child_responses_sent"),
    ("info-in-req", "informational_requests"),
    ("info-in-resp", "informational_responses"),
    ("info-out-req", "informational_requests_sent"),
    ("info-out-resp", "informational_responses_sent"),
];

/// The engine's counters are the daemon's, not a connection's. charon's names come first, then the
/// engine's own.
async fn counters(links: &Links, command: &str, message: &Section) -> Result<Answer, String> {
    if message.get("name").is_some() {
        return Err("there are no counters of single connections: ask without a name".to_owned());
    }
    let stats: Stats = ask(links, Request::Stats).await?;
    let mut reset = links.reset.lock().unwrap_or_else(PoisonError::into_inner);
    if command == "reset-counters" {
        *reset = stats.engine;
        return Ok(success().into());
    }
    let since = |(name, n): (&String, &u64)| {
        let before = reset.get(name).copied().unwrap_or(0);
        (name.clone(), n.saturating_sub(before))
    };
    let engine: BTreeMap<String, u64> = stats.engine.iter().map(since).collect();
    let stock = STOCK_COUNTERS.iter();
    let stock = stock.map(|(name, ours)| (*name, engine.get(*ours).copied().unwrap_or(0)));
    let own = engine.iter().map(|(name, n)| (name.as_str(), *n));
    let all = stock
        .chain(own)
        .fold(Section::new(), |all, (name, n)| all.with(name, n));
    let counters = Section::new().with_section("", all);
    Ok(success().with_section("counters", counters).into())
}

/// What a request chooses among the SAs; an empty one chooses all.
pub(super) struct Choice<'a> {
    ike: Option<&'a str>,
    ike_id: Option<&'a str>,
    child: Option<&'a str>,
    child_id: Option<&'a str>,
}

impl<'a> Choice<'a> {
    pub(super) fn of(message: &'a Section) -> Self {
        Self {
            ike: message.text("ike"),
            ike_id: message.text("ike-id"),
            child: message.text("child"),
            child_id: message.text("child-id"),
        }
    }

    /// Whether it is about CHILD_SAs.
    pub(super) const fn is_child(&self) -> bool {
        self.child.is_some() || self.child_id.is_some()
    }

    /// The chosen CHILD_SAs of an IKE SA; `None` if it is not chosen itself.
    pub(super) fn children<'s>(&self, sa: &'s IkeSaInfo) -> Option<Vec<&'s ChildInfo>> {
        let is = |wanted: Option<&str>, value: &dyn std::fmt::Display| {
            wanted.is_none_or(|wanted| wanted == value.to_string())
        };
        if !is(self.ike, &sa.connection) || !is(self.ike_id, &sas::ike_id(sa)) {
            return None;
        }
        let chosen = sa.children.iter().filter(|child| {
            is(self.child, &child.name) && is(self.child_id, &sas::child_id(child))
        });
        let chosen: Vec<&ChildInfo> = chosen.collect();
        (!self.is_child() || !chosen.is_empty()).then_some(chosen)
    }
}

/// The events of `list-sas` for a page: of the SAs that the request chooses.
pub(super) fn sa_events(message: &Section, page: &SaPage, member: u8) -> Vec<Section> {
    let choice = Choice::of(message);
    let chosen = page
        .ike_sas
        .iter()
        .filter_map(|sa| Some((sa, choice.children(sa)?)));
    let events = chosen.map(|(sa, children)| {
        let section = sas::ike_section(sa, sa.owner == member, &children);
        Section::new().with_section(&sa.connection, section)
    });
    events.collect()
}

async fn list_conns(links: &Links, message: &Section) -> Result<Answer, String> {
    let all: Connections = ask(links, Request::Connections).await?;
    let wanted = message.text("ike");
    let chosen = all
        .connections
        .iter()
        .filter(|connection| wanted.is_none_or(|name| name == connection.name));
    Ok(Answer {
        name: "list-conn",
        events: chosen.map(show::connection).collect(),
        response: Section::new(),
    })
}

/// There are no trap, drop or pass policies of strongSwan's kind.
async fn list_policies(links: &Links, _: &Section) -> Result<Answer, String> {
    let _: Status = ask(links, Request::Status).await?;
    Ok(Answer {
        name: "list-policy",
        events: Vec::new(),
        response: Section::new(),
    })
}

async fn list_certs(links: &Links, message: Section) -> Result<Answer, String> {
    let upper = |key: &str| message.text(key).map(str::to_ascii_uppercase);
    let kind = upper("type").filter(|kind| kind != "ANY");
    let flag = upper("flag").filter(|flag| flag != "ANY");
    let fits = |section: &Section, key: &str, wanted: &Option<String>| {
        wanted
            .as_deref()
            .is_none_or(|wanted| section.text(key) == Some(wanted))
    };
    let mut answer = listed(links, "list-cert", "list-certs", Section::new()).await?;
    answer
        .events
        .retain(|section| fits(section, "type", &kind) && fits(section, "flag", &flag));
    Ok(answer)
}

async fn listed(
    links: &Links,
    name: &'static str,
    command: &str,
    message: Section,
) -> Result<Answer, String> {
    Ok(Answer {
        name,
        events: load(links, command, message).await?,
        response: Section::new(),
    })
}

async fn rekey(
    links: &Links,
    message: &Section,
    told: &watch::Sender<Option<String>>,
) -> Result<Answer, String> {
    if message.text("reauth") == Some("yes") {
        return Err(
            "reauthentication by order is not supported: use reauth_time, or terminate and initiate"
                .to_owned(),
        );
    }
    let targets = wait::targets(links, message).await?;
    let matches = targets.len();
    if matches == 0 {
        return Ok(failure("no matching SAs to rekey found")
            .with("matches", 0)
            .into());
    }
    for (target, _) in targets {
        told.send_replace(Some(target.connection.clone()));
        let _: Ordered = ask(links, Request::Rekey(target)).await?;
    }
    Ok(success().with("matches", matches).into())
}

async fn redirect(links: &Links, message: &Section) -> Result<Answer, String> {
    for key in ["ike-id", "peer-ip", "peer-id"] {
        if message.get(key).is_some() {
            return Err(format!(
                "redirecting by {key} is not supported: use --ike, or nothing for all"
            ));
        }
    }
    let to = message
        .text("gateway")
        .ok_or("gateway is missing")?
        .to_owned();
    let connection = message.text("ike").map(str::to_owned);
    let outcome: Redirected = ask(links, Request::Redirect { to, connection }).await?;
    let answer = if outcome.redirected == 0 {
        failure("no matching SAs to redirect found")
    } else {
        success()
    };
    Ok(answer.with("matches", outcome.redirected).into())
}
