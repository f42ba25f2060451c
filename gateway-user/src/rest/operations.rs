//! What operators do.

use axum::extract::State;

use super::extract::{Body, Path};
use super::{Answer, Rest};
use crate::api::model::{
    Accepted, ChildName, FailoverTo, Ordered, RedirectTo, Redirected, Request, Status, Switch,
    Target,
};

fn target(connection: String, child: ChildName) -> Target {
    Target {
        connection,
        child: child.child,
        spi: None,
    }
}

/// Brings up a connection, or one of its children, on the member that owns it.
#[utoipa::path(post, path = "/api/v1/connections/{name}/initiate", tag = "tunnels",
    params(("name" = String, Path, description = "The connection")), request_body = ChildName,
    responses((status = 200, description = "Begun or passed on", body = Ordered)))]
pub(super) async fn initiate(
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Body(child): Body<ChildName>,
) -> Answer {
    rest.ask(Request::Initiate(target(name, child))).await
}

/// Deletes a connection's SAs, or those of one of its children.
#[utoipa::path(post, path = "/api/v1/connections/{name}/terminate", tag = "tunnels",
    params(("name" = String, Path, description = "The connection")), request_body = ChildName,
    responses((status = 200, description = "Begun or passed on", body = Ordered)))]
pub(super) async fn terminate(
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Body(child): Body<ChildName>,
) -> Answer {
    rest.ask(Request::Terminate(target(name, child))).await
}

/// Makes successors of a connection's SAs, or of those of one of its children.
#[utoipa::path(post, path = "/api/v1/connections/{name}/rekey", tag = "tunnels",
    params(("name" = String, Path, description = "The connection")), request_body = ChildName,
    responses((status = 200, description = "Begun or passed on", body = Ordered)))]
pub(super) async fn rekey(
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Body(child): Body<ChildName>,
) -> Answer {
    rest.ask(Request::Rekey(target(name, child))).await
}

/// Asks the peers of this member's IKE SAs of a connection to go to another gateway (RFC 5685).
#[utoipa::path(post, path = "/api/v1/connections/{name}/redirect", tag = "tunnels",
    params(("name" = String, Path, description = "The connection")), request_body = RedirectTo,
    responses((status = 200, description = "How many were asked", body = Redirected)))]
pub(super) async fn redirect(
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Body(to): Body<RedirectTo>,
) -> Answer {
    let (to, connection) = (to.to, Some(name));
    rest.ask(Request::Redirect { to, connection }).await
}

/// Asks the peers of all of this member's IKE SAs to go to another gateway (RFC 5685).
#[utoipa::path(post, path = "/api/v1/redirect", tag = "cluster", request_body = RedirectTo,
    responses((status = 200, description = "How many were asked", body = Redirected)))]
pub(super) async fn redirect_all(State(rest): State<Rest>, Body(to): Body<RedirectTo>) -> Answer {
    let (to, connection) = (to.to, None);
    rest.ask(Request::Redirect { to, connection }).await
}

/// Hands this member's slots to the others; it stays a replica.
#[utoipa::path(post, path = "/api/v1/drain", tag = "cluster",
    responses((status = 200, description = "It will be done", body = Accepted)))]
pub(super) async fn drain(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Drain).await
}

/// The opposite of draining.
#[utoipa::path(post, path = "/api/v1/undrain", tag = "cluster",
    responses((status = 200, description = "It will be done", body = Accepted)))]
pub(super) async fn undrain(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Undrain).await
}

/// Hands this member's slots to one other member.
#[utoipa::path(post, path = "/api/v1/failover", tag = "cluster", request_body = FailoverTo,
    responses((status = 200, description = "It will be done", body = Accepted)))]
pub(super) async fn failover(State(rest): State<Rest>, Body(to): Body<FailoverTo>) -> Answer {
    rest.ask(Request::Failover { to: to.to }).await
}

/// Forms a view with this member alone, when the others are known to serve nothing.
#[utoipa::path(post, path = "/api/v1/bootstrap", tag = "cluster",
    responses((status = 200, description = "It will be done", body = Accepted)))]
pub(super) async fn bootstrap(State(rest): State<Rest>) -> Answer {
    rest.ask(Request::Bootstrap).await
}

/// Switches XDP forwarding until the next start.
#[utoipa::path(put, path = "/api/v1/forwarding", tag = "gateway", request_body = Switch,
    responses((status = 200, description = "The status afterwards", body = Status)))]
pub(super) async fn forwarding(State(rest): State<Rest>, Body(switch): Body<Switch>) -> Answer {
    let enabled = switch.enabled;
    rest.ask(Request::Forwarding { enabled }).await
}
