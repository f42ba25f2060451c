//! Orders whose outcome the client waits for.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use gateway_vici::Section;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::Instant;

use super::commands::{Choice, ask, failure, next_page, success};
use super::server::Links;
use crate::api;
use crate::api::model::{
    Connections, IkeSaInfo, Ordered, Refusal, RefusalKind, Reply, Request, Target,
};

/// The SAs are looked at this often: what another member does no event tells.
const LOOK: Duration = Duration::from_millis(100);
/// Nobody waits longer than all retransmissions of two exchanges take.
const LONGEST: Duration = Duration::from_secs(360);
/// After a failure something may still come of it, as with a peer's counter-proposal.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What a request chooses, each with its SPI; and our SPI of the IKE SA that it is or belongs to.
pub(super) async fn targets(
    links: &Links,
    message: &Section,
) -> Result<Vec<(Target, String)>, String> {
    let choice = Choice::of(message);
    let mut pages = api::SaPages::of(&links.calls, message.text("ike"));
    let mut targets = Vec::new();
    while let Some(page) = next_page(&mut pages).await? {
        for sa in &page.ike_sas {
            let Some(children) = choice.children(sa) else {
                continue;
            };
            let target = |child: Option<String>, spi: &str| {
                let target = Target {
                    connection: sa.connection.clone(),
                    child,
                    spi: Some(spi.to_owned()),
                };
                (target, sa.local_spi.clone())
            };
            if choice.is_child() {
                let children = children.into_iter();
                targets.extend(children.map(|one| target(Some(one.name.clone()), &one.spi_in)));
            } else {
                targets.push(target(None, &sa.local_spi));
            }
        }
    }
    Ok(targets)
}

/// Whether the IKE SA is there, and has the CHILD_SA if `spi` is the one of a CHILD_SA.
async fn is_there(links: &Links, local_spi: &str, spi: &str) -> Result<bool, String> {
    let request = Request::Sa {
        local_spi: local_spi.to_owned(),
    };
    match api::ask(&links.calls, request).await {
        Some(Reply::Ok(value)) => {
            let sa: IkeSaInfo = serde_json::from_value(value).map_err(|error| error.to_string())?;
            Ok(spi == local_spi || sa.children.iter().any(|child| child.spi_in == spi))
        }
        Some(Reply::Refused(Refusal {
            kind: RefusalKind::NotFound,
            ..
        })) => Ok(false),
        Some(Reply::Refused(refusal)) => Err(refusal.reason),
        Some(Reply::Error(error)) => Err(error),
        None => Err("the agent is stopping".to_owned()),
    }
}

/// Ends SAs and waits until they are gone.
pub(super) async fn terminate(
    links: &Links,
    message: &Section,
    told: &watch::Sender<Option<String>>,
) -> Result<Section, String> {
    let targets = targets(links, message).await?;
    let matches = targets.len();
    if matches == 0 {
        return Ok(failure("no matching SAs to terminate found").with("matches", 0));
    }
    let mut left = VecDeque::new();
    for (target, local_spi) in targets {
        told.send_replace(Some(target.connection.clone()));
        left.extend(target.spi.clone().map(|spi| (local_spi, spi)));
        let _: Ordered = ask(links, Request::Terminate(target)).await?;
    }
    let end = deadline(message);
    loop {
        // There may be many: only the first that is still there is looked at again and again.
        while let Some((local_spi, spi)) = left.front()
            && !is_there(links, local_spi, spi).await?
        {
            left.pop_front();
        }
        if left.is_empty() {
            return Ok(success()
                .with("matches", matches)
                .with("terminated", matches));
        }
        if end.is_none_or(|end| Instant::now() >= end) {
            let mut terminated = matches - left.len();
            for (local_spi, spi) in &left {
                terminated += usize::from(!is_there(links, local_spi, spi).await?);
            }
            // Without patience it is enough that it has begun.
            let answer = match end {
                None => success(),
                Some(_) => failure("not all SAs are gone yet: the peer has not answered"),
            };
            return Ok(answer
                .with("matches", matches)
                .with("terminated", terminated));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Brings up a connection or one of its children, and waits until it is up.
pub(super) async fn initiate(
    links: &Links,
    message: &Section,
    told: &watch::Sender<Option<String>>,
) -> Result<Section, String> {
    let (target, children) = configured(links, message).await?;
    told.send_replace(Some(target.connection.clone()));
    let mut events = links.hub.listen();
    let ordered: Ordered = ask(links, Request::Initiate(target.clone())).await?;
    let elsewhere = ordered.passed_on.first();
    let Some(mut end) = deadline(message) else {
        return Ok(success());
    };
    let mut failure_reason = None;
    loop {
        // These count, and go through no list.
        let all: Connections = ask(links, Request::Connections).await?;
        let this = all
            .connections
            .iter()
            .filter(|connection| connection.name == target.connection);
        let up: BTreeSet<&String> = this
            .flat_map(|connection| &connection.children)
            .filter(|child| child.child_sas > 0)
            .map(|child| &child.name)
            .collect();
        if children.iter().all(|child| up.contains(child)) {
            return Ok(success());
        }
        if Instant::now() >= end {
            let what = children.join("', '");
            let why = match (failure_reason, elsewhere) {
                (Some(reason), _) => reason,
                (None, Some(member)) => {
                    format!("not up in time; member {member} initiates it, its log says more")
                }
                (None, None) => "not up in time: the peer does not answer".to_owned(),
            };
            return Ok(failure(&format!(
                "establishing CHILD_SA '{what}' failed: {why}"
            )));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            event = events.recv() => match event {
                Ok(event) if event.connection.as_ref() == Some(&target.connection) => {
                    if let Some(reason) = &event.reason {
                        failure_reason = Some(reason.clone());
                        end = end.min(Instant::now() + AFTER_FAILURE);
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err("the agent is stopping".to_owned()),
            },
        }
    }
}

/// The connection and the children that are meant.
async fn configured(links: &Links, message: &Section) -> Result<(Target, Vec<String>), String> {
    let all: Connections = ask(links, Request::Connections).await?;
    let (ike, child) = (message.text("ike"), message.text("child"));
    if ike.is_none() && child.is_none() {
        return Err("neither child nor ike is given".to_owned());
    }
    let found = all.connections.iter().find(|connection| {
        let has = |child: &str| connection.children.iter().any(|known| known.name == child);
        ike.is_none_or(|ike| ike == connection.name) && child.is_none_or(has)
    });
    let found = found.ok_or_else(|| match (child, ike) {
        (Some(child), Some(ike)) => format!("CHILD_SA config '{child}' not found in '{ike}'"),
        (Some(child), None) => format!("CHILD_SA config '{child}' not found"),
        (None, _) => format!("IKE_SA config '{}' not found", ike.unwrap_or_default()),
    })?;
    let children = match child {
        Some(child) => vec![child.to_owned()],
        None => found
            .children
            .iter()
            .map(|child| child.name.clone())
            .collect(),
    };
    let target = Target {
        connection: found.name.clone(),
        child: child.map(str::to_owned),
        spi: None,
    };
    Ok((target, children))
}

/// `timeout`, in milliseconds: 0 or none waits as long as it takes, -1 does not wait (`None`).
fn deadline(message: &Section) -> Option<Instant> {
    let timeout = message
        .text("timeout")
        .and_then(|text| text.parse::<i64>().ok());
    let wait = match timeout.unwrap_or(0) {
        0 => LONGEST,
        ms => Duration::from_millis(u64::try_from(ms).ok()?).min(LONGEST),
    };
    Some(Instant::now() + wait)
}
