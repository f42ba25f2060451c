//! What there is to see.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::extract::{Path, Query};
use super::problem::Problem;
use super::{Answer, Rest};
use crate::api::model::{
    Checks, Connections, ExplainQuery, Explanation, FailoverHistory, Health, History, IkeSaInfo,
    Interfaces, Members, Pnotes, Request, SaPage, SaQuery, Stats, Status, SyncStatus, ViewStatus,
};

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "gateway",
    responses((status = 200, description = "OpenAPI 3.1", body = Value)))]
pub(super) async fn openapi(State(rest): State<Rest>) -> Json<Value> {
    Json(rest.shared.openapi.clone())
}

/// This member at a glance.
#[utoipa::path(get, path = "/api/v1/status", tag = "gateway",
    responses((status = 200, description = "The status", body = Status)))]
pub(super) async fn status(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Status).await
}

/// Whether upstream may send to this member: for load balancers and BGP scripts.
#[utoipa::path(get, path = "/api/v1/health", tag = "gateway",
    responses((status = 200, description = "It takes traffic", body = Health),
        (status = 503, description = "It does not", body = Health)))]
pub(super) async fn health(State(rest): State<Rest>) -> Result<Response, Problem> {
    let health = rest.value(Request::Health).await?;
    let status = if health["healthy"] == true {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok((status, Json(health)).into_response())
}

/// The members as this one sees them.
#[utoipa::path(get, path = "/api/v1/members", tag = "cluster",
    responses((status = 200, description = "All members", body = Members)))]
pub(super) async fn members(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Members).await
}

/// The view with the owner of each slot.
#[utoipa::path(get, path = "/api/v1/view", tag = "cluster",
    responses((status = 200, description = "The installed view", body = ViewStatus)))]
pub(super) async fn view(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::View).await
}

/// This member's critical devices.
#[utoipa::path(get, path = "/api/v1/pnotes", tag = "cluster",
    responses((status = 200, description = "All of them", body = Pnotes)))]
pub(super) async fn pnotes(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Pnotes).await
}

/// The synchronisation with the other members.
#[utoipa::path(get, path = "/api/v1/sync", tag = "cluster",
    responses((status = 200, description = "Positions and lag", body = SyncStatus)))]
pub(super) async fn sync(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Sync).await
}

/// The interfaces and how they are steered.
#[utoipa::path(get, path = "/api/v1/interfaces", tag = "gateway",
    responses((status = 200, description = "Public, sync, inside", body = Interfaces)))]
pub(super) async fn interfaces(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Interfaces).await
}

/// What is configured, and how much of it is up.
#[utoipa::path(get, path = "/api/v1/connections", tag = "tunnels",
    responses((status = 200, description = "In configured order", body = Connections)))]
pub(super) async fn connections(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Connections).await
}

/// Established IKE SAs with their CHILD_SAs, in the order of our SPIs.
#[utoipa::path(get, path = "/api/v1/sas", tag = "tunnels", params(SaQuery),
    responses((status = 200, description = "One page", body = SaPage)))]
pub(super) async fn sas(State(rest): State<Rest>, Query(query): Query<SaQuery>) -> Answer {
    rest.page(query).await
}

/// One IKE SA.
#[utoipa::path(get, path = "/api/v1/sas/{local_spi}", tag = "tunnels",
    params(("local_spi" = String, Path, description = "Our SPI, 16 hexadecimal digits")),
    responses((status = 200, description = "The IKE SA", body = IkeSaInfo)))]
pub(super) async fn sa(State(rest): State<Rest>, Path(local_spi): Path<String>) -> Answer {
    rest.ask(Request::Sa { local_spi }).await
}

/// Takeovers, views and changes of members' states since the agent started, newest first.
#[utoipa::path(get, path = "/api/v1/history", tag = "cluster",
    responses((status = 200, description = "The last 256", body = History)))]
pub(super) async fn history(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::History).await
}

/// Views in which slots got another owner: who lost them to whom, why, and how long it took.
#[utoipa::path(get, path = "/api/v1/failovers", tag = "cluster",
    responses((status = 200, description = "The last 64, newest first", body = FailoverHistory)))]
pub(super) async fn failovers(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::FailoverHistory).await
}

/// Why a peer's packets, or one packet, go where they go: which key is looked up in which map, whose
/// the slot is, and what XDP does. IKE and ESP are explained as the peer would send them.
#[utoipa::path(get, path = "/api/v1/explain", tag = "cluster", params(ExplainQuery),
    responses((status = 200, description = "Each kind of packet that it concerns", body = Explanation)))]
pub(super) async fn explain(State(rest): State<Rest>, Query(query): Query<ExplainQuery>) -> Answer {
    rest.ask(Request::Explain(query)).await
}

/// Every counter there is.
#[utoipa::path(get, path = "/api/v1/stats", tag = "gateway",
    responses((status = 200, description = "Since the start", body = Stats)))]
pub(super) async fn stats(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Stats).await
}

/// What on this host would break the cluster.
#[utoipa::path(get, path = "/api/v1/checks", tag = "gateway",
    responses((status = 200, description = "All checks, each failed one with its fix", body = Checks)))]
pub(super) async fn checks(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Check).await
}
