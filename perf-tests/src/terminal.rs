//! A terminal to run a program on, and what it shows: for tests of the console, and for measuring it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

/// A pseudo-terminal with a program on it. Dropped, the program sees its terminal go.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    slave: File,
    before: Termios,
    display: Arc<Mutex<Display>>,
}

impl Terminal {
    /// Starts a program on a terminal of its own. It is not the program's controlling terminal.
    ///
    /// # Errors
    /// No terminal, or a program that cannot be started.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Result<(Self, Child)> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).context("opening a terminal")?;
        // Whoever inherits our side keeps the terminal alive, and a program on it does not see it go.
        for fd in [&pty.master, &pty.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("keeping a terminal to us")?;
        }
        let before = tcgetattr(&pty.slave).context("asking for the terminal's settings")?;
        let stdio = || pty.slave.try_clone().map(Stdio::from);
        command.env("TERM", "xterm-256color");
        command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?);
        let display = Display::new(usize::from(columns), usize::from(rows));
        let display = Arc::new(Mutex::new(display));
        let mut reader = File::from(pty.master.try_clone().context("sharing a terminal")?);
        let shown = Arc::clone(&display);
        std::thread::Builder::new()
            .name("terminal".to_owned())
            .spawn(move || {
                let mut bytes = vec![0; 16 << 10];
                // It ends when nobody has the other side open.
                while let Ok(len) = reader.read(&mut bytes) {
                    lock(&shown).take(&bytes[..len], Instant::now());
                }
            })
            .context("starting the thread that reads a terminal")?;
        let child = command
            .spawn()
            .context("starting a program on a terminal")?;
        // It holds our side of the terminal open otherwise.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let terminal = Self {
            master: File::from(pty.master),
            slave: File::from(pty.slave),
            before,
            display,
        };
        Ok((terminal, child))
    }

    /// What it shows.
    pub fn display(&self) -> MutexGuard<'_, Display> {
        lock(&self.display)
    }

    /// Types.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes())?;
        Ok(())
    }

    /// Whether its settings are what they were before the program.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn is_as_found(&self) -> Result<bool> {
        Ok(tcgetattr(self.slave.as_fd())? == self.before)
    }
}

fn lock(display: &Mutex<Display>) -> MutexGuard<'_, Display> {
    // Whoever panicked left a picture.
    display.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As much of a terminal as the console asks for: places and texts.
#[derive(Debug)]
pub struct Display {
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    /// All that was written, for what is no picture.
    written: String,
    /// The beginning of a sequence or of a character.
    rest: Vec<u8>,
    changed: Option<Instant>,
}

impl Display {
    /// An empty one.
    pub fn new(columns: usize, rows: usize) -> Self {
        Self {
            cells: vec![vec![' '; columns]; rows],
            at: (0, 0),
            written: String::new(),
            rest: Vec::new(),
            changed: None,
        }
    }

    /// Takes what a program wrote.
    pub fn take(&mut self, bytes: &[u8], now: Instant) {
        self.changed = Some(now);
        self.rest.extend_from_slice(bytes);
        let valid = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8_lossy(&self.rest[..valid]).into_owned();
        let mut done = 0;
        while let Some(char) = text[done..].chars().next() {
            if char == '\x1b' {
                let Some(len) = sequence_len(&text[done..]) else {
                    break;
                };
                self.sequence(&text[done..done + len]);
                done += len;
                continue;
            }
            self.put(char);
            done += char.len_utf8();
        }
        self.written.push_str(&text[..done]);
        self.rest.drain(..done);
    }

    /// The rows, without what is empty at their ends.
    pub fn picture(&self) -> String {
        let rows = self.cells.iter();
        let rows = rows.map(|row| row.iter().collect::<String>().trim_end().to_owned());
        rows.collect::<Vec<_>>().join("\n")
    }

    /// All that was written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// When something was written last.
    pub fn changed(&self) -> Option<Instant> {
        self.changed
    }

    fn put(&mut self, char: char) {
        let (rows, columns) = (self.cells.len(), self.cells.first().map_or(0, Vec::len));
        match char {
            '\r' => self.at.1 = 0,
            '\n' => self.at.0 = (self.at.0 + 1).min(rows.saturating_sub(1)),
            char if self.at.1 < columns => {
                self.cells[self.at.0][self.at.1] = char;
                self.at.1 += 1;
            }
            _ => {}
        }
    }

    fn sequence(&mut self, text: &str) {
        let Some(body) = text.strip_prefix("\x1b[") else {
            return;
        };
        let (rows, columns) = (self.cells.len(), self.cells.first().map_or(0, Vec::len));
        if let Some(place) = body.strip_suffix('H') {
            let (row, column) = place.split_once(';').unwrap_or(("1", "1"));
            let place = |text: &str, max: usize| {
                text.parse::<usize>().unwrap_or(1).clamp(1, max.max(1)) - 1
            };
            self.at = (place(row, rows), place(column, columns));
        } else if body == "2J" || body == "?1049h" {
            self.cells = vec![vec![' '; columns]; rows];
        }
    }
}

/// The bytes of a control sequence, once it is whole.
fn sequence_len(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, second) = chars.next()?;
    if second != '[' {
        return Some(1 + second.len_utf8());
    }
    chars
        .find(|(_, char)| ('@'..='~').contains(char))
        .map(|(at, char)| at + char.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_shows_what_it_is_told_however_that_is_cut() {
        let mut display = Display::new(20, 3);
        let told = "\x1b[?1049h\x1b[2;3Hab\x1b[38;5;1mc●\x1b[1;1Hx";
        for byte in told.as_bytes() {
            display.take(&[*byte], Instant::now());
        }
        assert_eq!(display.picture(), "x\n  abc●\n");
    }
}
