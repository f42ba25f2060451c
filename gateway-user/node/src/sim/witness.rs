//! The witness on a third host, if the plan has one.

/// The responder.
pub(super) struct Third {
    pub(super) configured: bool,
}

impl Third {
    pub(super) const fn new(configured: bool) -> Self {
        Self { configured }
    }
}
