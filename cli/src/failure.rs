//! How a command ends badly: whose fault it is decides the exit status.
//!
//! It prints nothing.

use domain::spec::SpecError;

use crate::client::ClientError;
use crate::fit_document::DocumentError;
use crate::weights::WeightsError;

/// A command that did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The run or study failed, or something unexpected happened: exit status 1.
    Failed(anyhow::Error),
    /// The command or the study file is wrong: exit status 2.
    Wrong(anyhow::Error),
    /// The coordinator cannot be reached: exit status 3.
    Unreachable(anyhow::Error),
}

impl Failure {
    /// The command is wrong, for this reason.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self::Wrong(anyhow::Error::msg(message.into()))
    }

    /// Something failed, for this reason.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(anyhow::Error::msg(message.into()))
    }

    /// The same failure, said of something.
    #[must_use]
    pub fn context(self, of: String) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(error.context(of)),
            Self::Wrong(error) => Self::Wrong(error.context(of)),
            Self::Unreachable(error) => Self::Unreachable(error.context(of)),
        }
    }

    /// 1, 2 or 3.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Wrong(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }

    /// The error and its causes, one a line.
    pub fn report(&self) -> String {
        let (Self::Failed(error) | Self::Wrong(error) | Self::Unreachable(error)) = self;
        let mut lines = vec![format!("error: {error}")];
        lines.extend(error.chain().skip(1).map(|cause| format!("  because: {cause}")));
        lines.join("\n")
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        if error.is::<SpecError>() { Self::Wrong(error) } else { Self::Failed(error) }
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::Wrong(error.into())
    }
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        if matches!(error, DocumentError::Write { .. }) {
            Self::Failed(error.into())
        } else {
            Self::Wrong(error.into())
        }
    }
}

impl From<WeightsError> for Failure {
    fn from(error: WeightsError) -> Self {
        if error.is_refusal() { Self::Wrong(error.into()) } else { Self::Failed(error.into()) }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Unreachable { .. } => Self::Unreachable(error.into()),
            ClientError::Refused { code, .. } => match code.as_str() {
                "invalid_spec" | "bad_request" | "not_found" | "conflict" | "read_only" => {
                    Self::Wrong(error.into())
                }
                _ => Self::Failed(error.into()),
            },
            ClientError::Answer { .. } | ClientError::Address { .. } => Self::Failed(error.into()),
        }
    }
}
