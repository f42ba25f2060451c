//! Errors as RFC 9457 problem details.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::model::{Refusal, RefusalKind};

/// Media type of a [`Problem`] (RFC 9457 §3).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not carried out (RFC 9457 §3.1). `type` is always `about:blank`, so `title` is
/// the status code's phrase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct Problem {
    /// "about:blank".
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The status code's phrase.
    pub(super) title: String,
    /// The HTTP status code.
    #[schema(minimum = 400, maximum = 599)]
    pub(super) status: u16,
    /// The cause, and what to do about it.
    pub(super) detail: String,
}

impl Problem {
    /// A problem with a status code.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    /// The agent does not answer: it is about to end, or too busy.
    pub(super) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent is stopping or too busy to answer: try again",
        )
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Precondition => StatusCode::PRECONDITION_FAILED,
            RefusalKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, refusal.reason)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        let more = match status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Some((header::RETRY_AFTER, "1"))
            }
            _ => None,
        };
        if let Some((name, value)) = more {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
