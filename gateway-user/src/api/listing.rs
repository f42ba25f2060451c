//! Questions of the agent's loop, and lists that are put together from many of them.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::Call;
use super::model::{PAGE, Reply, Request, SaPage, SaQuery, Status};

/// Asks the agent's loop. `None`: the agent is stopping.
pub async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Option<Reply> {
    let (reply, answer) = oneshot::channel();
    calls.send(Call { request, reply }).await.ok()?;
    answer.await.ok()
}

/// Turns of the loop that one page may take: a filter that matches little must not make a client wait.
const TURNS: usize = 50;

/// A page that is full, put together from parts that each take the loop a short turn, so that it does
/// its other work in between.
pub async fn full_page(calls: &mpsc::Sender<Call>, mut query: SaQuery) -> Result<SaPage, Reply> {
    let mut page = SaPage {
        ike_sas: Vec::new(),
        next: None,
    };
    let limit = query.limit.unwrap_or(PAGE);
    for _ in 0..TURNS {
        let part: SaPage = read(ask(calls, Request::SaPage(query.clone())).await)?;
        page.ike_sas.extend(part.ike_sas);
        page.next = part.next;
        let left = usize::from(limit).saturating_sub(page.ike_sas.len());
        query.after.clone_from(&page.next);
        query.limit = u16::try_from(left).ok();
        if left == 0 || page.next.is_none() {
            break;
        }
    }
    Ok(page)
}

/// All SAs, page by page, so that the loop does its other work in between and nobody holds all of
/// them. Those that come meanwhile may be there or not; none is there twice.
#[derive(Debug)]
pub struct SaPages<'a> {
    calls: &'a mpsc::Sender<Call>,
    query: SaQuery,
    over: bool,
}

impl<'a> SaPages<'a> {
    /// Those of the whole cluster.
    pub fn all(calls: &'a mpsc::Sender<Call>) -> Self {
        let query = SaQuery {
            limit: Some(PAGE),
            ..SaQuery::default()
        };
        Self {
            calls,
            query,
            over: false,
        }
    }

    /// Those of the whole cluster, or of one connection.
    pub fn of(calls: &'a mpsc::Sender<Call>, connection: Option<&str>) -> Self {
        let mut pages = Self::all(calls);
        pages.query.connection = connection.map(str::to_owned);
        pages
    }

    /// Those that the member owns that is asked.
    ///
    /// # Errors
    /// Another answer of the loop than its status.
    pub async fn own(calls: &'a mpsc::Sender<Call>) -> Result<Self, Reply> {
        let status: Status = read(ask(calls, Request::Status).await)?;
        let mut pages = Self::all(calls);
        pages.query.owner = Some(status.member);
        Ok(pages)
    }

    /// The next page; `None` after the last.
    ///
    /// # Errors
    /// Another answer of the loop than a page.
    pub async fn next(&mut self) -> Result<Option<SaPage>, Reply> {
        if self.over {
            return Ok(None);
        }
        let request = Request::SaPage(self.query.clone());
        let page: SaPage = read(ask(self.calls, request).await)?;
        self.query.after.clone_from(&page.next);
        self.over = page.next.is_none();
        Ok(Some(page))
    }
}

/// The loop's answer, if it is one.
pub(super) fn read<T: DeserializeOwned>(answer: Option<Reply>) -> Result<T, Reply> {
    match answer {
        Some(Reply::Ok(value)) => {
            serde_json::from_value(value).map_err(|error| Reply::Error(error.to_string()))
        }
        Some(refused) => Err(refused),
        None => Err(Reply::Error("the agent is stopping".into())),
    }
}

/// Waits so long and no longer.
pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(patience, work).await.map_err(late)?
}

/// Writes the answer to [`Request::Sas`] while its pages come.
///
/// # Errors
/// The client has gone or reads nothing for so long, or the agent refuses a page after the first: the answer ends in the middle.
pub(super) async fn write_sas(
    write: &mut (impl AsyncWrite + Unpin),
    calls: &mpsc::Sender<Call>,
    all: bool,
    patience: Duration,
) -> io::Result<()> {
    let first = async {
        let mut pages = if all {
            SaPages::all(calls)
        } else {
            SaPages::own(calls).await?
        };
        let page = pages.next().await?;
        Ok((pages, page))
    };
    let (mut pages, mut page) = match first.await {
        Ok(begun) => begun,
        Err(refused) => {
            let mut text = serde_json::to_vec::<Reply>(&refused)?;
            text.push(b'\n');
            return within(patience, write.write_all(&text)).await;
        }
    };
    let mut text = br#"{"ok":{"ike_sas":["#.to_vec();
    let mut empty = true;
    while let Some(SaPage { ike_sas, .. }) = page {
        for sa in &ike_sas {
            if !std::mem::take(&mut empty) {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, sa)?;
        }
        within(patience, write.write_all(&text)).await?;
        text.clear();
        let next = pages.next().await;
        page = next.map_err(|_| io::Error::other("the agent is stopping"))?;
    }
    within(patience, write.write_all(b"]}}\n")).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::model::Sas;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn status() -> serde_json::Value {
        json!({
            "member": 1, "name": "a", "cluster": "c", "mode": "ha", "version": "1",
            "uptime_seconds": 1.0, "state": "ACTIVE", "ike_forwarding": true,
            "steering": {"mode": "none", "interfaces": []}, "kernel_backend": "recording",
            "esp_algorithms_ready": true, "slots_owned": 256, "half_open": 0, "ike_sas": 3,
            "child_sas": 0, "table": {"entries": 0, "max_entries": 256}, "peers_connected": 0,
            "epoch": 1
        })
    }

    fn ike_sa(local_spi: &str) -> serde_json::Value {
        json!({
            "connection": "site", "local_spi": local_spi, "remote_spi": "0000000000000009",
            "slot": 7, "owner": 1, "local": "203.0.113.10:500", "remote": "198.51.100.7:500",
            "local_id": "gw", "remote_id": "site-a", "proposal": "AES_GCM_16-128",
            "established_seconds": 1.0, "nat": false, "initiator": false, "children": []
        })
    }

    /// A loop with three pages of one SA each, and what it was asked; the answer that is written.
    async fn list(all: bool) -> (Reply, Vec<SaQuery>) {
        let (sender, mut calls) = mpsc::channel::<Call>(1);
        let agent = tokio::spawn(async move {
            let mut asked = Vec::new();
            while let Some(call) = calls.recv().await {
                let answer = match call.request {
                    Request::Status => status(),
                    Request::SaPage(query) => {
                        let number = query.after.as_ref().map_or(0, String::len);
                        asked.push(query);
                        let next = (number < 2).then(|| "x".repeat(number + 1));
                        let sa = ike_sa(&format!("{number:016x}"));
                        json!({ "ike_sas": [sa], "next": next })
                    }
                    other => panic!("{other:?}"),
                };
                let _ = call.reply.send(Reply::Ok(answer));
            }
            asked
        });
        let mut text = Vec::new();
        write_sas(&mut text, &sender, all, PATIENCE).await.unwrap();
        drop(sender);
        assert_eq!(text.last(), Some(&b'\n'));
        (serde_json::from_slice(&text).unwrap(), agent.await.unwrap())
    }

    #[tokio::test]
    async fn a_list_is_put_together_from_pages() {
        let (reply, asked) = list(true).await;
        let Reply::Ok(value) = reply else {
            panic!("{reply:?}");
        };
        let sas: Sas = serde_json::from_value(value).unwrap();
        let spis: Vec<&str> = sas.ike_sas.iter().map(|sa| &*sa.local_spi).collect();
        assert_eq!(
            spis,
            ["0000000000000000", "0000000000000001", "0000000000000002"]
        );
        assert_eq!(asked.len(), 3);
        assert!(asked.iter().all(|query| query.owner.is_none()));
    }

    #[tokio::test]
    async fn a_full_page_is_put_together_from_short_turns() {
        let (sender, mut calls) = mpsc::channel::<Call>(1);
        let agent = tokio::spawn(async move {
            let mut asked = Vec::new();
            while let Some(call) = calls.recv().await {
                let Request::SaPage(query) = call.request else {
                    panic!("{:?}", call.request);
                };
                let number = asked.len();
                asked.push((query.limit, query.after));
                let sa = ike_sa(&format!("{number:016x}"));
                let page = json!({ "ike_sas": [sa], "next": format!("{number}") });
                let _ = call.reply.send(Reply::Ok(page));
            }
            asked
        });
        let query = SaQuery {
            limit: Some(3),
            ..SaQuery::default()
        };
        let page = full_page(&sender, query).await.unwrap();
        assert_eq!((page.ike_sas.len(), page.next.as_deref()), (3, Some("2")));
        drop(sender);
        let asked = agent.await.unwrap();
        let after = |text: &str| Some(text.to_owned());
        assert_eq!(
            asked,
            [
                (Some(3), None),
                (Some(2), after("0")),
                (Some(1), after("1"))
            ]
        );
    }

    #[tokio::test]
    async fn its_own_are_those_of_the_member_that_is_asked() {
        let (_, asked) = list(false).await;
        assert!(
            asked.iter().all(|query| query.owner == Some(1)),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_list_of_nobody_is_a_refusal() {
        let (sender, calls) = mpsc::channel::<Call>(1);
        drop(calls);
        let mut text = Vec::new();
        write_sas(&mut text, &sender, true, PATIENCE).await.unwrap();
        let reply: Reply = serde_json::from_slice(&text).unwrap();
        assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
    }
}
