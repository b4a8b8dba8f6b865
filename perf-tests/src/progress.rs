//! What the operator sees while a lab works: lines on standard error, the last one live on a terminal.

use std::io::{IsTerminal, Write, stderr};

/// Progress on standard error; standard output is for results alone.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
}

impl Progress {
    /// Finds out whether somebody looks.
    pub fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        // Nobody to show progress to is no reason to stop measuring.
        let _ = writeln!(stderr(), "{clear}{text}");
    }

    /// A line that the next one replaces; only a terminal gets it.
    pub fn live(&self, text: &str) {
        if self.terminal {
            let mut out = stderr();
            let _ = write!(out, "\r\x1b[K{text}");
            let _ = out.flush();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
