//! What every request goes through: who asks, how often, whether it may, and the audit log.

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{Peer, Principal, principal};
use super::browser;
use super::problem::Problem;
use super::{MAX_BODY, Rest};
use crate::config::Role;

/// Characters of a body that the audit log shows.
const SHOWN: usize = 400;

/// Lets through what may pass. A route whose role is not known is refused: it was forgotten.
pub(super) async fn guard(
    State(rest): State<Rest>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let local = matches!(peer, Peer::Local { .. });
    if let Err(problem) = browser::check(request.method(), request.headers(), local) {
        return problem.into_response();
    }
    let who = principal(
        &rest.shared.access,
        &peer,
        bearer(request.headers()).as_deref(),
    );
    if !rest.shared.rate.admits(&who.name, Instant::now()) {
        return Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("more than {} requests per second", rest.shared.rate_value),
        )
        .into_response();
    }
    let path = request.extensions().get::<MatchedPath>().cloned();
    let Some(path) = path else {
        // No such resource: says nothing about the gateway.
        return next.run(request).await;
    };
    let wanted = match rest.shared.roles.of(request.method(), path.as_str()) {
        Some(wanted) => wanted,
        // The method is not allowed here, which the router says; not to strangers.
        None if rest.shared.roles.knows(path.as_str()) => Role::Read,
        None => Role::Admin,
    };
    if let Err(problem) = check(&who, wanted) {
        if wanted > Role::Read {
            audit(&who, &request, &Bytes::new(), StatusCode::FORBIDDEN);
        }
        return problem.into_response();
    }
    request.extensions_mut().insert(who.clone());
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return next.run(request).await;
    }
    run_with_body(&who, wanted > Role::Read, request, next).await
}

/// Takes the body in, no longer than it may be; what changes something goes to the audit log.
async fn run_with_body(who: &Principal, audited: bool, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {MAX_BODY} octets, or was cut off"),
        )
        .into_response();
    };
    let told = Request::from_parts(parts.clone(), Body::empty());
    let response = next
        .run(Request::from_parts(parts, Body::from(body.clone())))
        .await;
    if audited {
        audit(who, &told, &body, response.status());
    }
    response
}

fn check(who: &Principal, wanted: Role) -> Result<(), Problem> {
    match who.role {
        None if who.local => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this user may nothing here: be root, or name a group in [rest]",
        )),
        None => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "show a client certificate of [[rest.client]] or a token of [[rest.token]]",
        )),
        Some(role) if role < wanted => Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "this takes the role \"{}\", and {} has \"{}\"",
                wanted.as_str(),
                who.name,
                role.as_str()
            ),
        )),
        Some(_) => Ok(()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// One line for each change that was asked for: who, what, and what came of it.
fn audit(who: &Principal, request: &Request, body: &Bytes, status: StatusCode) {
    let text = String::from_utf8_lossy(body);
    let shown: String = text.chars().take(SHOWN).collect();
    tracing::info!(
        target: "audit",
        who = who.name,
        method = %request.method(),
        path = request.uri().path_and_query().map(PathAndQuery::as_str),
        body = ?shown,
        result = status.as_u16(),
        "change by REST"
    );
}
