//! Answers as bytes, and refusals in the one form that all of them have.

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use patronus_api::{ApiError, REQUEST_LEN_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    pub error: ApiError,
}

impl Refused {
    fn new(status: StatusCode, error: impl Into<String>, fix: impl Into<String>) -> Self {
        let error = ApiError {
            error: error.into(),
            field: None,
            fix: fix.into(),
        };
        Self { status, error }
    }

    /// A field holds nonsense.
    pub fn field(field: &str, error: impl Into<String>, fix: impl Into<String>) -> Self {
        let mut refused = Self::new(StatusCode::BAD_REQUEST, error, fix);
        refused.error.field = Some(field.to_owned());
        refused
    }

    /// A field names what does not exist.
    pub fn missing(field: &str, error: impl Into<String>, fix: impl Into<String>) -> Self {
        let mut refused = Self::field(field, error, fix);
        refused.status = StatusCode::NOT_FOUND;
        refused
    }

    /// What stands in the way may pass.
    pub fn conflict(field: &str, error: impl Into<String>, fix: impl Into<String>) -> Self {
        let mut refused = Self::field(field, error, fix);
        refused.status = StatusCode::CONFLICT;
        refused
    }

    /// A query that is none, with an example of one.
    pub fn query(rejection: &QueryRejection, example: &str) -> Self {
        let fix = format!("write {example}");
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text(), fix)
    }

    /// Who asks has not shown that they may ask at all.
    pub fn unauthorized(error: &str) -> Self {
        let fix = "send `Authorization: Bearer TOKEN`, or name its file with --token-file";
        let mut refused = Self::new(StatusCode::UNAUTHORIZED, error, fix);
        refused.error.field = Some("token".to_owned());
        refused
    }

    /// Who asks may look and not this.
    pub fn forbidden() -> Self {
        let (error, fix) = (
            "the token may only look",
            "use the token of [api] token_file",
        );
        let mut refused = Self::new(StatusCode::FORBIDDEN, error, fix);
        refused.error.field = Some("token".to_owned());
        refused
    }

    pub fn unknown_path() -> Self {
        let fix = "GET /v1/openapi.json lists the paths there are";
        Self::new(StatusCode::NOT_FOUND, "no such path", fix)
    }

    pub fn wrong_method() -> Self {
        let fix = "GET /v1/openapi.json says which path takes GET and which POST";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "the path does not take this method", fix)
    }

    pub fn too_slow() -> Self {
        let (error, fix) = (
            "the request took too long",
            "send it faster, or ask for less",
        );
        Self::new(StatusCode::REQUEST_TIMEOUT, error, fix)
    }

    pub fn busy() -> Self {
        let error = "other candidates are being judged";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error,
            "try again in a second",
        )
    }

    pub fn crowded() -> Self {
        let error = "too many clients follow, wait for events or record";
        let fix = "end one of them, or try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, fix)
    }

    /// There are no samples to tell.
    pub fn no_history(reason: String) -> Self {
        let fix = "see `history` in GET /v1/counters, and [site] state_dir and history";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, fix)
    }

    pub fn too_long() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too long",
            format!(
                "send at most {} MiB of manifests, and 64 KiB elsewhere",
                REQUEST_LEN_MAX >> 20
            ),
        )
    }

    pub fn failed(error: &str) -> Self {
        let fix = "report it with the daemon's log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error, fix)
    }
}

impl From<BytesRejection> for Refused {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_long(),
            status => Self::new(status, rejection.body_text(), "send the body whole"),
        }
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::query(&rejection, "?limit=100&filter=dst%3D10.0.0.0%2F8")
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Self {
        let fix = "write peer and path in UTF-8, percent-encoded";
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text(), fix)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        // Three texts always become JSON.
        let body = serde_json::to_vec(&self.error).unwrap_or_default();
        let mut response = json_response(self.status, body);
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 11.6.1.
            let scheme = header::HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

pub fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body).into_response()
}

pub fn to_json(answer: &impl Serialize) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(answer).map_err(|error| Refused::failed(&error.to_string()))
}

pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!("the body is not what this path takes: {error}"),
            "send JSON as /v1/openapi.json describes it",
        )
    })
}
