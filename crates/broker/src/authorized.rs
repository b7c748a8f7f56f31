//! The only place where a call becomes authorized. Short on purpose: to audit authority, read this file.
//!
//! A call is authorized when the rules allow it, or a person said yes to this very call, **and** the intent to run it
//! is durable. [`open`] is the only function that makes an [`Authorized`], and it does so only with the store's word.
//!
//! ```compile_fail,E0451
//! // Nobody else can make one: the fields are private and there is no constructor.
//! fn forge(call: toolgate_core::call::Call, obligations: toolgate_core::verdict::Obligations)
//!     -> toolgate_broker::authorized::Authorized<toolgate_core::call::Call> {
//!     toolgate_broker::authorized::Authorized { call, tool: None, obligations }
//! }
//! ```
//!
//! ```compile_fail,E0382
//! // Running uses it up.
//! fn twice(call: toolgate_broker::authorized::Authorized<toolgate_core::call::Call>) {
//!     drop(call);
//!     drop(call);
//! }
//! ```
//!
//! ```
//! // Reading it is fine.
//! fn look(call: &toolgate_broker::authorized::Authorized<toolgate_core::call::Call>) -> String {
//!     call.get().action.to_string()
//! }
//! ```

use std::sync::Arc;

use toolgate_core::call::{Call, CallId};
use toolgate_core::verdict::{Allowed, Asked, Obligations};

use crate::port::{Approval, Line, Opened, Opening, Position, Repeat, Store, StoreError};
use crate::rulebook::AcceptedTool;

/// Judged, approved if asked, and written down. Never cloned, defaulted or deserialized.
#[derive(Debug)]
pub struct Authorized<T> {
    call: T,
    tool: Option<Arc<AcceptedTool>>,
    obligations: Obligations,
}

impl<T> Authorized<T> {
    /// The call.
    pub const fn get(&self) -> &T {
        &self.call
    }

    /// What must hold while it runs.
    pub const fn obligations(&self) -> &Obligations {
        &self.obligations
    }

    /// The accepted tool it was judged with; `None` for what is not a tool's call.
    pub const fn tool(&self) -> Option<&Arc<AcceptedTool>> {
        self.tool.as_ref()
    }

    /// Takes it apart to run it.
    pub fn into_parts(self) -> (T, Obligations) {
        (self.call, self.obligations)
    }
}

/// An opening line that is durable. Closing uses it up.
#[derive(Debug)]
pub struct Entry {
    call: CallId,
    intent: Position,
}

impl Entry {
    /// The call that was opened.
    pub const fn call(&self) -> CallId {
        self.call
    }

    /// Where its intent is on the log.
    pub const fn intent(&self) -> Position {
        self.intent
    }
}

/// Why a call may be opened.
#[derive(Debug)]
pub enum Grounds {
    /// The rules permit it.
    Allowed(Allowed),
    /// The rules ask, and a person said yes. The store still has to take the approval.
    Approved(Asked, Approval),
}

/// What came of asking the store to open a call.
#[derive(Debug)]
pub enum Gate {
    /// It may run, now and once.
    Authorized(Authorized<Call>, Entry),
    /// The approval could not be used; nothing was written.
    ApprovalGone(Call),
    /// The same call ran before and its answer was never delivered.
    Repeat(Repeat),
}

/// Opens a call: the approval is taken, the idempotency row inserted and the intent made durable in one transaction.
///
/// # Errors
/// The store could not, or may not have; then the call must not run.
pub async fn open<S: Store>(
    store: &S,
    call: Call,
    tool: Option<Arc<AcceptedTool>>,
    grounds: Grounds,
    repeats: bool,
    line: Line,
) -> Result<Gate, StoreError> {
    let digest = call.digest();
    let (obligations, approval) = match grounds {
        Grounds::Allowed(Allowed { rules: _, obligations }) => (obligations, None),
        Grounds::Approved(Asked { question: _, rule: _, because: _, obligations }, approval) => {
            (obligations, Some(approval))
        }
    };
    let opening = Opening { call: call.id, digest, repeats, approval, line };
    // COMMIT POINT: once this returns `Fresh`, the intent is on the log whatever happens next.
    Ok(match store.open(opening).await? {
        Opened::Fresh(intent) => {
            let entry = Entry { call: call.id, intent };
            Gate::Authorized(Authorized { call, tool, obligations }, entry)
        }
        Opened::ApprovalGone => Gate::ApprovalGone(call),
        Opened::Repeat(repeat) => Gate::Repeat(repeat),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(Authorized<Call>: Clone, Copy, Default, serde::de::DeserializeOwned);
    static_assertions::assert_not_impl_any!(Entry: Clone, Copy, Default, serde::de::DeserializeOwned);
}
