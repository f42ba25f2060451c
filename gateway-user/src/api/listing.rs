//! Questions of the agent's loop, and lists that are put together from many of them.

use tokio::sync::{mpsc, oneshot};

use super::Call;
use super::model::{IkeSaInfo, PAGE, Reply, Request, SaPage, SaQuery, Sas, Status};

/// Asks the agent's loop. A list of all SAs is asked for page by page, so that the loop does its
/// other work in between. `None`: the agent is stopping.
pub async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Option<Reply> {
    match request {
        Request::Sas { all } => Some(match sas(calls, all).await? {
            Ok(sas) => serde_json::to_value(sas)
                .map_or_else(|error| Reply::Error(error.to_string()), Reply::Ok),
            Err(refused) => refused,
        }),
        request => once(calls, request).await,
    }
}

/// The SAs that this member owns, or all, by our SPI. Those that come while the list is made may be in
/// it or not; none is in it twice.
///
/// # Errors
/// Any other answer of the loop than the one that was asked for.
pub async fn sas(calls: &mpsc::Sender<Call>, all: bool) -> Option<Result<Sas, Reply>> {
    let owner = if all {
        None
    } else {
        match read::<Status>(once(calls, Request::Status).await?) {
            Ok(status) => Some(status.member),
            Err(refused) => return Some(Err(refused)),
        }
    };
    let mut ike_sas: Vec<IkeSaInfo> = Vec::new();
    let mut after = None;
    loop {
        let query = SaQuery {
            after,
            limit: Some(PAGE),
            owner,
            ..SaQuery::default()
        };
        match read::<SaPage>(once(calls, Request::SaPage(query)).await?) {
            Ok(page) => {
                ike_sas.extend(page.ike_sas);
                after = page.next;
            }
            Err(refused) => return Some(Err(refused)),
        }
        if after.is_none() {
            return Some(Ok(Sas { ike_sas }));
        }
    }
}

async fn once(calls: &mpsc::Sender<Call>, request: Request) -> Option<Reply> {
    let (reply, answer) = oneshot::channel();
    calls.send(Call { request, reply }).await.ok()?;
    answer.await.ok()
}

fn read<T: serde::de::DeserializeOwned>(reply: Reply) -> Result<T, Reply> {
    match reply {
        Reply::Ok(value) => {
            serde_json::from_value(value).map_err(|error| Reply::Error(error.to_string()))
        }
        refused => Err(refused),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    /// A loop with three pages of one SA each, and what it was asked.
    async fn list(all: bool) -> (Option<Reply>, Vec<SaQuery>) {
        let (sender, mut calls) = mpsc::channel::<Call>(1);
        let agent = tokio::spawn(async move {
            let mut asked = Vec::new();
            while let Some(call) = calls.recv().await {
                let answer = match call.request {
                    Request::Status => status(),
                    Request::SaPage(query) => {
                        let number = query.after.as_ref().map_or(0, |after| after.len());
                        asked.push(query);
                        let next = (number < 2).then(|| "x".repeat(number + 1));
                        let sa = ike_sa(&format!("{number:016x}"));
                        serde_json::json!({ "ike_sas": [sa], "next": next })
                    }
                    other => panic!("{other:?}"),
                };
                let _ = call.reply.send(Reply::Ok(answer));
            }
            asked
        });
        let reply = ask(&sender, Request::Sas { all }).await;
        drop(sender);
        (reply, agent.await.unwrap())
    }

    #[tokio::test]
    async fn a_list_is_put_together_from_pages() {
        let (reply, asked) = list(true).await;
        let Some(Reply::Ok(value)) = reply else {
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
    async fn its_own_are_those_of_the_member_that_is_asked() {
        let (_, asked) = list(false).await;
        assert!(
            asked.iter().all(|query| query.owner == Some(1)),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn nobody_answers_when_the_agent_stops() {
        let (sender, calls) = mpsc::channel::<Call>(1);
        drop(calls);
        assert!(ask(&sender, Request::Sas { all: true }).await.is_none());
    }
}
