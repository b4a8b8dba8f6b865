//! What is wrong with a description of impairments.

use thiserror::Error;

/// A fault in a description of impairments or of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImpairError {
    /// The text is no TOML, or a key is unknown or of the wrong type; the parser's message names line and key.
    #[error("{0}")]
    Syntax(String),
    /// A value that its field cannot have.
    #[error("{field} = {value}: {fix}")]
    Value {
        /// The field, with the way to it.
        field: String,
        /// What was given.
        value: String,
        /// What to write there.
        fix: String,
    },
    /// Fields that go only together, or not together.
    #[error("{field}: {fix}")]
    Fields {
        /// The field, with the way to it.
        field: String,
        /// What to add or to take away.
        fix: String,
    },
}

impl ImpairError {
    pub(crate) fn value(field: &str, value: impl ToString, fix: impl Into<String>) -> Self {
        Self::Value {
            field: field.to_owned(),
            value: value.to_string(),
            fix: fix.into(),
        }
    }

    pub(crate) fn fields(field: &str, fix: impl Into<String>) -> Self {
        Self::Fields {
            field: field.to_owned(),
            fix: fix.into(),
        }
    }

    /// The same fault, with `place` before the field's name.
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        let join = |field: String| format!("{place}.{field}");
        match self {
            Self::Syntax(text) => Self::Syntax(format!("{place}: {text}")),
            Self::Value { field, value, fix } => Self::Value {
                field: join(field),
                value,
                fix,
            },
            Self::Fields { field, fix } => Self::Fields {
                field: join(field),
                fix,
            },
        }
    }
}
