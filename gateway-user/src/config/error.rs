//! What is wrong with a configuration file.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong: file, key, problem, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<PathBuf>,
    /// Dotted path of the key; empty for the file as a whole.
    key: String,
    problem: String,
    allowed: String,
}

impl ConfigError {
    pub(super) fn new(
        key: impl Into<String>,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            file: None,
            key: key.into(),
            problem: problem.into(),
            allowed: allowed.into(),
        }
    }

    /// Also allows `what`.
    pub(super) fn or_allowed(mut self, what: &str) -> Self {
        self.allowed = format!("{what}, or {}", self.allowed);
        self
    }

    pub(super) fn at_key(mut self, key: String) -> Self {
        self.key = key;
        self
    }

    pub(super) fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }
}

impl ConfigError {
    /// What is wrong with which key, and what would be right.
    pub(crate) fn parts(&self) -> (String, &str) {
        (format!("{} {}", self.key, self.problem), &self.allowed)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        write!(f, "{} (allowed: {})", self.problem, self.allowed)
    }
}

impl std::error::Error for ConfigError {}
