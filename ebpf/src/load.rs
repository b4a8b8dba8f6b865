//! Why a program did not get into the kernel, sorted by what helps.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

use crate::support::Support;

/// Why a program was not loaded. The gateway works without it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused for want of privilege (`EPERM`, `EACCES`).
    #[error("the kernel refused the pre-filter: {why}")]
    NotPermitted {
        /// What is missing, with the fix.
        why: String,
    },
    /// The running kernel cannot run it.
    #[error("this kernel cannot run the pre-filter: {why}")]
    Unsupported {
        /// What is missing and since when there is such a thing.
        why: String,
    },
    /// A setting that no program can have.
    #[error("{0}")]
    Config(String),
    /// Anything else; of the verifier, its last words.
    #[error("{operation} failed: {cause}")]
    Kernel {
        /// What was tried.
        operation: String,
        /// The kernel's answer.
        cause: String,
    },
}

impl LoadError {
    pub(crate) fn from_ebpf(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(error) => Self::from_map(error),
            EbpfError::ProgramError(error) => Self::from_program("loading the programs", error),
            other => Self::Kernel {
                operation: "reading the built programs".to_owned(),
                cause: chain(&other),
            },
        }
    }

    pub(crate) fn from_map(error: MapError) -> Self {
        let (operation, io_error) = match &error {
            MapError::CreateError { name, io_error } => {
                (format!("creating the map {name}"), Some(io_error))
            }
            MapError::SyscallError(error) => (error.call.to_owned(), Some(&error.io_error)),
            _ => ("a map".to_owned(), None),
        };
        match io_error {
            Some(io_error) => Self::from_io(operation, io_error),
            None => Self::Kernel {
                operation,
                cause: chain(&error),
            },
        }
    }

    pub(crate) fn from_program(operation: &str, error: ProgramError) -> Self {
        match &error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => match Self::from_io(operation.to_owned(), io_error) {
                Self::Kernel { operation, cause } => Self::Kernel {
                    operation,
                    cause: format!("{cause}; {}", last_words(&verifier_log.to_string())),
                },
                sorted => sorted,
            },
            ProgramError::SyscallError(error) => {
                Self::from_io(format!("{operation} ({})", error.call), &error.io_error)
            }
            _ => Self::Kernel {
                operation: operation.to_owned(),
                cause: chain(&error),
            },
        }
    }

    fn from_io(operation: String, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                let support = Support::probe();
                let why = support.refusal().unwrap_or_else(|| {
                    format!(
                        "{operation}: {error}, although the capabilities are there: a seccomp filter, an LSM or \
                         kernel lockdown forbids bpf(2)"
                    )
                });
                Self::NotPermitted { why }
            }
            Some(libc::ENOSYS) => Self::Unsupported {
                why: "it was built without bpf(2) (CONFIG_BPF_SYSCALL)".to_owned(),
            },
            _ => Self::Kernel {
                operation,
                cause: error.to_string(),
            },
        }
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

/// The last lines of the verifier: where it stopped and why.
fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let from = lines.len().saturating_sub(VERIFIER_LINES);
    lines[from..].join("; ")
}

const VERIFIER_LINES: usize = 4;
