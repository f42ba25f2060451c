//! Answers to `gatewayctl`.

use std::collections::BTreeMap;

use gateway_cluster::membership;
use gateway_common::abi::{ANY_MESSAGE_ID, Address};
use gateway_common::abi::{Counter, NegotiationKey, NegotiationState, NegotiationValue};
use gateway_common::member::MemberId;
use gateway_common::reason::Reason;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::endpoint::{ChildStatus, SaStatus};
use gateway_ike::mark::Mark;
use gateway_ike::output::ChildId;
use gateway_node::What;
use serde::Serialize;
use tokio::sync::oneshot;

use super::Agent;
use crate::api::Call;
use crate::api::model::{
    Checks, ChildInfo, Count, EspSaEntry, IkeSaEntry, IkeSaInfo, InterfaceStatus, Log, MemberCount,
    NegotiationEntry, Redirected, Refusal, RefusalKind, Reply, Request, Stats, Status,
    SteeringStatus, Step, Table, TableFill,
};
use crate::clock;
use crate::config::gateway;
use crate::steering::{Counters, Dump};
use crate::xfrm::ChildCounters;

impl Agent {
    /// Carries out one request of a client.
    pub(super) fn answer(&mut self, call: Call) {
        let command = match call.request {
            Request::Drain => membership::Command::Drain,
            Request::Undrain => membership::Command::Undrain,
            Request::Bootstrap => membership::Command::Bootstrap,
            Request::Failover { to } => match self.other_member(to) {
                Ok(to) => membership::Command::Failover { to },
                Err(reason) => {
                    let refusal = Refusal::new(RefusalKind::NotFound, reason);
                    let _ = call.reply.send(Reply::Refused(refusal));
                    return;
                }
            },
            // What walks whole tables is read beside the loop.
            Request::Table => {
                let tables = self.steering.tables();
                let read = move || {
                    tables
                        .dump_owners()
                        .map_err(text)
                        .map(|dump| table(&dump, clock::now()))
                };
                return aside(call.reply, read);
            }
            Request::Check => {
                let preflight = super::deferred_preflight(&self.config);
                return aside(call.reply, || {
                    Ok(Checks {
                        checks: preflight(),
                    })
                });
            }
            Request::IkeForwarding(Step::List(query)) => {
                return match self.entries(&query) {
                    Ok(entries) => aside_refused(call.reply, entries),
                    Err(refusal) => drop(call.reply.send(Reply::Refused(refusal))),
                };
            }
            Request::Status => return self.status_aside(call.reply),
            Request::Forwarding { enabled } => {
                if let Err(reason) = self.switch_forwarding(enabled) {
                    let _ = call.reply.send(Reply::Error(reason));
                    return;
                }
                return self.status_aside(call.reply);
            }
            request => {
                let reply = self.answer_at_once(&request);
                // A client that has gone needs no answer.
                let _ = call.reply.send(reply);
                return;
            }
        };
        let (sender, outcome) = oneshot::channel();
        self.membership.command(command, Some(sender));
        tokio::spawn(async move {
            let reply = match outcome.await {
                Ok(Ok(())) => Reply::Ok(serde_json::json!({ "accepted": true })),
                Ok(Err(reason)) => Reply::Error(format!("refused: {reason}")),
                Err(_) => Reply::Error("the agent is stopping".into()),
            };
            let _ = call.reply.send(reply);
        });
    }

    fn other_member(&self, id: u8) -> Result<MemberId, String> {
        let cluster = &self.config.cluster;
        MemberId::new(id)
            .filter(|id| *id != cluster.local && cluster.members.contains_key(id))
            .ok_or_else(|| format!("member {id} is not another member of this cluster"))
    }

    fn answer_at_once(&mut self, request: &Request) -> Reply {
        let precise = match request {
            Request::SaPage(query) => self.sa_page(query).and_then(told),
            Request::Sa { local_spi } => self.one_sa(local_spi).and_then(told),
            Request::Explain(query) => self.explain(query).and_then(told),
            Request::IkeForwarding(step) => self.forwarding_step(step),
            Request::Initiate(target) => self.order(What::Initiate, target).and_then(told),
            Request::Terminate(target) => self.order(What::Terminate, target).and_then(told),
            Request::Rekey(target) => self.order(What::Rekey, target).and_then(told),
            Request::Redirect { to, connection } => {
                self.redirect(to, connection.as_deref()).and_then(told)
            }
            _ => return self.answer_plainly(request),
        };
        precise.map_or_else(Reply::Refused, Reply::Ok)
    }

    fn answer_plainly(&mut self, request: &Request) -> Reply {
        let answer = match request {
            Request::Members => value(self.members()),
            Request::View => value(self.view()),
            Request::Pnotes => value(self.pnotes()),
            Request::Sync => value(self.sync()),
            Request::Health => value(self.health()),
            Request::Log {
                lines,
                after,
                connection,
            } => value(Log {
                last: self.recent.last(),
                lines: self.recent.lines(*after, *lines, connection.as_deref()),
            }),
            Request::Stats => self.stats().and_then(value),
            Request::Connections => value(self.connections()),
            Request::Reload => self.reload().and_then(value),
            Request::History => value(self.journal.history()),
            Request::FailoverHistory => value(self.journal.failovers()),
            Request::Interfaces => value(self.interfaces()),
            _ => Err("not a question".into()),
        };
        answer.map_or_else(Reply::Error, Reply::Ok)
    }

    fn redirect(&mut self, to: &str, connection: Option<&str>) -> Result<Redirected, Refusal> {
        let gateway = gateway(to).map_err(|reason| Refusal::new(RefusalKind::Invalid, reason))?;
        if let Some(name) = connection
            && !self.all_connections().any(|known| known.name == name)
        {
            let reason = format!("there is no connection \"{name}\"");
            return Err(Refusal::new(RefusalKind::NotFound, reason));
        }
        let redirected = self.node.redirect(clock::now(), connection, &gateway);
        tracing::info!("{redirected} peers were asked to go to {gateway}");
        Ok(Redirected { redirected })
    }

    fn switch_forwarding(&mut self, enabled: bool) -> Result<(), String> {
        self.steering.set_enabled(enabled).map_err(text)?;
        tracing::info!(
            "IKE forwarding switched {}",
            if enabled { "on" } else { "off" }
        );
        Ok(())
    }

    /// Counting the negotiations walks their table.
    fn status_aside(&mut self, reply: oneshot::Sender<Reply>) {
        let status = self.status();
        let tables = self.steering.tables();
        aside(reply, move || {
            let fill = tables.fill().map_err(text)?;
            let table = TableFill {
                entries: fill.entries as usize,
                max_entries: fill.max_entries,
            };
            Ok(Status { table, ..status? })
        });
    }

    /// Without the fill of the table.
    fn status(&mut self) -> Result<Status, String> {
        let (ike_sas, child_sas) = self.node.owned();
        let cluster = &self.config.cluster;
        let tables = self.steering.tables();
        let node = self.node.status();
        Ok(Status {
            member: cluster.local.get(),
            name: cluster.local_member().name.clone(),
            cluster: cluster.name.clone(),
            mode: cluster.mode,
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: (clock::now() - self.started).as_secs_f64(),
            state: self.own_state().1,
            ike_forwarding: tables.settings().map_err(text)?.enabled != 0,
            steering: SteeringStatus {
                mode: self.steering.mode().as_str().into(),
                interfaces: self
                    .steering
                    .interfaces()
                    .iter()
                    .map(|interface| InterfaceStatus {
                        name: interface.name.clone(),
                        role: interface.role.as_str().into(),
                        mode: interface.mode.as_str().into(),
                    })
                    .collect(),
            },
            kernel_backend: self.config.backend,
            esp_algorithms_ready: self.preparation.is_over(),
            slots_owned: self.node.view().slots.owned_by(cluster.local),
            half_open: node.half_open,
            ike_sas,
            child_sas,
            table: TableFill::default(),
            peers_connected: node.cluster.peers.iter().filter(|p| p.connected).count(),
            epoch: self.node.view().epoch.0,
        })
    }

    fn stats(&self) -> Result<Stats, String> {
        let counters = self.steering.tables().counters().map_err(text)?;
        let mut engine: BTreeMap<String, u64> = self
            .node
            .engine_counters()
            .iter()
            .map(|(name, n)| (name.to_owned(), n))
            .collect();
        let node = self.node.status().counters;
        let more = [
            ("relayed_out", node.relayed_out),
            ("relayed_in", node.relayed_in),
            ("not_ours_dropped", node.not_ours_dropped),
            ("without_lease_dropped", node.without_lease_dropped),
            ("not_shared_dropped", node.not_shared_dropped),
            ("woken", node.woken),
            ("unreadable_records", node.unreadable_records),
            ("reconciled", node.reconciled),
            ("send_errors", self.send_errors),
        ];
        engine.extend(more.map(|(name, n)| (name.to_owned(), n)));
        Ok(Stats {
            reasons: reasons(&counters),
            members: member_counts(&counters),
            engine,
            membership: self.membership_counts(),
        })
    }
}

/// Answers from a thread that may take its time.
fn aside<T: Serialize>(
    reply: oneshot::Sender<Reply>,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) {
    tokio::task::spawn_blocking(move || {
        let answer = work().and_then(value);
        // A client that has gone needs no answer.
        let _ = reply.send(answer.map_or_else(Reply::Error, Reply::Ok));
    });
}

/// The same for work that may be refused.
fn aside_refused<T: Serialize>(
    reply: oneshot::Sender<Reply>,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) {
    tokio::task::spawn_blocking(move || {
        let answer = work().and_then(told);
        let _ = reply.send(answer.map_or_else(Reply::Refused, Reply::Ok));
    });
}

pub(super) fn told<T: Serialize>(answer: T) -> Result<serde_json::Value, Refusal> {
    value(answer).map_err(|reason| Refusal::new(RefusalKind::Conflict, reason))
}

fn value<T: Serialize>(answer: T) -> Result<serde_json::Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn reasons(counters: &Counters) -> BTreeMap<String, Count> {
    // Between the programs' reasons indices are left out.
    let counted = (0..).zip(&counters.reasons);
    counted
        .filter(|(_, counter)| counter.packets > 0)
        .filter_map(|(index, counter)| {
            let reason = Reason::from_index(index)?;
            Some((reason.as_str().to_owned(), count(*counter)))
        })
        .collect()
}

fn member_counts(counters: &Counters) -> BTreeMap<u8, MemberCount> {
    (1u8..)
        .zip(counters.forwarded.iter().zip(&counters.received).skip(1))
        .filter(|(_, (out, inward))| out.packets > 0 || inward.packets > 0)
        .map(|(id, (out, inward))| {
            (
                id,
                MemberCount {
                    forwarded: count(*out),
                    received: count(*inward),
                },
            )
        })
        .collect()
}

fn count(counter: Counter) -> Count {
    Count {
        packets: counter.packets,
        bytes: counter.bytes,
    }
}

fn table(dump: &Dump, now: Instant) -> Table {
    let owner = |slot: Slot| {
        dump.slot_owners
            .get(usize::from(slot.0))
            .copied()
            .flatten()
            .map_or(0, MemberId::get)
    };
    Table {
        negotiations: dump
            .negotiations
            .iter()
            .map(|(k, v)| negotiation(k, v, now))
            .collect(),
        ike_sas: dump
            .ike_sas
            .iter()
            .map(|(key, slot)| IkeSaEntry {
                cookie: hex64(key.cookie),
                slot: slot.0,
                owner: owner(*slot),
            })
            .collect(),
        esp_sas: dump
            .esp_sas
            .iter()
            .map(|(key, slot)| EspSaEntry {
                spi: hex32(key.spi),
                vip: std::net::IpAddr::from(key.vip).to_string(),
                slot: slot.0,
                owner: owner(*slot),
            })
            .collect(),
    }
}

fn negotiation(key: &NegotiationKey, value: &NegotiationValue, now: Instant) -> NegotiationEntry {
    let peer =
        (key.peer != Address::UNSPECIFIED).then(|| std::net::IpAddr::from(key.peer).to_string());
    NegotiationEntry {
        cookie: hex64(key.cookie),
        message_id: if key.message_id == ANY_MESSAGE_ID {
            "any".into()
        } else {
            u32::from_be_bytes(key.message_id).into()
        },
        peer,
        member: value.member,
        slot: value.slot,
        state: if value.state == NegotiationState::Static as u8 {
            "static"
        } else {
            "half-open"
        }
        .into(),
        age_seconds: (now - Instant::from_nanos(value.created_ns)).as_secs_f64(),
        expires_in_seconds: (Instant::from_nanos(value.expires_ns) - now).as_secs_f64(),
    }
}

pub(super) fn ike_sa(
    sa: &SaStatus,
    owner: u8,
    now: Instant,
    counters: &BTreeMap<ChildId, ChildCounters>,
) -> IkeSaInfo {
    let child_info = |child: &ChildStatus| {
        let id = ChildId {
            spi_in: child.spi_in,
            local: sa.local.ip(),
        };
        let counted = counters.get(&id).copied().unwrap_or_default();
        ChildInfo {
            name: child.name.clone(),
            spi_in: hex32(child.spi_in),
            spi_out: hex32(child.spi_out),
            proposal: child.proposal.clone(),
            local_ts: child.local_ts.iter().map(ToString::to_string).collect(),
            remote_ts: child.remote_ts.iter().map(ToString::to_string).collect(),
            mark_in: mark(child.marks.inbound),
            mark_out: mark(child.marks.outbound),
            encap: child.encap,
            reqid: counted.reqid,
            idle_seconds: counted
                .last_used_in
                .map(|at| clock::unix_seconds().saturating_sub(at)),
            installed_seconds: (now - child.installed_at).as_secs_f64(),
            rekey_seconds: child.rekey_at.map(|at| (at - now).as_secs_f64()),
            life_seconds: (child.expires_at - now).as_secs_f64(),
            packets_in: counted.packets_in,
            bytes_in: counted.bytes_in,
            packets_out: counted.packets_out,
            bytes_out: counted.bytes_out,
        }
    };
    IkeSaInfo {
        connection: sa.connection.clone(),
        local_spi: hex64(sa.local_spi),
        remote_spi: hex64(sa.remote_spi),
        slot: sa.slot.0,
        owner,
        local: sa.local.to_string(),
        remote: sa.remote.to_string(),
        local_id: sa.local_id.clone(),
        remote_id: sa.remote_id.clone(),
        proposal: sa.proposal.clone(),
        established_seconds: (now - sa.established_at).as_secs_f64(),
        nat: sa.nat,
        initiator: sa.initiator,
        rekey_seconds: sa.rekey_at.map(|at| (at - now).as_secs_f64()),
        reauth_seconds: sa.reauth_at.map(|at| (at - now).as_secs_f64()),
        children: sa.children.iter().map(child_info).collect(),
    }
}

fn mark(mark: Mark) -> Option<String> {
    (!mark.is_none()).then(|| mark.to_string())
}

fn hex64(octets: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(octets))
}

fn hex32(octets: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(octets))
}

#[cfg(test)]
mod tests {
    use gateway_common::abi::size;

    use super::*;

    #[test]
    fn each_reason_is_told_what_was_counted_for_it() {
        let counted = |index: u32| Counter {
            packets: u64::from(index) + 1,
            bytes: 0,
        };
        let counters = Counters {
            reasons: (0..size::REASONS).map(counted).collect(),
            ..Counters::default()
        };
        let told = reasons(&counters);
        assert_eq!(told.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(
                told[reason.as_str()].packets,
                u64::from(reason.index()) + 1,
                "{reason}"
            );
        }
    }
}
