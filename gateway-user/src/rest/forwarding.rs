//! The IKE forwarding API: `SEP_my_IKE_packet` as a resource, and the steps of the inbound and the
//! outbound flow.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::time::Instant;

use super::access::Principal;
use super::extract::{Body, Query};
use super::problem::Problem;
use super::{Answer, Rest};
use crate::api::model::{
    ChangedEntry, Classified, CookieInfo, CookieQuery, DryRun, Entry, EntryKey, EntryPage,
    EntryQuery, Found, Handled, Initiated, Initiation, Injected, NewEntry, Ownership, Packet,
    ReleasedCookie, RemovedEntry, Request, ReservedCookie, Resolved, SaSync, Step, Verified,
};

/// The answer to something that made a resource: 201, or 200 if it was only asked.
async fn made(rest: &Rest, step: Step, dry_run: bool) -> Result<Response, Problem> {
    let value = rest.value(Request::IkeForwarding(step)).await?;
    let status = if dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(value)).into_response())
}

async fn ask(rest: &Rest, step: Step) -> Answer {
    rest.ask(Request::IkeForwarding(step)).await
}

/// The ownership table, or one entry of it.
#[utoipa::path(get, path = "/api/v1/cluster/ike-forwarding/packet-tracking", tag = "ike-forwarding",
    params(EntryQuery), responses((status = 200, description = "One page", body = EntryPage)))]
pub(super) async fn list(State(rest): State<Rest>, Query(query): Query<EntryQuery>) -> Answer {
    ask(&rest, Step::List(query)).await
}

/// Makes an entry; 409 if it is there. It is forgotten after 120 s, like every entry.
#[utoipa::path(post, path = "/api/v1/cluster/ike-forwarding/packet-tracking", tag = "ike-forwarding",
    request_body = NewEntry,
    responses((status = 201, description = "The entry", body = Entry),
        (status = 200, description = "What would be made", body = Entry)))]
pub(super) async fn create(
    State(rest): State<Rest>,
    Body(entry): Body<NewEntry>,
) -> Result<Response, Problem> {
    let dry_run = entry.dry_run;
    made(&rest, Step::Create(entry), dry_run).await
}

/// Hands a negotiation to a member. Doing it again changes nothing. What is half-open is only
/// changed with `force`, which aborts it; what is established answers 409.
#[utoipa::path(put, path = "/api/v1/cluster/ike-forwarding/packet-tracking", tag = "ike-forwarding",
    request_body = ChangedEntry,
    responses((status = 200, description = "The entry", body = Entry)))]
pub(super) async fn change(State(rest): State<Rest>, Body(entry): Body<ChangedEntry>) -> Answer {
    ask(&rest, Step::Change(entry)).await
}

/// Removes an entry. What is half-open is only removed with `force`, which aborts it.
#[utoipa::path(delete, path = "/api/v1/cluster/ike-forwarding/packet-tracking", tag = "ike-forwarding",
    params(RemovedEntry),
    responses((status = 200, description = "The entry that is gone", body = Entry)))]
pub(super) async fn remove(State(rest): State<Rest>, Query(entry): Query<RemovedEntry>) -> Answer {
    ask(&rest, Step::Remove(entry)).await
}

/// What is known of a cookie.
#[utoipa::path(get, path = "/api/v1/cluster/ike-forwarding/cookie", tag = "ike-forwarding",
    params(CookieQuery), responses((status = 200, description = "It is known", body = CookieInfo)))]
pub(super) async fn cookie(State(rest): State<Rest>, Query(query): Query<CookieQuery>) -> Answer {
    ask(&rest, Step::Cookie(query)).await
}

/// Reserves a fresh cookie of this member for 120 s.
#[utoipa::path(post, path = "/api/v1/cluster/ike-forwarding/cookie", tag = "ike-forwarding",
    request_body = DryRun,
    responses((status = 201, description = "The cookie", body = ReservedCookie),
        (status = 200, description = "One that could be reserved", body = ReservedCookie)))]
pub(super) async fn reserve(
    State(rest): State<Rest>,
    Body(dry_run): Body<DryRun>,
) -> Result<Response, Problem> {
    made(&rest, Step::Reserve(dry_run), dry_run.dry_run).await
}

/// Releases a reserved cookie that is not in use.
#[utoipa::path(delete, path = "/api/v1/cluster/ike-forwarding/cookie", tag = "ike-forwarding",
    params(ReleasedCookie),
    responses((status = 200, description = "It is free again", body = ReservedCookie)))]
pub(super) async fn release(
    State(rest): State<Rest>,
    Query(query): Query<ReleasedCookie>,
) -> Answer {
    ask(&rest, Step::Release(query)).await
}

/// Inbound, step 1: what the data path does with a packet, and by which look-ups. Changes nothing.
#[utoipa::path(post, path = "/api/v1/cluster/ike-forwarding/receive-packet", tag = "ike-forwarding",
    request_body = Packet,
    responses((status = 200, description = "The verdict", body = Classified)))]
pub(super) async fn receive_packet(State(rest): State<Rest>, Body(packet): Body<Packet>) -> Answer {
    ask(&rest, Step::ReceivePacket(packet)).await
}

/// Inbound, step 2, High Availability: the active member takes the entry; 412 elsewhere.
#[utoipa::path(put, path = "/api/v1/cluster/ike-forwarding/ha-ownership", tag = "ike-forwarding",
    request_body = NewEntry,
    responses((status = 200, description = "The entry", body = Entry)))]
pub(super) async fn ha_ownership(State(rest): State<Rest>, Body(entry): Body<NewEntry>) -> Answer {
    ask(&rest, Step::HaOwnership(entry)).await
}

/// Inbound, step 3, Load Sharing: cookie and message id of a packet; 412 in High Availability.
#[utoipa::path(get, path = "/api/v1/cluster/ike-forwarding/cookie-resolution", tag = "ike-forwarding",
    params(Packet), responses((status = 200, description = "What it is", body = Resolved)))]
pub(super) async fn cookie_resolution(
    State(rest): State<Rest>,
    Query(packet): Query<Packet>,
) -> Answer {
    ask(&rest, Step::CookieResolution(packet)).await
}

/// Inbound, step 4: looks a key up, as it is and with any message id.
#[utoipa::path(get, path = "/api/v1/cluster/ike-forwarding/table-search", tag = "ike-forwarding",
    params(EntryKey), responses((status = 200, description = "What is there", body = Found)))]
pub(super) async fn table_search(State(rest): State<Rest>, Query(key): Query<EntryKey>) -> Answer {
    ask(&rest, Step::TableSearch(key)).await
}

/// Inbound, step 5: the member that manages a negotiation; 404 if nobody knows it.
#[utoipa::path(get, path = "/api/v1/cluster/ike-forwarding/ownership-check", tag = "ike-forwarding",
    params(EntryKey), responses((status = 200, description = "The member", body = Ownership)))]
pub(super) async fn ownership_check(
    State(rest): State<Rest>,
    Query(key): Query<EntryKey>,
) -> Answer {
    ask(&rest, Step::OwnershipCheck(key)).await
}

/// Inbound, step 6: hands a packet to this member's engine; 412 if it is not this member's.
#[utoipa::path(post, path = "/api/v1/cluster/ike-forwarding/local-handling", tag = "ike-forwarding",
    request_body = Injected,
    responses((status = 200, description = "It was handed over", body = Handled)))]
pub(super) async fn local_handling(
    State(rest): State<Rest>,
    Extension(who): Extension<Principal>,
    Body(packet): Body<Injected>,
) -> Answer {
    rest.may_inject(&who)?;
    ask(&rest, Step::LocalHandling(packet)).await
}

/// Inbound, step 7: forwards a packet to its member over the sync channel; 412 if it is this
/// member's.
#[utoipa::path(post, path = "/api/v1/cluster/ike-forwarding/remote-forward", tag = "ike-forwarding",
    request_body = Injected,
    responses((status = 200, description = "It was forwarded", body = Handled)))]
pub(super) async fn remote_forward(
    State(rest): State<Rest>,
    Extension(who): Extension<Principal>,
    Body(packet): Body<Injected>,
) -> Answer {
    rest.may_inject(&who)?;
    ask(&rest, Step::RemoteForward(packet)).await
}

/// Inbound, step 8: makes the entry of a new negotiation here; 412 if there is one.
#[utoipa::path(post, path = "/api/v1/cluster/ike-forwarding/take-ownership", tag = "ike-forwarding",
    request_body = NewEntry,
    responses((status = 201, description = "The entry", body = Entry),
        (status = 200, description = "What would be made", body = Entry)))]
pub(super) async fn take_ownership(
    State(rest): State<Rest>,
    Body(entry): Body<NewEntry>,
) -> Result<Response, Problem> {
    let dry_run = entry.dry_run;
    made(&rest, Step::TakeOwnership(entry), dry_run).await
}

/// Outbound, step 1: starts a tunnel. The member that owns the connection's slot does it.
#[utoipa::path(post, path = "/api/v1/cluster/ike-forwarding/initiate-negotiation",
    tag = "ike-forwarding", request_body = Initiation,
    responses((status = 200, description = "Begun or passed on", body = Initiated)))]
pub(super) async fn initiate_negotiation(
    State(rest): State<Rest>,
    Body(initiation): Body<Initiation>,
) -> Answer {
    ask(&rest, Step::InitiateNegotiation(initiation)).await
}

/// Outbound, step 2: whether there is no entry of a key yet.
#[utoipa::path(get, path = "/api/v1/cluster/ike-forwarding/table-verification",
    tag = "ike-forwarding", params(EntryKey),
    responses((status = 200, description = "Whether there is none", body = Verified)))]
pub(super) async fn table_verification(
    State(rest): State<Rest>,
    Query(key): Query<EntryKey>,
) -> Answer {
    ask(&rest, Step::TableVerification(key)).await
}

/// Outbound, step 3: makes an entry with this member's address; 412 if there is one.
#[utoipa::path(post, path = "/api/v1/cluster/ike-forwarding/entry-creation", tag = "ike-forwarding",
    request_body = NewEntry,
    responses((status = 201, description = "The entry", body = Entry),
        (status = 200, description = "What would be made", body = Entry)))]
pub(super) async fn entry_creation(
    State(rest): State<Rest>,
    Body(entry): Body<NewEntry>,
) -> Result<Response, Problem> {
    let dry_run = entry.dry_run;
    made(&rest, Step::EntryCreation(entry), dry_run).await
}

/// How inbound SAs are synchronised and outbound ones kept apart.
#[utoipa::path(get, path = "/api/v1/cluster/ike-forwarding/sa-sync", tag = "ike-forwarding",
    responses((status = 200, description = "The synchronisation", body = SaSync)))]
pub(super) async fn sa_sync(State(rest): State<Rest>) -> Answer {
    ask(&rest, Step::SaSync).await
}

impl Rest {
    /// Injecting packets is for this host's root, a few per second.
    fn may_inject(&self, who: &Principal) -> Result<(), Problem> {
        if !who.local && !self.shared.inject_over_tls {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "packets are injected over the Unix socket only, unless rest.inject_over_tls is set",
            ));
        }
        if !self.shared.injections.admits(&who.name, Instant::now()) {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "more than {} injected packets per second",
                    super::INJECTIONS
                ),
            ));
        }
        Ok(())
    }
}
