//! Why there is no result.

use super::{Answered, shortened};
use crate::rpc::{self, Id};

/// The error for what was refused and has no result to say so in. Outside of the ranges that JSON-RPC and MCP reserve.
pub const REFUSED: i64 = -31_403;

/// What HTTP says about an answer to a request of 2026-07-28. Everything else is `200`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 400: version, headers or `_meta` are not as they have to be.
    BadRequest,
    /// 404: there is no such method.
    NotFound,
    /// 200.
    Ok,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    code: i64,
    message: String,
    data: Option<Vec<u8>>,
    status: Status,
}

impl Fault {
    /// An error of this code; the status follows from it.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        let status = status(code);
        Self { code, message: message.into(), data: None, status }
    }

    /// The parameters do not fit.
    #[must_use]
    pub fn params(message: impl Into<String>) -> Self {
        Self::new(rpc::INVALID_PARAMS, message)
    }

    /// `_meta` is not as it has to be.
    pub(super) fn meta(message: impl Into<String>) -> Self {
        Self { status: Status::BadRequest, ..Self::params(message) }
    }

    /// The headers say something else than the body.
    #[must_use]
    pub fn headers(message: impl Into<String>) -> Self {
        Self::new(rpc::HEADER_MISMATCH, message)
    }

    pub(super) fn method(method: &str) -> Self {
        Self::new(rpc::METHOD_NOT_FOUND, format!("Method not found: {}", shortened(method)))
    }

    pub(super) fn with(mut self, data: Vec<u8>) -> Self {
        self.data = Some(data);
        self
    }

    /// The whole response.
    #[must_use]
    pub fn to_answer(&self, id: &Id) -> Answered {
        let message = rpc::error(Some(id), self.code, &self.message, self.data.as_deref());
        Answered { message, call: None, status: self.status }
    }
}

pub(super) const fn status(code: i64) -> Status {
    match code {
        rpc::HEADER_MISMATCH | rpc::MISSING_CAPABILITY | rpc::UNSUPPORTED_VERSION => Status::BadRequest,
        rpc::METHOD_NOT_FOUND => Status::NotFound,
        _ => Status::Ok,
    }
}
